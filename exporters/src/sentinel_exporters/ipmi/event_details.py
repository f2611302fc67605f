"""What the data bytes of an entry of the event log say, in the words of FreeIPMI's `ipmi-sel`.

Pure. Where the words are not known here the byte is given as it is: `Event Data2 = 1Ah`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .event_words import FIRST_OEM_TYPE, GENERIC, SENSOR_SPECIFIC, THRESHOLD
from .sdr import SensorRecord

_SEVERITIES = GENERIC[0x07]

# Table 42-3, the columns of event data 2 and 3, and 28.11 for the restart causes.
_FIRMWARE_ERRORS = (
    "Unspecified",
    "No system memory is physically installed in the system",
    "No usable system memory, all installed memory has experienced an unrecoverable failure",
    "Unrecoverable hard-disk/ATAPI/IDE device failure",
    "Unrecoverable system-board failure",
    "Unrecoverable diskette subsystem failure",
    "Unrecoverable hard-disk controller failure",
    "Unrecoverable PS/2 or USB keyboard failure",
    "Removable boot media not found",
    "Unrecoverable video controller failure",
    "No video device detected",
    "Firmware (BIOS) ROM corruption detected",
    "CPU voltage mismatch (processors that share same supply have mismatched voltage "
    "requirements)",
    "CPU speed matching failure",
)
_FIRMWARE_PROGRESS = (
    "Unspecified",
    "Memory initialization",
    "Hard-disk initialization",
    "Secondary processor(s) initialization",
    "User authentication",
    "User-initiated system setup",
    "USB resource configuration",
    "PCI resource configuration",
    "Option ROM initialization",
    "Video initialization",
    "Cache initialization",
    "SM Bus initialization",
    "Keyboard controller initialization",
    "Embedded controller/management controller initialization",
    "Docking station attachment",
    "Enabling docking station",
    "Docking station ejection",
    "Disabling docking station",
    "Calling operating system wake-up vector",
    "Starting operating system boot process, e.g. calling Unsigned Int 19h",
    "Baseboard or motherboard initialization",
    "reserved",
    "Floppy initialization",
    "Keyboard test",
    "Pointing device test",
    "Primary processor initialization",
)
_POWER_SUPPLY_ERRORS = (
    "Vendor mismatch",
    "Revision mismatch",
    "Processor missing or unexpected/unsupported condition",
    "Power Supply rating mismatch",
    "Voltage rating mismatch",
)
_RESTART_CAUSES = (
    "unknown",
    "Chassis Control command",
    "reset via pushbutton",
    "power-up via power pushbutton",
    "Watchdog expiration",
    "OEM",
    "automatic power-up on AC being applied due to 'always restore' power restore policy",
    "automatic power-up on AC being applied due to 'restore previous power state' power "
    "restore policy",
    "reset via PEF",
    "power-cycle via PEF",
    "soft reset (e.g. CTRL-ALT-DEL)",
    "power-up via RTC (system real time clock) wakeup",
)
_SLOT_TYPES = (
    "PCI",
    "Drive Array",
    "External Peripheral Connector",
    "Docking",
    "other standard internal expansion slot",
    "slot associated with entity specified by Entity ID for sensor",
    "AdvancedTCA",
    "DIMM/memory device",
    "FAN",
    "PCI Express",
    "SCSI (parallel)",
    "SATA / SAS",
    "USB",
)
_WATCHDOG_USES = {
    **dict.fromkeys(range(16), "reserved"),
    1: "Timer use at expiration = BIOS FRB2",
    2: "Timer use at expiration = BIOS/POST",
    3: "Timer use at expiration = OS Load",
    4: "Timer use at expiration = SMS/OS",
    5: "Timer use at expiration = OEM",
    15: "Timer use at expiration = unspecified",
}
_WATCHDOG_INTERRUPTS = {
    **dict.fromkeys(range(16), "reserved"),
    0: "Interrupt type = none",
    1: "Interrupt type = SMI",
    2: "Interrupt type = NMI",
    3: "Interrupt type = Messaging Interrupt",
    15: "Interrupt type = unspecified",
}


def _one_of(words: tuple[str, ...], prefix: str = "") -> Callable[[int], str | None]:
    return lambda code: prefix + words[code] if code < len(words) else None


def _watchdog(byte: int) -> str:
    return f"{_WATCHDOG_USES[byte & 15]} ; {_WATCHDOG_INTERRUPTS[byte >> 4]}"


_UNSPECIFIED = 0xFF

# By sensor type and event offset; None for every offset.
_Meanings = dict[tuple[int, int | None], Callable[[int], str | None]]
_DATA2: _Meanings = {
    (0x05, 4): lambda byte: f"Network controller #{byte}",
    (0x0F, 0): _one_of(_FIRMWARE_ERRORS),
    (0x0F, 1): _one_of(_FIRMWARE_PROGRESS),
    (0x0F, 2): _one_of(_FIRMWARE_PROGRESS),
    (0x10, 0): lambda byte: f"Memory module/device #{byte}",
    (0x1D, 7): lambda byte: _one_of(_RESTART_CAUSES)(byte & 15),
    (0x21, None): lambda byte: _one_of(_SLOT_TYPES, "Slot/Connector Type = ")(byte & 0x7F),
    (0x23, None): _watchdog,
    (0x28, 0): lambda byte: f"Sensor Number #{byte}",
    (0x28, 4): lambda byte: f"Sensor Number #{byte}",
}
_DATA3: _Meanings = {
    (0x08, 6): lambda byte: _one_of(_POWER_SUPPLY_ERRORS)(byte & 15),
    (0x0C, 8): lambda byte: f"Memory module/device #{byte}",
    (0x10, 5): lambda byte: f"{byte}% full",
    (0x1D, 7): lambda byte: (
        f"Channel Number used to deliver command that generated restart #{byte}"
    ),
    (0x21, None): lambda byte: f"Slot/Connector #{byte}",
}


def describe_data(
    sensor_type: int, event_type: int, data: bytes, record: SensorRecord | None
) -> Iterator[str]:
    """Yield what event data 2 and 3 say; `data` is all three bytes (IPMI 2.0, 29.7).

    `record` turns a reading and a threshold into the sensor's unit.
    """
    if event_type == THRESHOLD:
        yield from _describe_threshold(data, record)
    elif event_type >= FIRST_OEM_TYPE:
        for place, shift in ((1, 6), (2, 4)):
            if data[0] >> shift & 3 and data[place] != _UNSPECIFIED:
                yield _raw(place, data[place], is_oem=True)
    elif event_type in GENERIC or event_type == SENSOR_SPECIFIC:
        is_specific = event_type == SENSOR_SPECIFIC
        key = (sensor_type, data[0] & 15) if is_specific else (-1, 0)
        yield from _describe_discrete(key, data)
    else:
        yield from (_raw(1, data[1]), _raw(2, data[2]))


def _describe_threshold(data: bytes, record: SensorRecord | None) -> Iterator[str]:
    for place, shift, name in ((1, 6, "Sensor Reading"), (2, 4, "Threshold")):
        kind, byte = data[0] >> shift & 3, data[place]
        if kind == 1:
            yield f"{name} = {_in_unit(byte, record)}"
        elif kind and byte != _UNSPECIFIED:
            yield _raw(place, byte, is_oem=kind == 2)


def _describe_discrete(key: tuple[int, int], data: bytes) -> Iterator[str]:
    kinds = data[0] >> 6 & 3, data[0] >> 4 & 3
    for place, kind, meanings in ((1, kinds[0], _DATA2), (2, kinds[1], _DATA3)):
        byte = data[place]
        if not kind or byte == _UNSPECIFIED:
            continue
        if kind == 1:
            # The previous state, which FreeIPMI leaves out, and the severity above it.
            if place == 1:
                severity = _one_of(_SEVERITIES, "Severity State = ")(byte >> 4)
                yield severity or _raw(place, byte)
            continue
        meaning = meanings.get(key) or meanings.get((key[0], None))
        text = meaning(byte) if meaning is not None and kind == 3 else None
        yield text or _raw(place, byte, is_oem=kind == 2)


def _raw(place: int, byte: int, *, is_oem: bool = False) -> str:
    if is_oem:
        return f"OEM Event Data{place + 1} code = {byte:02X}h"
    return f"Event Data{place + 1} = {byte:02X}h"


def _in_unit(raw: int, record: SensorRecord | None) -> str:
    value = record.convert(raw) if record is not None and record.has_number else None
    if record is None or record.unit is None or value is None:
        return f"{raw:02X}h"
    return f"{value:.2f} {record.unit.name}"
