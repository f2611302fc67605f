"""Single questions to a BMC: what it is, and its chassis, event log and power. Sets nothing."""

from __future__ import annotations

import math
import struct
import time
from dataclasses import dataclass

from .errors import CompletionError, IpmiError
from .session import Session

_CHASSIS, _APP, _STORAGE, _GROUP_EXTENSION, _OEM = 0x00, 0x06, 0x0A, 0x2C, 0x30
_DCMI = b"\xdc"  # group extension of DCMI

# System info parameters, IPMI 2.0, table 22-16c.
_FIRMWARE_VERSION, _BMC_URL = 1, 6
# The host may get another BIOS while the BMC, and its session, goes on.
_INFO_AGE_S = 600.0


@dataclass(frozen=True)
class Device:
    """What Get Device ID says (IPMI 2.0, 20.1). `manufacturer` is an IANA enterprise number."""

    firmware: str
    manufacturer: int
    product: int
    auxiliary: bytes = b""


@dataclass(frozen=True)
class Chassis:
    """What Get Chassis Status says (28.2)."""

    is_on: bool
    has_drive_fault: bool
    has_cooling_fault: bool


@dataclass(frozen=True)
class EventLog:
    """What Get SEL Info says (31.2); `free_bytes` 65535 means that or more.

    `added_at` and `erased_at` are the BMC's times of the last addition and erasure.
    """

    entries: int
    free_bytes: int
    added_at: int = 0
    erased_at: int = 0


def read_device(session: Session) -> Device:
    """Return what the BMC is; asked once in a session. Raises IpmiError."""
    if "device" not in session.facts:
        session.facts["device"] = parse_device(session.request(_APP, 0x01))
    device: Device = session.facts["device"]
    return device


def parse_device(data: bytes) -> Device:
    """Decode Get Device ID. Raises IpmiError."""
    _check_length(data, 11)
    return Device(
        # The minor revision is BCD: its two hexadecimal digits are what is meant.
        firmware=f"{data[2] & 0x7F}.{data[3]:02x}",
        manufacturer=int.from_bytes(data[6:9], "little") & 0xFFFFF,
        product=int.from_bytes(data[9:11], "little"),
        auxiliary=data[11:15],
    )


def read_chassis(session: Session) -> Chassis:
    """Return the chassis' state. Raises IpmiError."""
    return parse_chassis(session.request(_CHASSIS, 0x01))


def parse_chassis(data: bytes) -> Chassis:
    """Decode Get Chassis Status. Raises IpmiError."""
    _check_length(data, 3)
    return Chassis(
        is_on=bool(data[0] & 0x01),
        has_drive_fault=bool(data[2] & 0x04),
        has_cooling_fault=bool(data[2] & 0x08),
    )


def read_event_log(session: Session) -> EventLog:
    """Return how full the System Event Log is. Raises IpmiError."""
    return parse_event_log(session.request(_STORAGE, 0x40))


def parse_event_log(data: bytes) -> EventLog:
    """Decode Get SEL Info. Raises IpmiError."""
    _check_length(data, 5)
    return EventLog(*struct.unpack_from("<HHII", data[:13].ljust(13, b"\xff"), 1))


def read_power_watts(session: Session) -> int | None:
    """Return the DCMI power reading; None while the BMC does not measure. Raises IpmiError."""
    # Get Power Reading, mode "system power statistics" (DCMI 1.5, 6.6.1).
    return parse_power_watts(session.request(_GROUP_EXTENSION, 0x02, _DCMI + b"\x01\x00\x00"))


def parse_power_watts(data: bytes) -> int | None:
    """Decode DCMI Get Power Reading. Raises IpmiError."""
    _check_length(data, 18)
    if data[:1] != _DCMI:
        raise IpmiError("the answer is not one of DCMI")
    is_measuring = bool(data[17] & 0x40)
    return int.from_bytes(data[1:3], "little") if is_measuring else None


def read_lan_mode(session: Session) -> int:
    """Return the LAN mode of a Supermicro BMC: 0 dedicated, 1 shared, 2 failover.

    The command is Supermicro's own; with another maker's BMC it may mean anything, so it is for
    modules that ask for it. Raises IpmiError.
    """
    return parse_lan_mode(session.request(_OEM, 0x70, b"\x0c\x00"))


def parse_lan_mode(data: bytes) -> int:
    """Decode Supermicro's answer. Raises IpmiError."""
    if len(data) != 1 or data[0] > 2:
        raise IpmiError(f"not a LAN mode: {data[:8].hex() or 'nothing'}")
    return data[0]


def read_system_firmware(session: Session) -> str | None:
    """Return the host's firmware version, as a BIOS; None where the BMC does not know it."""
    return _read_system_info(session, _FIRMWARE_VERSION)


def read_bmc_url(session: Session) -> str | None:
    """Return the address of the BMC's own pages; None where the BMC does not say."""
    return _read_system_info(session, _BMC_URL)


def _read_system_info(session: Session, parameter: int) -> str | None:
    fact = f"system info {parameter}"
    now = time.monotonic()
    known: tuple[float, str | None] = session.facts.get(fact, (-math.inf, None))
    asked_at, text = known
    if now - asked_at >= _INFO_AGE_S:
        try:
            text = _ask_system_info(session, parameter)
        except CompletionError:
            text = None  # optional, and some BMCs want a higher privilege for it
        session.facts[fact] = now, text
    return text


def _ask_system_info(session: Session, parameter: int) -> str | None:
    # Get System Info Parameters (22.14b): blocks of 16 bytes, the first begins with the
    # encoding and the length of the whole.
    blocks = b""
    length = 14
    for block in range(16):
        answer = session.request(_APP, 0x59, bytes([0, parameter, block, 0]))
        if len(answer) < 4:
            return None
        blocks += answer[2:]
        if block == 0:
            length = blocks[1]
        if len(blocks) >= length + 2:
            break
    return parse_system_info(blocks)


def parse_system_info(blocks: bytes) -> str | None:
    """Decode the blocks of a text parameter, put together; None for an empty text."""
    if len(blocks) < 2:
        return None
    encoding, length = blocks[0] & 0x0F, blocks[1]
    codec = {0: "latin-1", 1: "utf-8", 2: "utf-16-le"}.get(encoding, "latin-1")
    text = blocks[2 : 2 + length].decode(codec, "replace").partition("\0")[0].strip()
    return text or None


def _check_length(data: bytes, least: int) -> None:
    if len(data) < least:
        raise IpmiError(f"the answer has {len(data)} bytes instead of {least}")
