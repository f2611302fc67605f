"""Entries of a BMC's System Event Log, in the words of FreeIPMI's `ipmi-sel`. Asks no BMC."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from .event_details import describe_data
from .event_words import FIRST_OEM_TYPE, GENERIC, SENSOR_SPECIFIC, SPECIFIC
from .sdr import SensorRecord
from .states import State, judge_logged

ENTRY_BYTES = 16

# Record types (IPMI 2.0, 32.1 to 32.3).
_SYSTEM_EVENT = 0x02
_FIRST_OEM_WITH_TIME, _FIRST_OEM_WITHOUT_TIME = 0xC0, 0xE0
# Before it the time counts from when the BMC was started; FFFFFFFFh is none (37.1).
_FIRST_REAL_TIME, _NO_TIME = 0x20000001, 0xFFFFFFFF

# Finds the record of a sensor by its owner's address and its number.
FindRecord = Callable[[int, int], SensorRecord | None]


@dataclass(frozen=True)
class Event:
    """One entry. `time` is Unix time as the BMC has it, None when it had none."""

    text: str
    state: State | None
    time: int | None


def parse_entry(data: bytes, find_record: FindRecord) -> Event | None:
    """Decode the 16 bytes of an entry; None for a type of record that the standard reserves.

    Data of another length are filled up with FFh, "unspecified", or cut.
    """
    data = data[:ENTRY_BYTES].ljust(ENTRY_BYTES, b"\xff")
    kind = data[2]
    if kind >= _FIRST_OEM_WITHOUT_TIME:
        return Event(_oem(data[3:]), None, None)
    (seconds,) = struct.unpack_from("<I", data, 3)
    time = seconds if _FIRST_REAL_TIME <= seconds < _NO_TIME else None
    if kind >= _FIRST_OEM_WITH_TIME:
        return Event(_oem(data[10:]), None, time)
    if kind != _SYSTEM_EVENT:
        return None
    owner, sensor_type, number = data[7], data[10], data[11]
    event_type, is_ended = data[12] & 0x7F, bool(data[12] & 0x80)
    offset, event_data = data[13] & 0x0F, data[13:]
    words = [
        _name(sensor_type, event_type, offset),
        *describe_data(sensor_type, event_type, event_data, find_record(owner, number)),
    ]
    state = judge_logged(sensor_type, event_type, offset, is_ended=is_ended)
    return Event(" ; ".join(words), state, time)


def _name(sensor_type: int, event_type: int, offset: int) -> str:
    is_specific = event_type == SENSOR_SPECIFIC
    names = (SPECIFIC if is_specific else GENERIC).get(
        sensor_type if is_specific else event_type, ()
    )
    if offset < len(names):
        return names[offset]
    prefix = "OEM " if event_type >= FIRST_OEM_TYPE else ""
    return f"{prefix}Event Offset = {offset:02X}h"


def _oem(data: bytes) -> str:
    return "OEM defined = " + " ".join(f"{byte:02X}h" for byte in data)
