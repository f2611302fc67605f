"""What a BMC's System Event Log holds, read once and then only what is new. Judges no entry.

A log has thousands of entries and gives one for each request: reading it anew for each scrape
would take longer than a scrape may.
"""

from __future__ import annotations

import itertools
import struct
import threading
import time
from array import array
from collections import OrderedDict
from dataclasses import dataclass, field

from .commands import EventLog, read_event_log
from .errors import CompletionError, IpmiError
from .events import ENTRY_BYTES
from .session import Session

_STORAGE, _GET_SEL_ENTRY = 0x0A, 0x43
_FIRST, _NONE = 0x0000, 0xFFFF  # record ids with a meaning of their own (IPMI 2.0, 31.5)

_generations = itertools.count()


@dataclass
class Log:
    """The entries of one BMC's log, oldest first."""

    guid: bytes
    # What the BMC said when everything up to then was read; None while it is not.
    info: EventLog | None = None
    ids: array[int] = field(default_factory=lambda: array("H"))
    # 16 bytes each: there are many.
    entries: bytearray = field(default_factory=bytearray)
    # Another number for each log, and each time that entries went: what was counted up to then
    # is void.
    generation: int = field(default_factory=lambda: next(_generations))
    erased_at: int = 0
    # How many entries more there are than the BMC says; 0 but for BMCs that miscount.
    surplus: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def forget(self) -> None:
        """Begin anew."""
        self.drop(len(self.ids))
        self.surplus = 0

    def drop(self, count: int) -> None:
        """Forget the oldest `count` entries."""
        self.generation = next(_generations)
        del self.ids[:count], self.entries[: count * ENTRY_BYTES]


class LogCache:
    """The logs of many BMCs. Thread-safe."""

    def __init__(self, max_bmcs: int = 2048) -> None:
        self._max_bmcs = max_bmcs
        self._lock = threading.Lock()
        self._logs: OrderedDict[object, Log] = OrderedDict()

    def log(self, session: Session, until: float) -> Log:
        """Return the BMC's log as it is now.

        Raises IpmiError, also when it could not be read to its end `until` then (monotonic
        seconds); the next call goes on where this one stopped.
        """
        with self._lock:
            log = self._logs.get(session.address)
            if log is None or log.guid != session.guid:
                log = self._logs[session.address] = Log(session.guid)
            self._logs.move_to_end(session.address)
            while len(self._logs) > self._max_bmcs:
                self._logs.popitem(last=False)
        with log.lock:
            _refresh(log, session, until)
        return log


def _refresh(log: Log, session: Session, until: float) -> None:
    info = read_event_log(session)
    if log.info == info:
        return
    log.info = None
    if info.erased_at != log.erased_at or info.entries < len(log.ids) - log.surplus:
        log.forget()
    log.erased_at = info.erased_at
    if not info.entries:
        log.forget()
    else:
        try:
            _read_on(log, session, info, until)
            if len(log.ids) - log.surplus > info.entries:
                _drop_overwritten(log, session)
        except CompletionError:
            # The entry from which to go on is gone, or the log is being cleared just now.
            log.forget()
            _read_on(log, session, info, until)
        log.surplus = len(log.ids) - info.entries
    log.info = info


def _read_on(log: Log, session: Session, info: EventLog, until: float) -> None:
    """Read what comes behind the last entry that is known."""
    if log.ids:
        record_id, data = _read_entry(session, log.ids[-1])
        if data != log.entries[-ENTRY_BYTES:]:
            log.forget()
            record_id = _FIRST
    else:
        record_id = _FIRST
    known = set(log.ids)
    while record_id != _NONE:
        if time.monotonic() > until:
            raise IpmiError(
                f"the event log is being read: {len(log.ids)} of {info.entries} entries"
            )
        following, data = _read_entry(session, record_id)
        # The first is asked for by a wildcard.
        actual = int.from_bytes(data[:2], "little") if record_id == _FIRST else record_id
        if actual in known:
            raise IpmiError("the event log's entries go round in a circle")
        known.add(actual)
        log.ids.append(actual)
        log.entries += data
        record_id = following


def _drop_overwritten(log: Log, session: Session) -> None:
    """Forget entries that a log without space gave up for new ones."""
    _, data = _read_entry(session, _FIRST)
    first = int.from_bytes(data[:2], "little")
    if first in log.ids:
        count = log.ids.index(first)
        if count:
            log.drop(count)


def _read_entry(session: Session, record_id: int) -> tuple[int, bytes]:
    """Return the id of the entry behind this one, and this one's bytes (31.5)."""
    request = struct.pack("<HHBB", 0, record_id, 0, 0xFF)
    answer = session.request(_STORAGE, _GET_SEL_ENTRY, request)
    if len(answer) < 2 + ENTRY_BYTES:
        raise IpmiError(f"an entry of the event log has {len(answer)} bytes instead of 18")
    return int.from_bytes(answer[:2], "little"), answer[2 : 2 + ENTRY_BYTES]
