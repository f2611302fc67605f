"""What a BMC's watchdog timer is set to and does. Never starts, stops or feeds it."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from .errors import IpmiError
from .session import Session

_APP, _GET_WATCHDOG_TIMER = 0x06, 0x25

# The codes of IPMI 2.0, 27.7, in the words of FreeIPMI's `bmc-watchdog`, which ipmi_exporter
# puts into labels. The use 0 is reserved.
USES = {1: "BIOS FRB2", 2: "BIOS POST", 3: "OS LOAD", 4: "SMS/OS", 5: "OEM"}
ACTIONS = {0: "None", 1: "Hard Reset", 2: "Power Down", 3: "Power Cycle"}
INTERRUPTS = {0: "None", 1: "SMI", 2: "NMI / Diagnostic Interrupt", 3: "Messaging Interrupt"}


@dataclass(frozen=True)
class Watchdog:
    """The timer. `use`, `action` and `interrupt` are None for codes that are reserved."""

    is_running: bool
    is_logged: bool
    use: str | None
    action: str | None
    interrupt: str | None
    pretimeout_s: int
    initial_s: float
    present_s: float


def read_watchdog(session: Session) -> Watchdog:
    """Return the watchdog timer. Raises IpmiError."""
    return parse_watchdog(session.request(_APP, _GET_WATCHDOG_TIMER))


def parse_watchdog(data: bytes) -> Watchdog:
    """Decode Get Watchdog Timer (27.7). Raises IpmiError."""
    if len(data) < 8:
        raise IpmiError(f"the answer has {len(data)} bytes instead of 8")
    use, actions, pretimeout_s, _, initial, present = struct.unpack_from("<BBBBHH", data)
    return Watchdog(
        is_running=bool(use & 0x40),
        is_logged=not use & 0x80,
        use=USES.get(use & 0x07),
        action=ACTIONS.get(actions & 0x07),
        interrupt=INTERRUPTS.get(actions >> 4 & 0x07),
        pretimeout_s=pretimeout_s,
        initial_s=initial / 10,
        present_s=present / 10,
    )
