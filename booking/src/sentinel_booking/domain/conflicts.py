"""Which claims share a slot and time, and when the same wish would fit. Reads no database.

A device is a slot of its node, the whole machine is all of them: one range of slots each, so
that cards and machine are one kind of thing. Intervals of time and of slots are half-open.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Slots:
    """The slots `lo` up to, but not including, `hi`."""

    lo: int
    hi: int

    def overlaps(self, other: Slots) -> bool:
        """True when a slot belongs to both."""
        return self.lo < other.hi and other.lo < self.hi


@dataclass(frozen=True, order=True)
class Interval:
    """From `starts` up to, but not including, `ends`; an empty one overlaps nothing."""

    starts: dt.datetime
    ends: dt.datetime

    def overlaps(self, other: Interval) -> bool:
        """True when a moment belongs to both."""
        return max(self.starts, other.starts) < min(self.ends, other.ends)


@dataclass(frozen=True)
class Booked:
    """What a reservation holds on the node: a rectangle of slots by time."""

    reservation: int
    slots: Slots
    interval: Interval


def merge_slots(slots: Iterable[int]) -> list[Slots]:
    """Return the fewest ranges that hold exactly these slots, ascending."""
    merged: list[Slots] = []
    for slot in sorted(set(slots)):
        if merged and merged[-1].hi == slot:
            merged[-1] = Slots(merged[-1].lo, slot + 1)
        else:
            merged.append(Slots(slot, slot + 1))
    return merged


def find_conflicts(
    wanted: Sequence[Slots], interval: Interval, booked: Iterable[Booked]
) -> list[Booked]:
    """Return what is booked on a wanted slot at a wanted moment, in the order given."""
    return [item for item in _on_slots(wanted, booked) if item.interval.overlaps(interval)]


def next_free(
    wanted: Sequence[Slots],
    length: dt.timedelta,
    earliest: dt.datetime,
    latest: dt.datetime,
    booked: Iterable[Booked],
) -> dt.datetime | None:
    """Return the earliest start in [earliest, latest] from which all wanted slots are free
    for `length`; None when there is none. `booked` must hold what ends after `earliest`."""
    start = earliest
    for busy in sorted(item.interval for item in _on_slots(wanted, booked)):
        if busy.starts >= start + length:
            break
        if busy.starts < busy.ends:
            start = max(start, busy.ends)
    return start if start <= latest else None


def max_end(
    wanted: Sequence[Slots],
    starts: dt.datetime,
    latest: dt.datetime,
    booked: Iterable[Booked],
) -> dt.datetime | None:
    """Return how long all wanted slots are free from `starts` on, at most until `latest`.

    None when one of them is taken at `starts` itself. `booked` must hold what ends after
    `starts` and begins before `latest`.
    """
    first = min(
        (
            item.interval.starts
            for item in _on_slots(wanted, booked)
            if starts < item.interval.ends and item.interval.starts < item.interval.ends
        ),
        default=latest,
    )
    return None if first <= starts else min(first, latest)


def _on_slots(wanted: Sequence[Slots], booked: Iterable[Booked]) -> list[Booked]:
    return [item for item in booked if any(item.slots.overlaps(slots) for slots in wanted)]
