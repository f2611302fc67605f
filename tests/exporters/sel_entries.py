"""Entries of a System Event Log, made for tests. Judges nothing."""

from __future__ import annotations

from collections.abc import Iterator

from sentinel_exporters.ipmi.session import Session

SYSTEM_EVENT = 0x02
THRESHOLD, SENSOR_SPECIFIC = 0x01, 0x6F

# Of table 42-3 and 42-2.
SENSOR_TYPES = (*range(0x00, 0x2E), 0xC0, 0xFF)
EVENT_TYPES = range(0x02, 0x0D)


def entry(
    sensor_type: int,
    event_type: int,
    *data: int,
    number: int = 99,
    owner: int = 0x20,
    is_ended: bool = False,
) -> tuple[int, bytes]:
    """Return record type and body; `data` is event data 1 to 3, FFh where it is not given."""
    filled = bytes(data).ljust(3, b"\xff")
    head = [0, 0, 0, 0, owner, 0, 4, sensor_type, number, event_type | is_ended << 7]
    return SYSTEM_EVENT, bytes(head) + filled


def specific() -> Iterator[tuple[int, bytes]]:
    """Yield each event of each sensor type, begun and ended."""
    for sensor_type in SENSOR_TYPES:
        for offset in range(15):
            for is_ended in (False, True):
                yield entry(sensor_type, SENSOR_SPECIFIC, offset, is_ended=is_ended)


def generic() -> Iterator[tuple[int, bytes]]:
    """Yield events of each event type with each sensor type, begun and ended."""
    for sensor_type in SENSOR_TYPES:
        for event_type in EVENT_TYPES:
            yield entry(sensor_type, event_type, 0)
            yield entry(sensor_type, event_type, 1, is_ended=True)


def every_offset() -> Iterator[tuple[int, bytes]]:
    """Yield each offset of each event type, those without a name too."""
    for sensor_type in (0x04, 0x08):
        for event_type in (*range(0x0F), 0x6E, 0x70, 0x7F):
            for offset in range(15):
                is_ended = bool(offset & 1)
                yield entry(sensor_type, event_type, offset, 0x12, 0x34, is_ended=is_ended)
                yield entry(sensor_type, event_type, offset, is_ended=not is_ended)


class CountingSession(Session):
    """A session that remembers which commands it sent."""

    commands: list[tuple[int, int]]

    def request(self, netfn: int, command: int, data: bytes = b"", lun: int = 0) -> bytes:
        self.__dict__.setdefault("commands", []).append((netfn, command))
        return super().request(netfn, command, data, lun)
