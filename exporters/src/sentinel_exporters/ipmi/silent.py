"""BMCs that do not answer, and finding out when they do again. Logs in nowhere.

A scrape of such a BMC must cost nothing. A question that any BMC answers to anybody is sent to
it now and then; the next scrape after an answer goes the usual way.
"""

from __future__ import annotations

import logging
import random
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from .errors import NoAnswerError
from .framing import Outside, make_request
from .loop import SILENCE_S, Job, Line, Loop, ask_all
from .patience import Patience
from .target import Address
from .wire import connect

log = logging.getLogger(__name__)

# Get Channel Authentication Capabilities of this channel, IPMI 2.0 data, for a user's privilege
# (IPMI 2.0, 22.13): the beginning of each login, answered without a session.
_ARE_YOU_THERE = make_request(0x06, 0x38, b"\x8e\x02")

# How often a silent BMC is asked: less and less often after 40 s, every 30 s after ten minutes.
_FIRST_INTERVAL_S = 2.0
_LAST_INTERVAL_S = 30.0
_SLOWER_AFTER_S = 40.0
_JITTER = 0.1
# How long one such question waits: it is not repeated, the next one is its repetition.
_ANSWER_S = 1.5
# A scrape asks as well, and waits so long: a BMC that is back is read at once.
_GLANCE_S = 0.25
# Shorter silence than this proves nothing.
_LEAST_SILENCE_S = 1.0
# A BMC that nobody has wanted to read for so long is forgotten.
_FORGET_S = 900.0
_MAX_LOST = 4096
# Further ones are waited for in each scrape: whoever may ask chooses the addresses, and each
# that is known to be silent costs memory and packets for as long.
_MAX_SILENT = 4096
# How many are asked at the same time besides those of scrapes; each takes an open file.
_MAX_ASKED = 256


@dataclass
class _Silent:
    """One silent BMC. Times are of the monotonic clock."""

    reason: str
    since: float
    wanted_at: float
    is_asked: bool = False
    # Which of the timers counts.
    timer: int = 0
    # Called when it is silent no more.
    on_return: list[Callable[[], None]] = field(default_factory=list)

    def error(self) -> NoAnswerError:
        """Return what to say of it."""
        return NoAnswerError(f"silent for {time.monotonic() - self.since:.0f} s: {self.reason}")


class SilentBmcs:
    """The BMCs that did not answer the last time. Safe to use from several threads."""

    def __init__(
        self,
        loop: Loop,
        max_silent: int = _MAX_SILENT,
        max_asked: int = _MAX_ASKED,
        forget_s: float = _FORGET_S,
    ) -> None:
        self._loop = loop
        self._forget_s = forget_s
        self._max_silent = max_silent
        self._max_asked = max_asked
        # How many are being asked now.
        self._asked = 0
        self._lock = threading.Lock()
        self._silent: dict[Address, _Silent] = {}
        # Since when a session is without an answer that was given up.
        self._lost: dict[Address, float] = {}

    def __contains__(self, address: Address) -> bool:
        return address in self._silent

    def check(self, address: Address) -> None:
        """Return when nothing speaks against asking this BMC; else raise NoAnswerError soon."""
        told = threading.Event()
        errors: list[NoAnswerError] = []

        def tell(error: NoAnswerError | None) -> None:
            errors.extend([error] if error is not None else [])
            told.set()

        if self.begin_check(address, tell):
            told.wait()
        if errors:
            raise errors[0]

    def begin_check(
        self, address: Address, tell: Callable[[NoAnswerError | None], None]
    ) -> bool:
        """Begin to `check` without waiting; False when the BMC is not known to be silent.

        `tell` is called once and soon, usually in the loop's thread, and must not wait: with
        what speaks against asking the BMC, or None when it has answered again.
        """
        with self._lock:
            entry = self._silent.get(address)
            if entry is None:
                return False

            # Whoever takes is_back off the list tells.
            def is_back() -> None:
                tell(None)

            def time_is_up() -> None:
                try:
                    entry.on_return.remove(is_back)
                except ValueError:  # it is back, just now
                    return
                tell(entry.error())

            entry.on_return.append(is_back)
            entry.wanted_at = time.monotonic()
        self._loop.call_at(time.monotonic() + _GLANCE_S, time_is_up)
        self._ask(address, entry)
        return True

    def note_loss(self, address: Address, silence_s: float) -> None:
        """A session was given up after this silence, which counts for what follows."""
        with self._lock:
            self._lost[address] = time.monotonic() - silence_s
            if len(self._lost) > _MAX_LOST:
                del self._lost[next(iter(self._lost))]

    def greet(self, address: Address, deadline: float) -> socket.socket:
        """Return a socket on which the BMC has answered, which the caller closes.

        Raises NoAnswerError when it is silent for too long or until `deadline`.
        """
        began = time.monotonic()
        with self._lock:
            silent_s = began - self._lost.pop(address, began)
        if silent_s > SILENCE_S:  # long ago; it may have answered others since
            silent_s = 0.0
        silence_s = max(SILENCE_S - silent_s, _LEAST_SILENCE_S)
        try:
            udp = connect(address)
            try:
                line = Line(udp, Outside(), Patience())
                job = Job(line, ask_all([_ARE_YOU_THERE]), deadline, silence_s)
                self._loop.start(job)
                job.wait()
            except BaseException:
                udp.close()
                raise
        except OSError as error:
            raise NoAnswerError.because(error) from error
        except NoAnswerError as error:
            if not error.is_refusal and time.monotonic() - began >= _LEAST_SILENCE_S:
                self._add(address, str(error), began - silent_s)
            raise
        return udp

    def clear(self) -> None:
        """Forget all of them."""
        with self._lock:
            self._silent.clear()

    def _add(self, address: Address, reason: str, since: float) -> None:
        with self._lock:
            if address in self._silent or len(self._silent) >= self._max_silent:
                return
            entry = self._silent[address] = _Silent(reason, since, time.monotonic())
        log.info("ipmi bmc silent bmc=%s reason=%s", address, reason)
        self._ask_later(address, entry)

    def _ask(self, address: Address, entry: _Silent) -> None:
        with self._lock:
            if entry.is_asked or self._silent.get(address) is not entry:
                return
            if time.monotonic() - entry.wanted_at > self._forget_s:
                del self._silent[address]
                return
            entry.is_asked = True
            self._asked += 1
        try:
            udp = connect(address)
        except OSError as error:  # no route at present
            self._heard_of(address, entry, NoAnswerError.because(error))
            return

        def end(job: Job[list[bytes]]) -> None:
            udp.close()
            self._heard_of(address, entry, job.error)

        line = Line(udp, Outside(), Patience(_ANSWER_S))
        deadline = time.monotonic() + _ANSWER_S
        self._loop.start(Job(line, ask_all([_ARE_YOU_THERE]), deadline, on_end=end))

    def _heard_of(self, address: Address, entry: _Silent, error: Exception | None) -> None:
        with self._lock:
            self._asked -= 1
        # A host that refuses is not silent: to ask it is as cheap as not to.
        if error is None or (isinstance(error, NoAnswerError) and error.is_refusal):
            with self._lock:
                if self._silent.get(address) is entry:
                    del self._silent[address]
            log.info("ipmi bmc heard again bmc=%s", address)
            while entry.on_return:
                entry.on_return.pop()()
            return
        entry.is_asked = False
        self._ask_later(address, entry)

    def _ask_later(self, address: Address, entry: _Silent) -> None:
        grown_s = (time.monotonic() - entry.since) / _SLOWER_AFTER_S * _FIRST_INTERVAL_S
        interval_s = min(max(grown_s, _FIRST_INTERVAL_S), _LAST_INTERVAL_S)
        # By chance, so that the BMCs of a rack that lost its power are not asked all at once.
        interval_s *= random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311  no secret
        entry.timer += 1
        mine = entry.timer

        def ask() -> None:
            if entry.timer != mine:
                return
            if self._asked < self._max_asked:
                self._ask(address, entry)
            else:
                self._ask_later(address, entry)

        # The question itself takes a part of the interval.
        self._loop.call_at(time.monotonic() + interval_s - _ANSWER_S, ask)
