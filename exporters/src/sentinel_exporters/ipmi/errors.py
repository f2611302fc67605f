"""The ways in which a BMC can fail us. Each message is fit for a log: no secrets."""

from __future__ import annotations

import errno

from ..errors import CollectorError


class IpmiError(CollectorError):
    """Base: the BMC could not be asked, or refused."""


class NoAnswerError(IpmiError):
    """Nothing came back in time. The session is lost; a new one may work."""

    # The host is there and said at once that nobody listens.
    is_refusal = False

    @classmethod
    def because(cls, error: OSError) -> NoAnswerError:
        """Return what the network's error means here."""
        made = cls(f"{error.strerror or error}")
        made.is_refusal = error.errno == errno.ECONNREFUSED
        return made


class WouldWaitError(Exception):
    """Something had to be asked where nothing may be waited for. No failure of the BMC's."""


class LoginError(IpmiError):
    """The BMC answered, but gave no session: wrong password, no slot left, unknown user."""


class BusyError(IpmiError):
    """Somebody else uses the BMC, or all permitted sessions are in use."""


class CompletionError(IpmiError):
    """The BMC answered a command with a completion code other than 0 (IPMI 2.0, table 5-2)."""

    INSUFFICIENT_PRIVILEGE = 0xD4

    def __init__(self, netfn: int, command: int, code: int, text: str) -> None:
        super().__init__(f"command {netfn:02X}h/{command:02X}h: {text} ({code:02X}h)")
        self.code = code
