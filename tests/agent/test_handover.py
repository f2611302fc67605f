"""Who waits for whom: the rules, and the rules against a slow, independent account of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from sentinel_agent.policy.model import Policy
from sentinel_agent.sessions.handover import (
    WHOLE_NODE,
    Doors,
    Left,
    decide,
    doors_of_cache,
    open_all,
)
from tests.agent.policies import NOON, build_policy, grant_document, minutes

LIMIT = timedelta(minutes=5)
CARDS = ("a", "b", "c")
ALL = frozenset([*CARDS, "the node itself"])


def device(uuid: str) -> dict[str, object]:
    return {"vendor": "ascend", "uuid": uuid, "index": CARDS.index(uuid), "minor": None}


def grant(
    number: int, user: str, start: float, end: float, cards: Sequence[str] | None = None
) -> dict[str, object]:
    """Return a grant of these cards, None: of the whole node."""
    return grant_document(
        user, start, end, reservation=number, whole_node=cards is None,
        devices=[device(card) for card in (CARDS if cards is None else cards)],
    )  # fmt: skip


def look(
    policy: Policy,
    now: float,
    touched: Mapping[str, Sequence[str]],
    before: Doors | None = None,
    uids: Mapping[str, int] | None = None,
) -> Doors:
    left = Left({user: frozenset(them) for user, them in touched.items()}, uids or {})
    return decide(policy, before or Doors(), left, minutes(now), LIMIT)


def test_the_next_holder_waits_until_the_former_ones_processes_are_gone() -> None:
    policy = build_policy(grant(1, "bob", 0, 60, ["a"]))
    doors = look(policy, 0, {"alice": ["a"]})
    assert doors.opens == {1: minutes(5)}
    assert doors.waits == {1: ("alice",)}
    doors = look(policy, 1, {"alice": ["a"]}, doors)
    assert doors.opens == {1: minutes(5)}
    doors = look(policy, 2, {}, doors)
    assert (doors.opens, doors.waits, doors.unclean) == ({}, {}, {})


def test_after_the_limit_it_opens_and_says_who_is_still_there() -> None:
    policy = build_policy(grant(1, "bob", 0, 60, ["a"]))
    doors = look(policy, 0, {"alice": ["a"]})
    doors = look(policy, 5, {"alice": ["a"]}, doors)
    assert doors.unclean == {1: ("alice",)}
    # What the gates have been told stays: they let in since.
    assert doors.opens == {1: minutes(5)}
    doors = look(policy, 9, {"alice": ["a"]}, doors)
    assert (doors.opens, doors.unclean) == ({1: minutes(5)}, {1: ("alice",)})
    doors = look(policy, 10, {}, doors)
    assert (doors.opens, doors.unclean) == ({}, {})


def test_the_limit_counts_from_when_it_was_held_back_first_if_that_is_later() -> None:
    policy = build_policy(grant(1, "bob", -60, 60, ["a"]))
    doors = look(policy, 0, {"alice": ["a"]})
    assert doors.opens == {1: minutes(5)}
    assert look(policy, 4, {"alice": ["a"]}, doors).opens == {1: minutes(5)}


def test_nobody_waits_for_oneself() -> None:
    policy = build_policy(grant(1, "alice", -60, 0, ["a"]), grant(2, "alice", 0, 60, ["a"]))
    for now in (-1, 0, 1):
        assert look(policy, now, {"alice": ["a"]}).opens == {}


def test_two_names_of_one_account_are_one_user() -> None:
    policy = build_policy(grant(1, "alice", -60, 0, ["a"]), grant(2, "alice2", 0, 60, ["a"]))
    uids = {"alice": 1001, "alice2": 1001}
    for now in (-1, 0, 1):
        assert look(policy, now, {"alice": ["a"]}, uids=uids).opens == {}


def test_other_devices_do_not_wait_and_a_whole_node_waits_for_each() -> None:
    policy = build_policy(grant(1, "bob", 0, 60, ["b"]))
    assert look(policy, 0, {"alice": ["a"]}).opens == {}
    assert look(policy, 0, {"alice": [WHOLE_NODE]}).opens == {1: minutes(5)}
    policy = build_policy(grant(1, "bob", 0, 60))
    assert look(policy, 0, {"alice": ["a"]}).opens == {1: minutes(5)}
    assert look(policy, 0, {"alice": [WHOLE_NODE]}).opens == {1: minutes(5)}
    # A node without cards.
    policy = build_policy(grant(1, "bob", 0, 60, None) | {"devices": []})
    assert look(policy, 0, {"alice": [WHOLE_NODE]}).opens == {1: minutes(5)}


def test_whoever_keeps_a_card_is_not_in_the_way_there() -> None:
    mine = grant(1, "alice", -60, 60, ["a"])
    policy = build_policy(mine, grant(2, "bob", 0, 60, ["b"]))
    # Alice had the whole node before, and what she runs may still use b.
    assert look(policy, 0, {"alice": [WHOLE_NODE, "a"]}).opens == {2: minutes(5)}
    assert look(policy, 0, {"alice": ["a"]}).opens == {}


def test_nobody_waits_for_those_who_use_what_they_hold() -> None:
    """The server books nothing twice; if it did, waiting would help nobody."""
    policy = build_policy(grant(1, "alice", -60, 60), grant(2, "bob", 0, 60, ["a"]))
    assert look(policy, 0, {"alice": [WHOLE_NODE, "a"]}).opens == {}
    policy = build_policy(grant(1, "alice", -60, 60, ["a"]), grant(2, "bob", 0, 60, ["a"]))
    assert look(policy, 0, {"alice": [WHOLE_NODE, "a"]}).opens == {}


def test_two_grants_of_one_reservation_wait_together_or_not_at_all() -> None:
    """The gates are told by the reservation's number."""
    both = grant(1, "bob", 0, 60, ["a"]), grant(1, "carol", 0, 60, ["b"])
    assert look(build_policy(*both), 0, {"alice": ["a"]}).opens == {}
    assert look(build_policy(*both), 0, {"alice": ["a", "b"]}).opens == {1: minutes(5)}


def test_it_is_held_back_in_advance_if_the_former_one_ends_shortly_before() -> None:
    for end, is_held in ((0, True), (-5, True), (-5.5, False), (1, False)):
        policy = build_policy(grant(1, "alice", -60, end, ["a"]), grant(2, "bob", 0, 60, ["a"]))
        doors = look(policy, -20, {"alice": ["a"]})
        assert doors.opens == ({2: minutes(5)} if is_held else {}), end
        # It does not wait yet: it has not begun.
        assert doors.waits == {}
    policy = build_policy(grant(1, "alice", -60, 0, ["a"]), grant(2, "bob", 0, 60, ["b"]))
    assert look(policy, -20, {"alice": ["a"]}).opens == {}


def test_it_is_told_no_time_once_the_former_one_left_early() -> None:
    policy = build_policy(grant(1, "alice", -60, -3, ["a"]), grant(2, "bob", 0, 60, ["a"]))
    doors = look(policy, -20, {"alice": ["a"]})
    doors = look(policy, -2, {"alice": ["a"]}, doors)
    assert doors.opens == {2: minutes(5)}
    assert look(policy, -1, {}, doors).opens == {}


def test_a_cut_off_node_hands_over_through_a_whole_chain_by_itself() -> None:
    policy = build_policy(
        grant(1, "alice", -60, 0, ["a"]),
        grant(2, "bob", 0, 60, ["a"]),
        grant(3, "carol", 60, 90, ["a"]),
    )
    assert look(policy, -50, {"alice": ["a"]}).opens == {2: minutes(5), 3: minutes(65)}


def test_what_was_open_is_never_closed_again() -> None:
    policy = build_policy(grant(1, "bob", 0, 60, ["a"]))
    doors = look(policy, -1, {})
    # By the gates it is open from its start, whoever turns up then.
    assert look(policy, 1, {"alice": ["a"]}, doors).opens == {}
    # Also after a restart of the agent, which knows it from the cache.
    assert look(policy, 1, {"alice": ["a"]}, doors_of_cache(policy, {})).opens == {}
    # Also when the clock is put back.
    doors = look(policy, 1, {}, doors)
    doors = look(policy, -1, {"alice": ["a"]}, look(policy, -2, {}, doors))
    assert doors.opens == {}
    held = doors_of_cache(policy, {1: minutes(5)})
    assert look(policy, 1, {"alice": ["a"]}, held).opens == {1: minutes(5)}
    assert look(policy, 6, {"alice": ["a"]}, held).unclean == {1: ("alice",)}


def test_what_began_while_only_observed_stays_open() -> None:
    policy = build_policy(grant(1, "bob", 0, 60, ["a"]), grant(2, "carol", 10, 60, ["b"]))
    doors = open_all(policy, Doors(), minutes(1))
    assert doors.opens == {}
    doors = look(policy, 10, {"alice": ["a", "b"]}, open_all(policy, doors, minutes(2)))
    assert doors.opens == {}
    doors = look(policy, 9, {"alice": ["a", "b"]}, open_all(policy, Doors(), minutes(2)))
    assert doors.opens == {2: minutes(15)}


def test_a_clock_that_was_ahead_leaves_nobody_waiting_for_longer_than_the_limit() -> None:
    policy = build_policy(grant(1, "bob", 0, 600, ["a"]))
    doors = look(policy, 60, {"alice": ["a"]})
    assert doors.opens == {1: minutes(65)}
    assert look(policy, 1, {"alice": ["a"]}, doors).opens == {1: minutes(6)}


# The rules again, the slow way: each grant as the set of all that it uses, minute by minute.


@dataclass(frozen=True)
class Booking:
    """A reservation over [start, end), known to the node from `booked` until `dropped`."""

    number: int
    user: str
    uses: frozenset[str]
    start: int
    end: int
    booked: int
    dropped: int
    # For so long after its end its user's processes go on.
    lag: int

    @property
    def ends(self) -> int:
        """When the access ends: at the end, or when it is released."""
        return min(self.end, self.dropped)

    def is_known(self, now: int) -> bool:
        return self.booked <= now < self.dropped


@dataclass
class Account:
    """What has to be held back, by the words of docs/architecture.md."""

    told: dict[int, int] = field(default_factory=dict)
    opened: set[int] = field(default_factory=set)
    first: dict[int, int] = field(default_factory=dict)

    def look(
        self, bookings: Sequence[Booking], now: int
    ) -> tuple[dict[int, int], dict[int, set[str]]]:
        """Return what is held back until when, and who is unclean."""
        limit = int(LIMIT.total_seconds() // 60)
        known = [booking for booking in bookings if booking.is_known(now)]
        self.opened |= {number for number, when in self.told.items() if when <= now}
        held: dict[int, int] = {}
        unclean: dict[int, set[str]] = {}
        for booking in known:
            in_the_way = {
                other.user
                for other in bookings
                if other.user != booking.user
                and other.uses & booking.uses
                and other.booked <= now
                and other.start < other.ends <= now < other.ends + other.lag
                # Unless that user has what is shared again, and so uses it by right.
                and not any(
                    more.user == other.user
                    and more.is_known(now)
                    and more.start <= now < more.end
                    and more.uses >= other.uses & booking.uses
                    for more in bookings
                )
            }
            predecessors = {
                other.user
                for other in known
                if other.user != booking.user
                and other.uses & booking.uses
                and other.end > now
                and booking.start - limit <= other.end <= booking.start
            }
            number = booking.number
            if number in self.opened:
                if number in self.first and in_the_way and now < booking.end:
                    held[number] = max(booking.start, self.first[number]) + limit
                    unclean[number] = in_the_way
                continue
            if booking.start - now > limit or now >= booking.end:
                in_the_way = set()
            if in_the_way or (predecessors and now < booking.start):
                self.first.setdefault(number, now)
                held[number] = max(booking.start, self.first[number]) + limit
            else:
                self.first.pop(number, None)
        # Nothing is told any more of one that the limit opened and that is clean now.
        for number in self.opened - held.keys():
            self.first.pop(number, None)
        self.told = {
            booking.number: held.get(booking.number, booking.start) for booking in known
        }
        return held, unclean


@st.composite
def bookings(draw: st.DrawFn) -> list[Booking]:
    """Reservations of which no two share anything at one time, as the server guarantees."""
    taken: list[Booking] = []
    for number in range(1, draw(st.integers(2, 9)) + 1):
        uses = draw(
            st.one_of(
                st.just(ALL),
                st.frozensets(st.sampled_from(CARDS), min_size=1, max_size=3),
            )
        )
        start = draw(st.integers(0, 40))
        end = start + draw(st.integers(1, 12))
        booked = draw(st.integers(max(0, start - 20), start))
        dropped = draw(st.one_of(st.just(1000), st.integers(booked + 1, end)))
        booking = Booking(
            number, draw(st.sampled_from(["alice", "bob", "carol"])), uses, start, end, booked,
            dropped, draw(st.integers(0, 9)),
        )  # fmt: skip
        if not any(clash(booking, other) for other in taken):
            taken.append(booking)
    return taken


def clash(one: Booking, other: Booking) -> bool:
    """Say whether the server would refuse the later of the two, by what it knew by then."""

    def end_known_to(late: Booking, early: Booking) -> int:
        return early.ends if early.dropped <= late.booked else early.end

    return bool(one.uses & other.uses) and (
        one.start < end_known_to(one, other) and other.start < end_known_to(other, one)
    )


def touched_at(them: Sequence[Booking], now: int) -> dict[str, frozenset[str]]:
    """Return what the agent would know to be in use by each user, in its own words."""
    found: dict[str, frozenset[str]] = {}
    for booking in them:
        has_begun = (
            booking.booked <= now and booking.start <= now and booking.start < booking.ends
        )
        if has_begun and now < booking.ends + booking.lag:
            uses = frozenset([WHOLE_NODE]) if booking.uses == ALL else booking.uses
            found[booking.user] = found.get(booking.user, frozenset()) | uses
    return found


def policy_at(them: Sequence[Booking], now: int) -> Policy:
    return build_policy(
        *(
            grant(
                booking.number, booking.user, booking.start, booking.end,
                None if booking.uses == ALL else sorted(booking.uses),
            )
            for booking in them
            if booking.is_known(now)
        )
    )  # fmt: skip


@settings(max_examples=120, deadline=None)
@given(bookings(), st.sets(st.integers(0, 70), min_size=20))
def test_the_doors_are_as_the_slow_account_says(them: list[Booking], looks: set[int]) -> None:
    """Also when the agent does not look for a while."""
    doors, account = Doors(), Account()
    for now in sorted(looks):
        left = Left(touched_at(them, now))
        doors = decide(policy_at(them, now), doors, left, minutes(now), LIMIT)
        held, unclean = account.look(them, now)
        assert doors.opens == {number: minutes(at) for number, at in held.items()}, now
        assert {number: set(users) for number, users in doors.unclean.items()} == unclean, now


@settings(max_examples=60, deadline=None)
@given(bookings())
def test_nobody_gets_in_beside_a_former_holder_before_the_limit(them: list[Booking]) -> None:
    """What the gates do with what they are told, minute by minute."""
    doors = Doors()
    let_in: dict[int, int] = {}
    for now in range(60):
        left = Left(touched_at(them, now))
        doors = decide(policy_at(them, now), doors, left, minutes(now), LIMIT)
        for booking in them:
            if not (booking.is_known(now) and booking.start <= now < booking.end):
                continue
            when: datetime = doors.opens.get(booking.number, NOON)
            is_open = when <= minutes(now)
            # Once open, open until its end.
            assert is_open or booking.number not in let_in
            if is_open and let_in.setdefault(booking.number, now) == now:
                in_the_way = [
                    other
                    for other in them
                    if other.user != booking.user
                    and other.uses & booking.uses
                    and other.start < other.ends <= now < other.ends + other.lag
                ]
                waited = now - booking.start
                assert waited == 5 or not in_the_way, (now, booking)
                assert 0 <= waited <= 5
