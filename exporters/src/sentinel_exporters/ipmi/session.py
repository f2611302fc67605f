"""One IPMI 2.0 session with one BMC, with deadlines. Keeps nothing beyond it: see pool.py.

wire.py logs in, framing.py makes the packets, and loop.py sends and repeats them.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from pyghmi.exceptions import PyghmiException
from pyghmi.ipmi.private.util import get_ipmi_error

from .errors import BusyError, CompletionError, LoginError, NoAnswerError, WouldWaitError
from .framing import Request, close_session, make_request
from .loop import SILENCE_S, Job, Line, Talk, ask_all, shared_loop
from .patience import Patience
from .target import Address
from .turns import Turns
from .wire import Credentials, Privilege, connect, log_in

__all__ = ["Credentials", "Privilege", "Session"]

_APP = 0x06
_GET_DEVICE_ID = make_request(_APP, 0x01)
_GET_REPOSITORY_INFO = make_request(0x0A, 0x20)

# What reads something that changes, and changes nothing: network function and command. What one
# scrape has asked of these, the next will ask again.
_REPEATABLE = {
    (0x00, 0x01),  # Get Chassis Status
    (0x04, 0x2D),  # Get Sensor Reading
    (0x06, 0x25),  # Get Watchdog Timer
    (0x0A, 0x20),  # Get SDR Repository Info
    (0x0A, 0x40),  # Get SEL Info
    (0x2C, 0x02),  # DCMI Get Power Reading
}
# What is asked once in a session, and then known.
_ASKED_ONCE = {
    (0x06, 0x01),  # Get Device ID
    (0x06, 0x59),  # Get System Info Parameters
}
# There are few requests of these kinds, and all BMCs get the same. Others come once, as for an
# entry of an event log, and would drive them out of what make_request keeps.
_ASKED_OF_ALL = _REPEATABLE | _ASKED_ONCE

Result = TypeVar("Result")


class Session:
    """A session that is open when the constructor returns. Not safe to use from two threads."""

    def __init__(
        self,
        address: Address,
        credentials: Credentials,
        deadline: float,
        *,
        udp: socket.socket | None = None,
        slow_turns: Turns | None = None,
    ) -> None:
        """Log in, until `deadline` (monotonic seconds) at the latest.

        `udp`, if given, is connected to the BMC, and is the session's from now on. `slow_turns`
        are those that long readings need, see `slow_turn`.
        Raises NoAnswerError, LoginError.
        """
        self.address = address
        self.is_lost = False
        # What is read once in a session, because it changes only when the BMC restarts.
        self.facts: dict[str, Any] = {}  # Any: each reader knows the type of its own fact
        self._loop = shared_loop()
        self._slow_turns = slow_turns
        self._deadline = deadline
        # Whether the thread that uses the session may wait for answers.
        self._may_wait = True
        # By purpose, what was asked the last time.
        self._plans: dict[str, tuple[Request, ...]] = {}
        # The purposes for which nothing else was asked than what is asked each time.
        self._foreseen: set[str] = set()
        # For the present purpose: what was asked that is asked each time, and whether anything
        # else was; what was answered before it was asked, and why that ended before its end.
        self._asked: list[Request] = []
        self._has_surprise = False
        self._answers: dict[Request, list[bytes]] = {}
        self._failure: NoAnswerError | None = None
        try:
            self._udp = udp or connect(address)
            try:
                opened = log_in(self._udp, address, credentials, deadline)
            except BaseException:
                self._udp.close()
                raise
        except PyghmiException as error:
            raise LoginError(f"login refused: {error}") from error
        except OSError as error:
            raise NoAnswerError.because(error) from error
        self.guid = opened.guid  # zeros of some BMCs
        self._id = opened.session_id
        self._line = Line(self._udp, opened.channel, Patience())

    def set_deadline(self, deadline: float) -> None:
        """Let requests from now on fail at `deadline`."""
        self._deadline = deadline

    def request(self, netfn: int, command: int, data: bytes = b"", lun: int = 0) -> bytes:
        """Send one command and return the answer's data, after the completion code.

        A request whose answer is lost is sent again, so the BMC may carry it out twice.
        Raises CompletionError; NoAnswerError, after which the session is of no use.
        """
        make = make_request if (netfn, command) in _ASKED_OF_ALL else Request
        (answer,) = self.request_all([make(netfn, command, data, lun)])
        if answer[0]:
            raise self.refusal(netfn, command, answer[0])
        return answer[1:]

    def request_all(self, requests: Sequence[Request]) -> list[bytes]:
        """Ask one after the other; returns completion code and data of each, in their order.

        Raises NoAnswerError, after which the session is of no use.
        """
        ahead = self._answers
        found: dict[Request, bytes] = {}
        missing = []
        for request in dict.fromkeys(requests):  # records may share a sensor
            if request.kind in _REPEATABLE:
                self._asked.append(request)
            elif request.kind not in _ASKED_ONCE:
                self._has_surprise = True
            answers = ahead.get(request)
            if answers:
                found[request] = answers.pop(0)
            else:
                missing.append(request)
        if missing:
            found.update(zip(missing, self.converse(ask_all(missing)), strict=True))
        return [found[request] for request in requests]

    def converse(self, talk: Talk[Result]) -> Result:
        """Carry on a talk with the BMC to its end and return its result.

        Raises what the talk raises; NoAnswerError, after which the session is of no use.
        """
        if not self._may_wait:
            raise WouldWaitError
        if self._failure is not None:
            self.is_lost = True
            raise self._failure
        if self.is_lost:
            raise NoAnswerError("the session is lost")
        job = self._start(talk, self._deadline, SILENCE_S)
        try:
            return job.wait()
        except NoAnswerError:
            self.is_lost = True
            raise

    def read_ahead(self, purpose: str, silence_s: float) -> None:
        """Find out that the session is alive, by asking at once what was asked the last time.

        That is the same readings over and over: the requests that follow until `end_purpose`
        find their answers here. Raises NoAnswerError when the first answer takes longer than
        `silence_s`.
        """
        requests = self._plans.get(purpose, (_GET_DEVICE_ID,))
        job = self._start(self._collect(requests), self._deadline, silence_s)
        try:
            job.wait()
        except NoAnswerError as error:
            if not self._answers:
                self.is_lost = True
                raise
            # What came before the silence may be used still; what is asked next fails.
            self._failure = error

    def is_foreseen(self, purpose: str) -> bool:
        """Whether `read_ahead` is likely to find every answer."""
        return purpose in self._foreseen

    def begin_ahead(
        self, purpose: str, silence_s: float, ready: Callable[[Exception | None], None]
    ) -> None:
        """Do what `read_ahead` does without waiting for it.

        `ready` is called in the loop's thread, with None when all was answered. It must not
        wait, and a request that would have to raises WouldWaitError until it returns.
        """

        def end(job: Job[None]) -> None:
            self.is_lost = job.error is not None
            self._may_wait = False
            try:
                ready(job.error)
            finally:
                self._may_wait = True

        talk = self._collect(self._plans[purpose])
        self._start(talk, self._deadline, silence_s, end)

    def end_purpose(self, purpose: str) -> None:
        """Remember what was asked since the last call, for the next `read_ahead`.

        What was read ahead and was not asked for is forgotten, and why the rest was not read.
        """
        if self._asked:
            # Whether the session is alive must not hang on what may take the BMC long.
            quick = [] if self._asked[0] is _GET_REPOSITORY_INFO else [_GET_DEVICE_ID]
            self._plans[purpose] = (*quick, *self._asked)
            self._foreseen.discard(purpose)
            if not self._has_surprise:
                self._foreseen.add(purpose)
        self._has_surprise = False
        self._failure = None
        self._asked.clear()
        self._answers.clear()

    @contextlib.contextmanager
    def slow_turn(self) -> Iterator[None]:
        """Wait for the turn to read what is large and seldom read. Raises BusyError."""
        if not self._may_wait:
            raise WouldWaitError
        if self._slow_turns is None:
            yield
            return
        if not self._slow_turns.take(self._deadline):
            raise BusyError("other logins have not ended in time")
        try:
            yield
        finally:
            self._slow_turns.give_back()

    def keep_alive(self, deadline: float, on_end: Callable[[], None]) -> None:
        """Ask something, not waiting for the answer; `is_lost` then says whether it came.

        `on_end` is called in the loop's thread and must not wait.
        """

        def end(job: Job[list[bytes]]) -> None:
            self.is_lost = job.error is not None
            on_end()

        self._start(ask_all([_GET_DEVICE_ID]), deadline, SILENCE_S, end)

    def close(self) -> None:
        """Tell the BMC, not waiting for its answer, and free the socket. May be repeated."""
        # Also when it is lost: a BMC that is merely slow would hold its slot for a minute.
        with contextlib.suppress(OSError):  # closed already, among others
            self._udp.send(self._line.codec.ask(close_session(self._id)))
        self.is_lost = True
        self._udp.close()

    def _start(
        self,
        talk: Talk[Result],
        deadline: float,
        first_silence_s: float,
        on_end: Callable[[Job[Result]], None] | None = None,
    ) -> Job[Result]:
        job = Job(self._line, talk, deadline, first_silence_s, on_end)
        self._loop.start(job)
        return job

    def _collect(self, requests: Iterable[Request]) -> Talk[None]:
        answers = self._answers
        answers.clear()
        for request in requests:
            answer = yield request
            # Twice in a scrape means that it is to be asked twice.
            answers.setdefault(request, []).append(answer)

    @staticmethod
    def refusal(netfn: int, command: int, code: int) -> CompletionError:
        """Return what a completion code means as an error."""
        text = get_ipmi_error({"netfn": netfn | 1, "command": command, "code": code})
        return CompletionError(netfn, command, code, str(text))
