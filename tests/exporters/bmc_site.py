"""A simulated BMC behind a link, whose sensors change while it runs. Asks no exporter."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tests.exporters.bmc import Bmc, Command, Sensor
from tests.exporters.links import Link, Links

# What the pages are asked for, in this order.
COLLECTORS = ("ipmi", "chassis", "bmc")

_GET_READING, _GET_INFO = (0x04, 0x2D), (0x0A, 0x20)
_RESERVE, _GET_RECORD = (0x0A, 0x22), (0x0A, 0x23)
_RESERVATION = b"\x01\x00"
# The simulator writes beyond its memory when a module of ours answers more than 40 bytes.
_MAX_PART = 32
_TOO_MUCH = b"\xca"
_OFFERED, _UNAVAILABLE = b"\xc0", b"\xe0"  # Get Sensor Reading, byte 3 (IPMI 2.0, 35.14)
_LAST_RECORD = 0xFFFF

_C, _V, _RPM = 1, 4, 18
SENSORS = (
    Sensor("Inlet Temp", 1, raw=24, unit=_C), Sensor("CPU Temp", 1, raw=55, unit=_C),
    Sensor("GPU0 Temp", 1, raw=61, unit=_C), Sensor("GPU1 Temp", 1, raw=63, unit=_C),
    Sensor("FAN1", 4, raw=57, unit=_RPM, m=100), Sensor("FAN2", 4, raw=59, unit=_RPM, m=100),
    Sensor("12V", 2, raw=201, unit=_V, m=6, r_exp=-2),
    Sensor("PSU1 Status", 8, 0x6F, bits=(0,), record="compact"),
)  # fmt: skip

_FAMILIES = {
    1: ("ipmi_temperature_celsius", "ipmi_temperature_state"),
    2: ("ipmi_voltage_volts", "ipmi_voltage_state"),
    4: ("ipmi_fan_speed_rpm", "ipmi_fan_speed_state"),
}
_CHASSIS = ("cooling_fault", "drive_fault", "power")


@dataclass
class Page:
    """What a scrape came to."""

    # Series as they are written, and their values.
    series: Mapping[str, float]

    @classmethod
    def parse(cls, text: str) -> Page:
        """Take a page in the text format."""
        lines = [line for line in text.splitlines() if line and line[0] != "#"]
        return cls(
            {at: float(value) for at, _, value in (one.rpartition(" ") for one in lines)}
        )

    def is_up(self, collector: str) -> bool:
        """Whether the BMC is said to have told it."""
        return self.series.get(f'ipmi_up{{collector="{collector}"}}') == 1

    @property
    def is_complete(self) -> bool:
        """Whether the BMC is said to have told everything."""
        return all(map(self.is_up, COLLECTORS))


class Site:
    """One BMC and the way to it. `number` makes its readings differ from those of others."""

    def __init__(self, folder: Path, links: Links, number: int = 0) -> None:
        self._sensors = tuple(
            replace(one, raw=one.raw + number) if one.event_type == 1 else one
            for one in SENSORS
        )
        self._unavailable: frozenset[str] = frozenset()
        self._changes = 0
        guid = f"{0x5A1E0000C0DE40008000000000000000 + number:032x}"
        # An address of its own: on that of the links, one of their sockets could take the port
        # while the BMC is restarted.
        host = f"127.3.{number // 250}.{number % 250 + 1}"
        self.bmc = Bmc(folder, (), guid=guid, host=host, answers=self._answers()).start()
        self.link: Link = links.add((self.bmc.host, self.bmc.port))

    @property
    def target(self) -> str:
        """What `?target=` takes: the BMC by its link."""
        return f"127.0.0.1:{self.link.port}"

    def change(
        self, sensors: Sequence[Sensor] | None = None, unavailable: Sequence[str] = ()
    ) -> None:
        """Read otherwise from now on; other sensors make another SDR repository.

        `unavailable` are names of sensors that say so in place of a reading.
        """
        if sensors is not None:
            old = self._records()
            self._sensors = tuple(sensors)
            self._changes += old != self._records()
        self._unavailable = frozenset(unavailable)
        self.bmc.change_answers(self._answers())

    def change_values(self, chance: random.Random) -> None:
        """Let each number be another, of a few: an exporter may remember what it has seen."""
        self.change(
            [
                replace(one, raw=chance.randrange(100, 108)) if one.event_type == 1 else one
                for one in self._sensors
            ]
        )

    @property
    def sensors(self) -> Sequence[Sensor]:
        """What it has now."""
        return self._sensors

    def expected(self) -> dict[str, Mapping[str, float]]:
        """Return, by collector, the series that its page must have."""
        found: dict[str, float] = {}
        for number, one in enumerate(self._sensors, 1):
            labels = f'id="{number}",name="{one.name}"'
            if one.name in self._unavailable:
                continue
            if one.event_type != 1:
                found[f'ipmi_sensor_state{{{labels},type="Power Supply"}}'] = 0
                continue
            value, state = _FAMILIES[one.sensor_type]
            found[f"{value}{{{labels}}}"] = round(one.m * one.raw * 10.0**one.r_exp, 6)
            found[f"{state}{{{labels}}}"] = 0
        chassis = {f"ipmi_chassis_{name}_state": 1.0 for name in _CHASSIS}
        info = (
            'ipmi_bmc_info{firmware_revision="2.45",manufacturer_id="Super Micro Computer Inc.'
            ' (10876)",system_firmware_version="N/A",bmc_url="N/A"}'
        )
        return {"ipmi": found, "chassis": chassis, "bmc": {info: 1.0}}

    def find_wrong(self, page: Page) -> list[str]:
        """Return what is on the page and must not be, or must and is not.

        A collector with `ipmi_up` 1 has all its series, and one with 0 has none.
        """
        expected: dict[str, float] = {}
        for collector, series in self.expected().items():
            up = page.series.get(f'ipmi_up{{collector="{collector}"}}')
            if up is None:
                return [f"no ipmi_up of {collector}"]
            expected.update(series if up else {})
        found = {
            at: value
            for at, value in page.series.items()
            if at.startswith("ipmi_") and not at.startswith(("ipmi_up", "ipmi_scrape"))
        }
        success = page.series.get('sentinel_collector_success{collector="ipmi"}')
        if success != page.is_complete:
            return [f"success is {success}, complete {page.is_complete}"]
        return [
            f"{at}: {found.get(at)} in place of {expected.get(at)}"
            for at in sorted(found.keys() | expected.keys())
            if found.get(at) != expected.get(at)
        ]

    def _records(self) -> list[bytes]:
        return [sensor.sdr(number) for number, sensor in enumerate(self._sensors, 1)]

    def _answers(self) -> dict[Command, bytes]:
        answers: dict[Command, bytes] = {}
        count = len(self._sensors).to_bytes(2, "little")
        # Version, count, free bytes, times of the last addition and erasure, no operations.
        times = self._changes.to_bytes(4, "little")
        answers[Command(*_GET_INFO)] = b"\x00\x51" + count + b"\x00\x10" + times + times + b"\0"
        for number, sensor in enumerate(self._sensors, 1):
            following = number + 1 if number < len(self._sensors) else _LAST_RECORD
            for asked in (number, 0) if number == 1 else (number,):
                where = _RESERVATION + asked.to_bytes(2, "little")
                for part, data in _parts(sensor.sdr(number)):
                    answer = b"\0" + following.to_bytes(2, "little") + data
                    answers[Command(*_GET_RECORD, where + part)] = answer
            states = sum(1 << bit for bit in sensor.bits).to_bytes(2, "little")
            flags = _UNAVAILABLE if sensor.name in self._unavailable else _OFFERED
            reading = bytes([0, sensor.raw]) + flags + states
            answers[Command(*_GET_READING, bytes([number]))] = reading
        answers[Command(*_RESERVE)] = b"\0" + _RESERVATION
        answers[Command(*_GET_RECORD)] = _TOO_MUCH  # any other part
        return answers


def _parts(record: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield what may be asked of a record, offset and size, and what is there."""
    for offset in (0, 5, _MAX_PART, 5 + _MAX_PART):
        for size in {5, _MAX_PART, len(record) - offset}:
            if size <= _MAX_PART and offset + size <= len(record):
                yield bytes([offset, size]), record[offset : offset + size]
