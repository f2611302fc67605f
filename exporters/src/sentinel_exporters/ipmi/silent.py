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
from dataclasses import dataclass, field

from .errors import NoAnswerError
from .framing import Outside, make_request
from .loop import Job, Line, Loop, ask_all
from .patience import Patience
from .target import Address
from .wire import connect

log = logging.getLogger(__name__)

# Get Channel Authentication Capabilities of this channel, IPMI 2.0 data, for a user's privilege
# (IPMI 2.0, 22.13): the beginning of each login, answered without a session.
_ARE_YOU_THERE = make_request(0x06, 0x38, b"\x8e\x02")

# How often a silent BMC is asked: often while it may just be restarting, which takes minutes.
_FIRST_INTERVAL_S = 2.0
_LAST_INTERVAL_S = 30.0
_PATIENT_FOR_S = 600.0
_JITTER = 0.1
# How long one such question waits: it is not repeated, the next one is its repetition.
_ANSWER_S = 1.5
# A scrape asks as well, and waits so long: a BMC that is back is read at once.
_GLANCE_S = 0.25
# Shorter silence than this proves nothing.
_LEAST_SILENCE_S = 1.0
# A BMC that nobody has wanted to read for so long is forgotten.
_FORGET_S = 900.0


@dataclass
class _Silent:
    """One silent BMC. Times are of the monotonic clock."""

    reason: str
    since: float
    wanted_at: float
    is_asked: bool = False
    # Which of the timers counts.
    timer: int = 0
    # Set when it is silent no more.
    is_back: threading.Event = field(default_factory=threading.Event)


class SilentBmcs:
    """The BMCs that did not answer the last time. Safe to use from several threads."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._silent: dict[Address, _Silent] = {}

    def __contains__(self, address: Address) -> bool:
        return address in self._silent

    def check(self, address: Address) -> None:
        """Return when nothing speaks against asking this BMC; else raise NoAnswerError soon."""
        entry = self._silent.get(address)
        if entry is None:
            return
        entry.wanted_at = time.monotonic()
        self._ask(address, entry)
        if not entry.is_back.wait(_GLANCE_S):
            silence_s = time.monotonic() - entry.since
            raise NoAnswerError(f"silent for {silence_s:.0f} s: {entry.reason}")

    def greet(self, address: Address, deadline: float, silence_s: float) -> socket.socket:
        """Return a socket on which the BMC has answered, which the caller closes.

        Raises NoAnswerError when it does not within `silence_s` or until `deadline`.
        """
        began = time.monotonic()
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
                self._add(address, str(error), began)
            raise
        return udp

    def clear(self) -> None:
        """Forget all of them."""
        with self._lock:
            self._silent.clear()

    def _add(self, address: Address, reason: str, since: float) -> None:
        with self._lock:
            if address in self._silent:
                return
            entry = self._silent[address] = _Silent(reason, since, time.monotonic())
        log.info("ipmi bmc silent bmc=%s reason=%s", address, reason)
        self._ask_later(address, entry)

    def _ask(self, address: Address, entry: _Silent) -> None:
        with self._lock:
            if entry.is_asked or self._silent.get(address) is not entry:
                return
            if time.monotonic() - entry.wanted_at > _FORGET_S:
                del self._silent[address]
                return
            entry.is_asked = True
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
        # A host that refuses is not silent: to ask it is as cheap as not to.
        if error is None or (isinstance(error, NoAnswerError) and error.is_refusal):
            with self._lock:
                if self._silent.get(address) is entry:
                    del self._silent[address]
            log.info("ipmi bmc heard again bmc=%s", address)
            entry.is_back.set()
            return
        entry.is_asked = False
        self._ask_later(address, entry)

    def _ask_later(self, address: Address, entry: _Silent) -> None:
        silent_s = time.monotonic() - entry.since
        grown = _FIRST_INTERVAL_S * max(1.0, silent_s / _PATIENT_FOR_S) ** 2
        # By chance, so that the BMCs of a rack that lost its power are not asked all at once.
        wait_s = min(grown, _LAST_INTERVAL_S) * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311
        # The question itself takes a part of the interval.
        wait_s -= _ANSWER_S
        entry.timer += 1
        mine = entry.timer

        def ask() -> None:
            if entry.timer == mine:
                self._ask(address, entry)

        self._loop.call_at(time.monotonic() + max(0.1, wait_s), ask)
