"""One thread that talks with many BMCs, one request in flight for each. Logs in nowhere.

Who wants something of a BMC hands in a Talk: a generator that yields requests and is sent their
answers. Whole sweeps and the reading of SDR repositories are each one Talk, so that the thread
that wants the result sleeps until there is one, and is not woken for each answer.
"""

from __future__ import annotations

import contextlib
import functools
import heapq
import itertools
import logging
import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from .errors import NoAnswerError
from .framing import Codec, Request
from .patience import Patience

log = logging.getLogger(__name__)

# A BMC that has sent nothing for so long is given up, whatever time is left.
SILENCE_S = 5.0

_MAX_PACKET = 4096
# How many packets without an answer are taken from one BMC before it is the others' turn.
_MAX_PACKETS = 32
# On edges: each event means packets to be taken until there is an answer or no more, and costs
# the kernel half as much.
_EVENTS = select.EPOLLIN | select.EPOLLET
# How late a repetition may be.
_TICK_S = 0.025
# How long after its time a job is waited for: the loop ends it, unless the loop hangs.
_GRACE_S = 2.0

Result = TypeVar("Result")
# Completion code and data are what it is sent for each request.
Talk = Generator[Request, bytes, Result]


def ask_all(requests: Iterable[Request]) -> Talk[list[bytes]]:
    """Ask one after the other; returns completion code and data of each, in their order.

    One at a time, because several at once confuse some BMCs.
    """
    answers = []
    for request in requests:
        answers.append((yield request))
    return answers


@dataclass(frozen=True)
class Line:
    """The way to one BMC: a connected socket that does not block, and what is said on it."""

    udp: socket.socket
    codec: Codec
    patience: Patience


class Job(Generic[Result]):
    """One talk on one line, until its end, its deadline or the BMC's silence."""

    def __init__(
        self,
        line: Line,
        talk: Talk[Result],
        deadline: float,
        first_silence_s: float = SILENCE_S,
        on_end: Callable[[Job[Result]], None] | None = None,
    ) -> None:
        """`first_silence_s`: how long the first answer may take; the others have SILENCE_S.

        `on_end` is called in the loop's thread and must not wait.
        """
        self.udp = line.udp
        self.deadline = deadline
        self.error: Exception | None = None
        # Whether there may be packets that were not taken yet.
        self.has_more = False
        self._result: Result | None = None
        self._codec = line.codec
        self._patience = line.patience
        self._talk = talk
        self._silence_s = first_silence_s
        self._on_end = on_end
        self._ended = threading.Event()
        self._request: Request | None = None
        self._repeats = 0
        self._late_answers = line.codec.late_answers
        self._heard_at = self._resend_at = 0.0

    def wait(self) -> Result:
        """Return the result, at the end. Raises NoAnswerError, and what the talk raised."""
        if not self._ended.wait(max(0.0, self.deadline - time.monotonic()) + _GRACE_S):
            raise NoAnswerError("the loop that asks BMCs hangs")
        if self.error is not None:
            raise self.error
        return self._result  # type: ignore[return-value]  # set together with `_ended`

    # What follows is for the loop. Each returns whether the job goes on.

    def begin(self) -> bool:
        """Send the first request."""
        self._heard_at = time.monotonic()
        return self._go_on(None, self._heard_at)

    def on_packets(self) -> bool:
        """Take packets from the socket up to the answer, and send the next request then."""
        for _ in range(_MAX_PACKETS):
            try:
                packet = self.udp.recv(_MAX_PACKET)
            except BlockingIOError:
                self.has_more = False
                return True
            except OSError as error:
                return self._end(NoAnswerError.because(error))
            answer = self._codec.hear(packet)
            if answer is not None:
                break
            if self._codec.late_answers != self._late_answers:
                self._late_answers = self._codec.late_answers
                self._patience.repeated_in_vain()
        else:
            self.has_more = True
            return True
        now = time.monotonic()
        if not self._repeats:
            self._patience.answered(now - self._heard_at)
        self._heard_at = now
        self._silence_s = SILENCE_S
        return self._go_on(answer, now)

    def on_time(self, now: float) -> bool:
        """Repeat the request or give up when it is time for it."""
        if now >= self.deadline or now >= self._heard_at + self._silence_s:
            why = "the time for it is over" if now >= self.deadline else "given up"
            silence_s = now - self._heard_at
            return self._end(NoAnswerError(f"no answer for {silence_s:.1f} s, {why}"))
        if now >= self._resend_at and self._request is not None:
            self._repeats += 1
            return self._send(self._codec.repeat(self._request), now)
        return True

    def announce(self) -> None:
        """Let those go on that wait for the end; the socket is theirs again."""
        if self._on_end is not None:
            self._on_end(self)
        self._ended.set()

    def _go_on(self, answer: bytes | None, now: float) -> bool:
        try:
            # A generator that has not begun takes nothing but None.
            request = self._talk.send(answer)  # type: ignore[arg-type]
        except StopIteration as stop:
            self._result = stop.value
            return self._end(None)
        except Exception as error:  # the boundary of a talk: raised where it is waited for
            return self._end(error)
        self._request = request
        self._repeats = 0
        return self._send(self._codec.ask(request), now)

    def _send(self, packet: bytes, now: float) -> bool:
        self._resend_at = now + self._patience.wait_s(self._repeats)
        try:
            self.udp.send(packet)
        except BlockingIOError:
            pass  # as if it had been lost on its way
        except OSError as error:
            return self._end(NoAnswerError.because(error))
        return True

    def _end(self, error: Exception | None) -> bool:
        self.error = error
        return False


class Loop:
    """The thread. It starts with the first job and ends with the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._inbox: deque[Job[Any]] = deque()  # Any: the loop does not look at results
        self._jobs: dict[int, Job[Any]] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._new_timers: deque[tuple[float, int, Callable[[], None]]] = deque()
        self._counter = itertools.count()

    def start(self, job: Job[Any]) -> None:
        """Begin the job; nobody else may use its socket and codec until it has ended."""
        self._inbox.append(job)
        self._notify()

    def call_at(self, at: float, call: Callable[[], None]) -> None:
        """Call once, in the loop's thread, at a time of the monotonic clock. Must not wait."""
        self._new_timers.append((at, next(self._counter), call))
        self._notify()

    def _notify(self) -> None:
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    thread = threading.Thread(target=self._run, name="ipmi-loop", daemon=True)
                    # It fails where the system has no thread left; the next time it may not.
                    thread.start()
                    self._thread = thread
        os.eventfd_write(self._wake, 1)

    def _run(self) -> None:
        while True:
            try:
                self._serve()
            except Exception:  # the boundary of all jobs: a bug met by one must not end them
                log.exception("ipmi loop failed")

    def _serve(self) -> None:
        poll = self._epoll.poll
        tick_at = 0.0
        while True:
            for number, _ in poll(self._sleep_s()):
                if number == self._wake:
                    self._take_in()
                elif not (job := self._jobs[number]).on_packets():
                    self._drop(number)
                elif job.has_more:
                    self._epoll.modify(number, _EVENTS)  # which tells of what is there again
            now = time.monotonic()
            if now >= tick_at:
                tick_at = now + _TICK_S
                self._on_time(now)

    def _sleep_s(self) -> float | None:
        if self._jobs:
            return _TICK_S
        if self._timers:
            return max(0.0, self._timers[0][0] - time.monotonic())
        return None

    def _take_in(self) -> None:
        """Begin what was handed in since."""
        os.eventfd_read(self._wake)
        while self._new_timers:
            heapq.heappush(self._timers, self._new_timers.popleft())
        while self._inbox:
            job = self._inbox.popleft()
            try:
                number = job.udp.fileno()
                self._epoll.register(number, _EVENTS)
            except (OSError, ValueError):  # closed meanwhile, as when the process ends
                job.error = NoAnswerError("the session was closed")
                job.announce()
                continue
            self._jobs[number] = job
            if not job.begin():
                self._drop(number)

    def _on_time(self, now: float) -> None:
        for number in [number for number, job in self._jobs.items() if not job.on_time(now)]:
            self._drop(number)
        while self._timers and self._timers[0][0] <= now:
            _, _, call = heapq.heappop(self._timers)
            call()

    def _drop(self, number: int) -> None:
        # Before it is announced, as the socket may be closed and its number be another's then.
        job = self._jobs.pop(number)
        with contextlib.suppress(OSError):  # closed by who ends the process
            self._epoll.unregister(number)
        job.announce()


@functools.cache
def shared_loop() -> Loop:
    """Return the process' loop."""
    return Loop()
