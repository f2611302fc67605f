"""How grave a sensor's state is: nominal, warning or critical. Pure.

The standard names the events of a sensor and leaves open which of them are bad. The verdicts
here are those of FreeIPMI 1.6.10's `ipmi-sensors --output-sensor-state` with its default
settings, which ipmi_exporter reports: observed event by event (tests/exporters compare them).
Where FreeIPMI has no verdict there is none here.
"""

from __future__ import annotations

from enum import IntEnum

from .event_words import GENERIC, SENSOR_SPECIFIC, SPECIFIC, THRESHOLD


class State(IntEnum):
    """The numbers are those that ipmi_exporter gives to the states."""

    NOMINAL = 0
    WARNING = 1
    CRITICAL = 2


# One digit for each event offset, from 0 on: 0 nominal, 1 warning, 2 critical. Offsets behind
# the last digit are nominal, as is a sensor on which no event is asserted.

# Lower non-critical, critical, non-recoverable; upper likewise (42-2, "threshold").
_THRESHOLD_EVENTS = "022022"

_SEVERITY = "01221221"
_REDUNDANCY = "02122211"

# Keyed by event/reading type code (table 42-2), then by sensor type (table 42-3).
_GENERIC: dict[int, dict[int, str]] = {
    0x02: {0x12: ""},
    # State deasserted, asserted.
    0x03: {
        **dict.fromkeys((0x01, 0x02, 0x04, 0x08, 0x09, 0x0E, 0x0F, 0x12), "01"),
        **dict.fromkeys((0x07, 0x0C, 0x15, 0x1E, 0x20, 0x24), "02"),
        0x0D: "1",
        0x14: "",
    },
    0x04: {0x0D: "02"},
    0x05: dict.fromkeys((0x01, 0x02), "02"),
    0x06: {0x02: "02"},
    0x07: dict.fromkeys(
        (
            *(0x01, 0x02, 0x03, 0x04, 0x08, 0x09, 0x0C, 0x0D, 0x0F),
            *(0x12, 0x14, 0x18, 0x19, 0x1B, 0x1E, 0x21, 0x28),
        ),
        _SEVERITY,
    ),
    # Device absent, present.
    0x08: dict.fromkeys((0x04, 0x09, 0x0D, 0x0F, 0x15, 0x25, 0x28), "2"),
    0x0A: {0x04: "011111212"},
    0x0B: dict.fromkeys((0x04, 0x08, 0x09, 0x0A, 0x0C), _REDUNDANCY),
}

# The sensor-specific events of table 42-3, by sensor type.
_SPECIFIC = {
    0x05: "2222222",  # physical security
    0x06: "222222",  # platform security
    0x07: "2222222022121",  # processor
    0x08: "02222221",  # power supply
    0x09: "00112222",  # power unit
    0x0C: "12222102012",  # memory
    0x0D: "022002202",  # drive slot
    0x0F: "22",  # firmware progress
    0x10: "2202212",  # event logging disabled
    0x12: "102001",  # system event
    0x13: "222122212221",  # critical interrupt
    0x14: "00011",  # button
    0x1B: "02",  # cable
    0x1E: "22221",  # boot error
    0x1F: "00000010012",  # OS boot
    0x21: "210000111",  # slot
    0x22: "00000000000002",  # ACPI power state
    0x23: "122200001",  # watchdog 2
    0x25: "022",  # entity presence
    0x28: "222222",  # management subsystem health
    0x29: "12",  # battery
    0x2A: "0012",  # session audit
    0x2B: "112222",  # version change
    0x2C: "22110112",  # FRU state
}

# What differs for entries of the event log, where an offset without a digit is nominal and one
# that the standard does not name has no verdict (`ipmi-sel --output-event-state`).
_LOGGED_SPECIFIC = {
    **_SPECIFIC,
    0x19: "22",  # chip set
    0x1D: "00000110",  # system boot initiated
    0x20: "221112",  # OS critical stop
    0x22: "000000000000022",
    0x24: "0000",  # platform alert
    0x27: "01",  # LAN
}
_LOGGED_THRESHOLDS = "102122011222"
# When the event ended instead.
_ENDED_SPECIFIC = {0x08: "02211121", 0x09: "00011222"}
_ENDED_THRESHOLDS = "001122001122"
_ENDED_GENERIC = {
    0x06: {0x02: "01"},
    0x0A: {0x04: "011111112"},
    0x0B: dict.fromkeys((0x04, 0x08, 0x09, 0x0A, 0x0C), "01111111"),
}


def judge_logged(
    sensor_type: int, event_type: int, offset: int, *, is_ended: bool
) -> State | None:
    """Return how grave an entry of the event log is; None when nobody says.

    `is_ended`: the entry says that the event is over (IPMI 2.0, 29.7, event direction).
    """
    known, begun, ended = GENERIC.get(event_type, ()), _GENERIC.get(event_type, {}), None
    if event_type == THRESHOLD:
        verdicts: str | None = _ENDED_THRESHOLDS if is_ended else _LOGGED_THRESHOLDS
    elif event_type == SENSOR_SPECIFIC:
        verdicts = _LOGGED_SPECIFIC.get(sensor_type)
        ended = _ENDED_SPECIFIC.get(sensor_type)
        known = SPECIFIC.get(sensor_type, ())
    else:
        verdicts = begun.get(sensor_type)
        ended = _ENDED_GENERIC.get(event_type, {}).get(sensor_type)
    if is_ended and ended is not None:
        verdicts = ended
    if verdicts is None or offset >= max(len(known), len(verdicts)):
        return None
    return State(int(verdicts[offset])) if offset < len(verdicts) else State.NOMINAL


def judge(sensor_type: int, event_type: int, events: int) -> State | None:
    """Return the gravest of the asserted `events`, a bit for each offset (35.14).

    None when nobody says which of the sensor's events are bad.
    """
    if event_type == THRESHOLD:
        verdicts: str | None = _THRESHOLD_EVENTS
    elif event_type == SENSOR_SPECIFIC:
        verdicts = _SPECIFIC.get(sensor_type)
    else:
        verdicts = _GENERIC.get(event_type, {}).get(sensor_type)
    if verdicts is None:
        return None
    asserted = [int(digit) for place, digit in enumerate(verdicts) if events >> place & 1]
    return State(max(asserted, default=0))
