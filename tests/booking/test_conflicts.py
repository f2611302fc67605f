"""The rules of overlap against an oracle that looks at every minute and slot."""

from __future__ import annotations

import datetime as dt
import random

from hypothesis import given
from hypothesis import strategies as st

from sentinel_booking.domain.conflicts import (
    Booked,
    Interval,
    Slots,
    find_conflicts,
    max_end,
    merge_slots,
    next_free,
)

DAY = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
# Small, so that starts and ends meet often.
MINUTES = 12
SLOTS = 3


def at(minute: int) -> dt.datetime:
    return DAY + dt.timedelta(minutes=minute)


def minute_of(time: dt.datetime) -> int:
    return (time - DAY) // dt.timedelta(minutes=1)


@st.composite
def ranges(draw: st.DrawFn, end: int) -> tuple[int, int]:
    lo = draw(st.integers(0, end - 1))
    return lo, draw(st.integers(lo + 1, end))


@st.composite
def booked_items(draw: st.DrawFn) -> Booked:
    starts = draw(st.integers(0, MINUTES))
    # Empty ones too: a reservation that was released in the moment when it began.
    ends = draw(st.integers(starts, MINUTES))
    return Booked(
        draw(st.integers(1, 5)),
        Slots(*draw(ranges(SLOTS))),
        Interval(at(starts), at(ends)),
    )


bookings = st.lists(booked_items(), max_size=8)
wishes = st.sets(st.integers(0, SLOTS - 1), min_size=1)


def cells(item: Booked) -> set[tuple[int, int]]:
    """Every minute and slot that it covers."""
    return {
        (minute, slot)
        for minute in range(minute_of(item.interval.starts), minute_of(item.interval.ends))
        for slot in range(item.slots.lo, item.slots.hi)
    }


def is_free(wanted: set[int], lo: int, hi: int, booked: list[Booked]) -> bool:
    taken = set().union(*(cells(item) for item in booked))
    return not any((minute, slot) in taken for minute in range(lo, hi) for slot in wanted)


@given(wishes, ranges(MINUTES), bookings)
def test_a_conflict_is_a_shared_minute_of_a_shared_slot(
    wanted: set[int], minutes: tuple[int, int], booked: list[Booked]
) -> None:
    lo, hi = minutes
    mine = {(minute, slot) for minute in range(lo, hi) for slot in wanted}
    found = find_conflicts(merge_slots(wanted), Interval(at(lo), at(hi)), booked)
    assert found == [item for item in booked if cells(item) & mine]


@given(wishes, st.integers(1, 6), st.integers(0, MINUTES), st.integers(0, 20), bookings)
def test_next_free_is_the_first_minute_from_which_it_fits(
    wanted: set[int], length: int, earliest: int, slack: int, booked: list[Booked]
) -> None:
    latest = earliest + slack
    fitting = [
        minute
        for minute in range(earliest, latest + 1)
        if is_free(wanted, minute, minute + length, booked)
    ]
    found = next_free(
        merge_slots(wanted), dt.timedelta(minutes=length), at(earliest), at(latest), booked
    )
    assert found == (at(fitting[0]) if fitting else None)


@given(wishes, ranges(MINUTES), bookings)
def test_max_end_is_the_last_minute_until_which_it_is_free(
    wanted: set[int], minutes: tuple[int, int], booked: list[Booked]
) -> None:
    lo, hi = minutes
    ends = [end for end in range(lo + 1, hi + 1) if is_free(wanted, lo, end, booked)]
    found = max_end(merge_slots(wanted), at(lo), at(hi), booked)
    assert found == (at(ends[-1]) if ends else None)


@given(wishes, ranges(MINUTES), bookings, st.randoms())
def test_the_order_in_which_bookings_are_read_changes_nothing(
    wanted: set[int], minutes: tuple[int, int], booked: list[Booked], dice: random.Random
) -> None:
    slots, interval = merge_slots(wanted), Interval(at(minutes[0]), at(minutes[1]))
    length, latest = interval.ends - interval.starts, at(2 * MINUTES)
    shuffled = list(booked)
    dice.shuffle(shuffled)
    backwards = list(reversed(slots))
    assert set(find_conflicts(slots, interval, booked)) == set(
        find_conflicts(backwards, interval, shuffled)
    )
    assert next_free(slots, length, interval.starts, latest, booked) == next_free(
        backwards, length, interval.starts, latest, shuffled
    )
    assert max_end(slots, interval.starts, latest, booked) == max_end(
        backwards, interval.starts, latest, shuffled
    )


@given(wishes, ranges(MINUTES), bookings)
def test_what_is_advised_can_be_booked(
    wanted: set[int], minutes: tuple[int, int], booked: list[Booked]
) -> None:
    slots, interval = merge_slots(wanted), Interval(at(minutes[0]), at(minutes[1]))
    length = interval.ends - interval.starts
    start = next_free(slots, length, interval.starts, at(3 * MINUTES), booked)
    assert start is not None
    assert find_conflicts(slots, Interval(start, start + length), booked) == []
    end = max_end(slots, interval.starts, interval.ends, booked)
    if end is not None:
        assert find_conflicts(slots, Interval(interval.starts, end), booked) == []


@given(st.sets(st.integers(0, 30)))
def test_merged_slots_are_the_same_slots_in_the_fewest_ranges(slots: set[int]) -> None:
    merged = merge_slots(slots)
    assert {slot for part in merged for slot in range(part.lo, part.hi)} == slots
    gaps = sum(1 for slot in slots if slot - 1 not in slots)
    assert len(merged) == gaps
    assert merged == sorted(merged)


def test_adjacent_reservations_do_not_conflict() -> None:
    booked = [Booked(1, Slots(0, 1), Interval(at(10), at(20)))]
    for interval in (Interval(at(0), at(10)), Interval(at(20), at(30))):
        assert find_conflicts([Slots(0, 1)], interval, booked) == []


def test_a_gap_that_fits_exactly_is_offered() -> None:
    booked = [
        Booked(1, Slots(0, 1), Interval(at(0), at(10))),
        Booked(2, Slots(0, 1), Interval(at(15), at(20))),
    ]
    wanted, late = [Slots(0, 1)], at(99)
    assert next_free(wanted, at(5) - at(0), at(3), late, booked) == at(10)
    assert next_free(wanted, at(6) - at(0), at(3), late, booked) == at(20)
    assert next_free(wanted, at(5) - at(0), at(10), late, booked) == at(10)
