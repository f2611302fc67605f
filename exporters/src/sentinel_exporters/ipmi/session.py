"""One IPMI 2.0 session with one BMC, with deadlines. Keeps nothing beyond it: see pool.py.

A thin, typed layer over wire.py, where pyghmi does the protocol.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from pyghmi.exceptions import PyghmiException
from pyghmi.ipmi.private import constants

from .errors import CompletionError, LoginError, NoAnswerError
from .target import Address
from .wire import SILENCE_S, Wire


class Privilege(IntEnum):
    """What a session may do, at most (IPMI 2.0, 22.18)."""

    USER = 2
    OPERATOR = 3
    ADMIN = 4


@dataclass(frozen=True)
class Credentials:
    """Who logs in. At most 16 bytes of user and 20 of password (IPMI 2.0, 22.28 and 22.30)."""

    user: str
    password: str = field(repr=False)
    privilege: Privilege = Privilege.USER


class Session:
    """A session that is open when the constructor returns. Not safe to use from two threads."""

    def __init__(self, address: Address, credentials: Credentials, deadline: float) -> None:
        """Log in, until `deadline` (monotonic seconds) at the latest.

        Raises NoAnswerError, LoginError.
        """
        self.address = address
        self.is_lost = False
        # What is read once in a session, because it changes only when the BMC restarts.
        self.facts: dict[str, Any] = {}  # Any: each reader knows the type of its own fact
        try:
            self._wire = Wire(
                address,
                credentials.user.encode(),
                credentials.password.encode(),
                credentials.privilege,
                deadline,
            )
        except PyghmiException as error:
            raise LoginError(f"login refused: {error}") from error
        except OSError as error:
            raise NoAnswerError(f"{error.strerror or error}") from error

    @property
    def guid(self) -> bytes:
        """The BMC's GUID as it gave it at login; some BMCs give zeros."""
        return bytes(self._wire.remoteguid)

    def set_deadline(self, deadline: float, silence_s: float = SILENCE_S) -> None:
        """Let requests from now on fail at `deadline` or after `silence_s` without a packet."""
        self._wire.deadline, self._wire.silence_s = deadline, silence_s

    def request(self, netfn: int, command: int, data: bytes = b"", lun: int = 0) -> bytes:
        """Send one command and return the answer's data, after the completion code.

        A request whose answer is lost is sent again, so the BMC may carry it out twice.
        Raises CompletionError; NoAnswerError, after which the session is of no use.
        """
        answer = self.raw_command(netfn=netfn, command=command, data=tuple(data), rslun=lun)
        if answer["code"]:
            text = answer.get("error") or "refused"
            raise CompletionError(netfn, command, answer["code"], text)
        return bytes(answer["data"])

    def close(self) -> None:
        """Tell the BMC, not waiting for its answer, and free the socket. May be repeated."""
        self._wire.hang_up()

    # What pyghmi's SDR reader wants of its Command object; Any because pyghmi has no types.

    def raw_command(self, **request: Any) -> dict[str, Any]:
        """Return pyghmi's answer: `code`, `data`, and `error` where `code` is not 0."""
        if self.is_lost:
            raise NoAnswerError("the session is lost")
        self.is_lost = True  # until an answer proves otherwise
        try:
            answer: dict[str, Any] = self._wire.ask(**request)
        except PyghmiException as error:
            raise NoAnswerError(f"the session ended: {error}") from error
        except OSError as error:
            raise NoAnswerError(f"{error.strerror or error}") from error
        self.is_lost = False
        return answer

    def xraw_command(self, **request: Any) -> dict[str, Any]:
        """Return pyghmi's answer; raises CompletionError when its code is not 0."""
        netfn, command = request["netfn"], request["command"]
        return {"data": self.request(netfn, command, bytes(request.get("data", ())))}

    def get_event_constants(self) -> Any:
        """Return pyghmi's tables of the standard's event names."""
        return constants
