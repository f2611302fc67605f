"""The sessions that are open, kept between uses, and one user at a time for each BMC."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from .commands import read_device
from .errors import BusyError, IpmiError
from .session import Credentials, Session
from .target import Address

log = logging.getLogger(__name__)

# A BMC may end a session that was idle for 60 s (IPMI 2.0, 6.11.13), and some do so after 30;
# one that we end ourselves before frees its slot for others, too.
IDLE_S = 25.0
# A kept session that does not answer for so long is taken for lost, as after a restart of the
# BMC; that leaves time for a new one.
_PROBE_SILENCE_S = 1.5

_Key = tuple[Address, Credentials]


@dataclass
class _Turn:
    """Who is at the BMC, and how many want to be."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    users: int = 0


class Pool:
    """Sessions with many BMCs. Safe to use from several threads."""

    def __init__(self, max_sessions: int = 256, idle_s: float = IDLE_S) -> None:
        """`max_sessions`: open at the same time, kept ones included."""
        self._max_sessions = max_sessions
        self._idle_s = idle_s
        self._changed = threading.Condition()
        self._turns: dict[Address, _Turn] = {}
        # Kept sessions and when they were last used; the one used longest ago is first.
        self._kept: OrderedDict[_Key, tuple[Session, float]] = OrderedDict()
        self._used = 0
        self._is_closed = False
        self._reaper: threading.Thread | None = None

    @property
    def open_sessions(self) -> int:
        """How many sessions are open or being opened."""
        with self._changed:
            return self._used + len(self._kept)

    @contextmanager
    def session(
        self, address: Address, credentials: Credentials, deadline: float
    ) -> Iterator[Session]:
        """Lend a session that has just answered; nobody else talks to this BMC meanwhile.

        Everything, waiting for others included, ends at `deadline` (monotonic seconds).
        Raises BusyError, LoginError, NoAnswerError.
        """
        key = (address, credentials)
        with self._turn(address, deadline):
            session = self._take(key, deadline)
            try:
                if session is not None and not self._is_alive(session, deadline):
                    session = None
                if session is None:
                    session = Session(address, credentials, deadline)
                session.set_deadline(deadline)
                read_device(session)
                yield session
            finally:
                self._give_back(key, session)

    def close(self) -> None:
        """Log out everywhere. Sessions that are in use now are closed when they come back."""
        with self._changed:
            self._is_closed = True
            kept = [session for session, _ in self._kept.values()]
            self._kept.clear()
            self._changed.notify_all()
        for session in kept:
            session.close()

    @contextmanager
    def _turn(self, address: Address, deadline: float) -> Iterator[None]:
        with self._changed:
            turn = self._turns.setdefault(address, _Turn())
            turn.users += 1
        try:
            if not turn.lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
                raise BusyError("another read of this BMC has not ended in time")
            try:
                yield
            finally:
                turn.lock.release()
        finally:
            with self._changed:
                turn.users -= 1
                if not turn.users:
                    del self._turns[address]

    def _take(self, key: _Key, deadline: float) -> Session | None:
        """Count one session as used; return the kept one of `key`, if any. Raises BusyError."""
        with self._changed:
            kept = self._kept.pop(key, None)
            while kept is None and self._used + len(self._kept) >= self._max_sessions:
                if self._kept:
                    _, (oldest, _) = self._kept.popitem(last=False)
                    oldest.close()  # one packet, no waiting
                elif not self._changed.wait(max(0.0, deadline - time.monotonic())):
                    raise BusyError(f"all {self._max_sessions} sessions are in use")
            self._used += 1
        if kept is None:
            return None
        session, used_at = kept
        if time.monotonic() - used_at < self._idle_s:
            return session
        session.close()
        return None

    def _is_alive(self, session: Session, deadline: float) -> bool:
        session.set_deadline(deadline, _PROBE_SILENCE_S)
        session.facts.pop("device", None)
        try:
            read_device(session)
        except IpmiError as error:
            log.info("ipmi session lost bmc=%s reason=%s", session.address, error)
            session.close()
            return False
        return True

    def _give_back(self, key: _Key, session: Session | None) -> None:
        with self._changed:
            self._used -= 1
            is_kept = session is not None and not session.is_lost and not self._is_closed
            if session is not None and is_kept:
                self._kept[key] = (session, time.monotonic())
                if self._reaper is None:
                    self._reaper = threading.Thread(
                        target=self._reap, name="ipmi-idle", daemon=True
                    )
                    self._reaper.start()
            self._changed.notify_all()
        if session is not None and not is_kept:
            session.close()

    def _reap(self) -> None:
        """Log out of what has been idle for too long; ends with the last kept session."""
        while True:
            with self._changed:
                if not self._kept:
                    self._reaper = None
                    return
                key, (session, used_at) = next(iter(self._kept.items()))
                left = used_at + self._idle_s - time.monotonic()
                if left > 0:
                    self._changed.wait(left)
                    continue
                del self._kept[key]
                self._changed.notify_all()
            session.close()
