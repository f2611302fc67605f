"""The sessions that are open, kept between uses, and one user at a time for each BMC."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from .errors import BusyError, IpmiError, NoAnswerError
from .loop import SILENCE_S, Loop, shared_loop
from .session import Credentials, Session
from .silent import SilentBmcs
from .target import Address
from .turns import Turns

log = logging.getLogger(__name__)

# How long a session is kept that no scrape uses any more; longer than usual scrape intervals.
_IDLE_S = 300.0
# A BMC may end a session that was idle for 60 s (IPMI 2.0, 6.11.13), and some do so after 30.
_KEEP_ALIVE_S = 20.0
# A kept session that does not answer for so long is taken for lost, as after a restart of the
# BMC; that leaves time for a new one.
_PROBE_SILENCE_S = 1.5
_TICK_S = 1.0

_Key = tuple[Address, Credentials]


@dataclass
class _Kept:
    """A session that nobody uses now. Times are of the monotonic clock."""

    session: Session
    used_at: float
    heard_at: float


@dataclass
class _Seat:
    """The place at one BMC, and how many have it or wait for it."""

    turns: Turns = field(default_factory=lambda: Turns(1))
    users: int = 0


class Pool:
    """Sessions with many BMCs. Safe to use from several threads."""

    def __init__(
        self,
        max_logins: int = 50,
        max_sessions: int = 1024,
        idle_s: float = _IDLE_S,
        keep_alive_s: float = _KEEP_ALIVE_S,
    ) -> None:
        """`max_logins`: logins and readings of SDR repositories at the same time.

        `max_sessions`: open at the same time, kept ones included. A session is kept for
        `idle_s` after its last use, and asked something every `keep_alive_s`.
        """
        self._max_sessions = max_sessions
        self._idle_s = idle_s
        self._keep_alive_s = keep_alive_s
        self._tick_s = min(_TICK_S, idle_s, keep_alive_s)
        self._loop: Loop = shared_loop()
        self._silent = SilentBmcs(self._loop)
        self._slow_turns = Turns(max_logins)
        self._changed = threading.Condition()
        self._seats: dict[Address, _Seat] = {}
        # The one used longest ago is first.
        self._kept: OrderedDict[_Key, _Kept] = OrderedDict()
        self._used = 0
        # Who waits for one of `max_sessions`, in the order in which they came.
        self._waiting: deque[object] = deque()
        self._is_closed = False
        self._is_ticking = False

    @property
    def open_sessions(self) -> int:
        """How many sessions are open or being opened."""
        with self._changed:
            return self._used + len(self._kept)

    @contextmanager
    def session(
        self, address: Address, credentials: Credentials, deadline: float, purpose: str = ""
    ) -> Iterator[Session]:
        """Lend a session that has just answered; nobody else talks to this BMC meanwhile.

        Everything, waiting for others included, ends at `deadline` (monotonic seconds). What
        is asked for a `purpose` time and again is asked at once, see Session.read_ahead.
        Raises BusyError, LoginError, NoAnswerError.
        """
        key = (address, credentials)
        self._silent.check(address)
        with self._seat(address, deadline):
            session = self._take(key, deadline)
            try:
                session = self._revive(session, deadline, purpose) or self._open(key, deadline)
                yield session
            finally:
                if session is not None:
                    session.end_purpose(purpose)
                self._give_back(key, session)

    def begin_session(
        self,
        address: Address,
        credentials: Credentials,
        deadline: float,
        purpose: str,
        ready: Callable[[Session | NoAnswerError | None], None],
    ) -> bool:
        """Lend a kept session without waiting; False where that is not possible now.

        `ready` is called once, from any thread, and must not wait: with a session that has
        answered all that is asked for this `purpose`, with the reason why the BMC is not to
        be asked any more, or with None when `session` is needed for it.
        """
        key = (address, credentials)
        if self._silent.begin_check(address, ready):
            return True
        with self._changed:
            kept = self._kept.get(key)
            if kept is None or address in self._seats or not kept.session.is_foreseen(purpose):
                return False
            del self._kept[key]
            self._used += 1
            seat = self._sit(address)
        session = kept.session

        def end(error: Exception | None) -> None:
            found: Session | NoAnswerError | None = session
            if error is not None:
                log.info("ipmi session lost bmc=%s reason=%s", address, error)
                # Without time for another session, this is why.
                is_over = time.monotonic() >= deadline
                if not is_over:
                    self._silent.note_loss(address, _PROBE_SILENCE_S)
                found = error if is_over and isinstance(error, NoAnswerError) else None
            try:
                ready(found)
            finally:
                session.end_purpose(purpose)
                self._give_back(key, session)
                seat.turns.give_back()
                self._leave(address)

        session.set_deadline(deadline)
        session.begin_ahead(purpose, _PROBE_SILENCE_S, end)
        return True

    def close(self) -> None:
        """Log out everywhere. Sessions that are in use now are closed when they come back."""
        with self._changed:
            self._is_closed = True
            kept = [one.session for one in self._kept.values()]
            self._kept.clear()
            self._changed.notify_all()
        self._silent.clear()
        for session in kept:
            session.close()

    @contextmanager
    def _seat(self, address: Address, deadline: float) -> Iterator[None]:
        with self._changed:
            seat = self._seats.setdefault(address, _Seat())
            seat.users += 1
        try:
            if not seat.turns.take(deadline):
                raise BusyError("another read of this BMC has not ended in time")
            try:
                self._silent.check(address)  # the one before may have found that out
                yield
            finally:
                seat.turns.give_back()
        finally:
            self._leave(address)

    def _sit(self, address: Address) -> _Seat:
        """Take the place at a BMC where nobody is, holding `_changed`."""
        seat = self._seats[address] = _Seat(users=1)
        seat.turns.try_take()
        return seat

    def _leave(self, address: Address) -> None:
        with self._changed:
            seat = self._seats[address]
            seat.users -= 1
            if not seat.users:
                del self._seats[address]

    def _take(self, key: _Key, deadline: float) -> Session | None:
        """Count one session as used; return the kept one of `key`, if any. Raises BusyError."""
        with self._changed:
            kept = self._kept.pop(key, None)
            if kept is None:
                self._wait_for_room(deadline)
            self._used += 1
        return kept.session if kept is not None else None

    def _wait_for_room(self, deadline: float) -> None:
        """Wait until one more session may be open, holding `_changed`. Raises BusyError."""
        ticket = object()
        self._waiting.append(ticket)
        try:
            while self._waiting[0] is not ticket or not self._has_room():
                if not self._changed.wait(max(0.0, deadline - time.monotonic())):
                    raise BusyError(f"all {self._max_sessions} sessions are in use")
        finally:
            self._waiting.remove(ticket)
            self._changed.notify_all()

    def _has_room(self) -> bool:
        """Say whether one more session may be open; one that nobody uses gives way."""
        while self._used + len(self._kept) >= self._max_sessions:
            oldest = next((one for one in self._kept if one[0] not in self._seats), None)
            if oldest is None:
                return False
            self._kept.pop(oldest).session.close()  # one packet, no waiting
        return True

    def _revive(self, session: Session | None, deadline: float, purpose: str) -> Session | None:
        """Return the kept session when it answers; what it is used for is read on the way."""
        if session is None:
            return None
        session.set_deadline(deadline)
        try:
            session.read_ahead(purpose, _PROBE_SILENCE_S)
        except IpmiError as error:
            log.info("ipmi session lost bmc=%s reason=%s", session.address, error)
            if time.monotonic() < deadline:
                self._silent.note_loss(session.address, _PROBE_SILENCE_S)
            session.close()
            return None
        return session

    def _open(self, key: _Key, deadline: float) -> Session:
        address, credentials = key
        try:
            return self._log_in(address, credentials, deadline)
        except NoAnswerError as error:
            # It was there a moment ago: the network is bad, or the BMC is beginning to work.
            is_over = time.monotonic() >= deadline
            if error.is_refusal or address in self._silent or is_over:
                raise
            return self._log_in(address, credentials, deadline)

    def _log_in(self, address: Address, credentials: Credentials, deadline: float) -> Session:
        # A BMC that does not answer must not take one of the places for logins.
        udp = self._silent.greet(address, deadline)
        if not self._slow_turns.take(deadline):
            udp.close()
            raise BusyError("other logins have not ended in time")
        try:
            return Session(address, credentials, deadline, udp=udp, slow_turns=self._slow_turns)
        finally:
            self._slow_turns.give_back()

    def _give_back(self, key: _Key, session: Session | None) -> None:
        now = time.monotonic()
        with self._changed:
            self._used -= 1
            is_kept = session is not None and not session.is_lost and not self._is_closed
            if session is not None and is_kept:
                self._kept[key] = _Kept(session, now, now)
                if not self._is_ticking:
                    self._is_ticking = True
                    self._loop.call_at(now + self._tick_s, self._tick)
            self._changed.notify_all()
        if session is not None and not is_kept:
            session.close()

    # What follows runs in the loop's thread and does not wait.

    def _tick(self) -> None:
        """Log out of what is idle, and keep alive what is not."""
        now = time.monotonic()
        with self._changed:
            for key, kept in list(self._kept.items()):
                if key[0] in self._seats:
                    continue
                if now - kept.used_at >= self._idle_s:
                    del self._kept[key]
                    kept.session.close()
                elif now - kept.heard_at >= self._keep_alive_s:
                    self._keep_alive(key, kept)
            self._changed.notify_all()
            self._is_ticking = bool(self._kept or self._used)
            if self._is_ticking:
                self._loop.call_at(now + self._tick_s, self._tick)

    def _keep_alive(self, key: _Key, kept: _Kept) -> None:
        seat = self._sit(key[0])

        def end() -> None:
            with self._changed:
                if kept.session.is_lost or self._is_closed:
                    self._kept.pop(key, None)
                    kept.session.close()
                kept.heard_at = time.monotonic()
            seat.turns.give_back()
            self._leave(key[0])

        kept.session.keep_alive(time.monotonic() + SILENCE_S, end)
