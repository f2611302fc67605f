"""Count the entries of BMCs' event logs, as ipmi_exporter's collector "sel-events" does.

The log is read in ipmi/event_log.py, an entry's words are in ipmi/events.py.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .ipmi.errors import CompletionError
from .ipmi.event_log import Log, LogCache
from .ipmi.events import ENTRY_BYTES, Event, parse_entry
from .ipmi.sdr import RecordCache, SensorRecord
from .ipmi.session import Session
from .ipmi.states import State
from .ipmi_module import SelEvent

_STATES = {State.NOMINAL: "Nominal", State.WARNING: "Warning", State.CRITICAL: "Critical"}
_NO_STATE = "N/A"
_BMC = 0x20  # the owner of the sensors whose records there are


@dataclass
class Counts:
    """How many entries there are, and when the last one was, in Unix time; 0: never."""

    by_state: Counter[str] = field(
        default_factory=lambda: Counter(dict.fromkeys(_STATES.values(), 0))
    )
    by_name: Counter[str] = field(default_factory=Counter)
    latest: dict[str, int] = field(default_factory=dict)

    def copy(self) -> Counts:
        """Return what later entries do not change."""
        return Counts(self.by_state.copy(), self.by_name.copy(), self.latest.copy())

    def add(self, event: Event, wanted: Sequence[SelEvent]) -> None:
        """Count one entry."""
        self.by_state[_STATES[event.state] if event.state is not None else _NO_STATE] += 1
        for one in wanted:
            if one.pattern.search(event.text):
                self.by_name[one.name] += 1
                self.latest[one.name] = max(self.latest[one.name], event.time or 0)


@dataclass
class _Tally:
    """What was counted of a log, and how many of its bytes."""

    generation: int
    records: object
    counts: Counts
    counted: int = 0


class EventCounter:
    """Counts the entries of many BMCs' logs, each entry once. Thread-safe."""

    def __init__(self, records: RecordCache, max_tallies: int = 4096) -> None:
        self._records = records
        self._logs = LogCache()
        self._lock = threading.Lock()
        self._max_tallies = max_tallies
        self._tallies: OrderedDict[object, _Tally] = OrderedDict()

    def count(self, session: Session, wanted: Sequence[SelEvent], until: float) -> Counts:
        """Return the counts of the BMC's log.

        Raises IpmiError, also when the log could not be read to its end `until` then
        (monotonic seconds); the next call goes on from there.
        """
        records = _find_records(self._records, session)
        log = self._logs.log(session, until)
        with log.lock:
            return self._count(log, (session.address, tuple(wanted)), wanted, records)

    def _count(
        self,
        log: Log,
        key: object,
        wanted: Sequence[SelEvent],
        records: Sequence[SensorRecord],
    ) -> Counts:
        with self._lock:
            tally = self._tallies.pop(key, None)
        # The same records are the same object while the repository stays as it is.
        if tally is None or tally.generation != log.generation or tally.records is not records:
            counts = Counts()
            for one in wanted:
                counts.by_name[one.name] = counts.latest[one.name] = 0
            tally = _Tally(log.generation, records, counts)
        is_known = tally.counted == len(log.entries)
        by_number = {} if is_known else _index(records)
        for at in range(tally.counted, len(log.entries), ENTRY_BYTES):
            event = parse_entry(
                bytes(log.entries[at : at + ENTRY_BYTES]),
                lambda owner, number: by_number.get((owner, number)),
            )
            if event is not None:
                tally.counts.add(event, wanted)
        tally.counted = len(log.entries)
        with self._lock:
            self._tallies[key] = tally
            while len(self._tallies) > self._max_tallies:
                self._tallies.popitem(last=False)
        return tally.counts.copy()


def _find_records(cache: RecordCache, session: Session) -> Sequence[SensorRecord]:
    try:
        return cache.records(session)
    except CompletionError:
        return ()  # without them readings are given as the bytes that they are


def _index(records: Sequence[SensorRecord]) -> Mapping[tuple[int, int], SensorRecord]:
    return {(_BMC, record.number): record for record in records}
