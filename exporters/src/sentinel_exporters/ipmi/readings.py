"""What the sensors of a BMC read now. Keeps nothing and exports nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from .errors import CompletionError, IpmiError
from .event_words import THRESHOLD
from .sdr import GET_READING, SENSOR, SensorRecord
from .session import Session
from .states import State, judge

_THRESHOLD_BITS = 0x3F
_EVENT_BITS = 0x7FFF


@dataclass(frozen=True, eq=False)
class Reading:
    """One sensor's reading, in the unit of its record. None: it has none of that kind.

    It is equal to itself only, which makes it a quick key.
    """

    record: SensorRecord
    value: float | None
    state: State | None


def read_sensors(session: Session, records: Iterable[SensorRecord]) -> list[Reading]:
    """Ask for every sensor; those that read nothing now are left out.

    Raises IpmiError when the BMC stops answering or gives none of the sensors.
    """
    records = list(records)
    answers = session.request_all([record.get_reading for record in records])
    readings: list[Reading] = []
    refused = 0
    for record, answer in zip(records, answers, strict=True):
        if answer[0]:
            # A drive or riser that is not plugged in, or a host that is off.
            refused = answer[0]
            continue
        if record.is_linear:
            reading = _decode_known(record, answer)
        else:
            reading = decode_reading(record, answer[1:], session)
        if reading is not None:
            readings.append(reading)
    if refused == CompletionError.INSUFFICIENT_PRIVILEGE and not readings:
        refusal = session.refusal(SENSOR, GET_READING, refused)
        raise IpmiError(f"no sensor can be read: {refusal}")
    return readings


# Most sensors read what they did a minute ago, and all BMCs of a model have the same records.
@lru_cache(maxsize=32768)
def _decode_known(record: SensorRecord, answer: bytes) -> Reading | None:
    return decode_reading(record, answer[1:])


def decode_reading(
    record: SensorRecord, data: bytes, session: Session | None = None
) -> Reading | None:
    """Decode Get Sensor Reading (IPMI 2.0, 35.14); None when the sensor reads nothing now.

    `session` is asked for the formula of a non-linear sensor.
    """
    if len(data) < 2:
        return None
    is_unavailable, is_scanned = data[1] & 0x20, data[1] & 0x40
    if is_unavailable or not is_scanned:
        return None
    value = record.convert(data[0], session) if record.has_number else None
    state = None
    if len(data) > 2:  # the state bytes are optional
        events = int.from_bytes(data[2:4], "little")
        events &= _THRESHOLD_BITS if record.event_type == THRESHOLD else _EVENT_BITS
        state = judge(record.sensor_type, record.event_type, events)
    return Reading(record, value, state)
