"""Many callers want the same: one gets it, the others are told who has it.

Both databases; first at the services, then through gunicorn with several processes.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import requests
from apiflask import APIFlask
from sqlalchemy import select

from sentinel_booking.config import Config
from sentinel_booking.domain.times import rfc3339
from sentinel_booking.errors import BookingError
from sentinel_booking.models import Node, Reservation, db, utc_now
from sentinel_booking.services.audit import Actor
from sentinel_booking.services.booked import SlotTaken
from sentinel_booking.services.reservation_list import get_reservation
from sentinel_booking.services.reservation_view import ReservationView
from sentinel_booking.services.reservations import (
    Wanted,
    change_reservation,
    create_reservation,
    release_reservation,
)
from tests.booking.bookings import (
    HOUR,
    add_actor,
    add_node,
    add_reservation,
    broken_invariants,
    soon,
)
from tests.booking.people import Person, add_person
from tests.booking.programs import BookingServer, booking_server, migrated_app
from tests.booking.races import at_once

CALLERS = 16
SLOTS = 8
ROUNDS = 6

Answer = ReservationView | type[BookingError]


@dataclasses.dataclass(frozen=True)
class Lab:
    """A node, and as many people as there are callers."""

    app: APIFlask
    uuids: list[str]
    people: list[Actor]

    def wish(self, *slots: int, hour: float = 0, length: float = 1) -> Wanted:
        """Some cards, or without one the whole node."""
        return Wanted(
            node="n1",
            starts=soon(hour),
            ends=soon(hour + length),
            device_uuids=tuple(self.uuids[slot] for slot in slots),
            whole_node=not slots,
        )

    def book(self, who: Actor, wish: Wanted) -> Callable[[], Answer]:
        return partial(self._call, lambda: create_reservation(who, wish))

    def extend(self, who: Actor, number: int, hours: float) -> Callable[[], Answer]:
        return partial(self._call, lambda: change_reservation(who, number, 1, ends=soon(hours)))

    def release(self, who: Actor, number: int) -> Callable[[], Answer]:
        return partial(self._call, lambda: release_reservation(who, number))

    def _call(self, use_case: Callable[[], ReservationView]) -> Answer:
        with self.app.app_context():
            try:
                return use_case()
            except BookingError as error:  # any other error fails the test
                return type(error)


@pytest.fixture
def lab(app: APIFlask) -> Iterator[Lab]:
    uuids = add_node(app, devices=8)
    people = [add_actor(app, f"p{number}") for number in range(CALLERS)]
    with app.app_context():
        yield Lab(app, uuids, people)
        assert broken_invariants() == []


def winners(answers: list[Answer]) -> list[ReservationView]:
    """Those who got it; everybody else must have been told that it is taken."""
    refusals = {answer for answer in answers if isinstance(answer, type)}
    assert refusals <= {SlotTaken}
    return [answer for answer in answers if not isinstance(answer, type)]


def test_of_all_who_want_one_card_one_gets_it(lab: Lab) -> None:
    for hour in range(SLOTS):
        wish = lab.wish(0, hour=hour)
        answers = at_once([lab.book(who, wish) for who in lab.people])
        assert len(answers) == CALLERS
        assert len(winners(answers)) == 1
    assert len(db.session.scalars(select(Reservation)).all()) == SLOTS


def test_the_whole_node_and_its_cards_are_never_booked_together(lab: Lab) -> None:
    for hour in range(SLOTS):
        # Four for each card, four for everything.
        wishes = [lab.wish(*slots, hour=hour) for slots in ((0,), (1,), (3,), ())] * 4
        answers = at_once(
            [lab.book(who, wish) for who, wish in zip(lab.people, wishes, strict=True)]
        )
        got = winners(answers)
        if any(item.whole_node for item in got):
            assert len(got) == 1
        else:
            assert sorted(item.device_uuids[0] for item in got) == [
                lab.uuids[slot] for slot in (0, 1, 3)
            ]


def test_neighbours_in_time_all_get_theirs(lab: Lab) -> None:
    answers = at_once(
        [
            lab.book(who, lab.wish(number % 4, hour=number // 4))
            for number, who in enumerate(lab.people)
        ]
    )
    assert len(winners(answers)) == CALLERS


def test_overlapping_wishes_leave_no_two_that_overlap(lab: Lab) -> None:
    # Each overlaps the next one in time or in cards; which of them win is left to chance.
    wishes = [lab.wish(n % 4, (n + 1) % 4, hour=n / 4, length=1.5) for n in range(CALLERS)]
    answers = at_once(
        [lab.book(who, wish) for who, wish in zip(lab.people, wishes, strict=True)]
    )
    assert winners(answers)


def test_an_extension_and_a_booking_of_the_same_time_exclude_each_other(lab: Lab) -> None:
    alice, bob = lab.people[:2]
    for number in range(ROUNDS):
        hour = 10 * number
        mine = create_reservation(alice, lab.wish(0, hour=hour))
        answers = at_once(
            [
                lab.extend(alice, mine.id, hour + 3),
                lab.book(bob, lab.wish(0, hour=hour + 2)),
            ]
        )
        assert len(winners(answers)) == 1


def test_of_two_changes_of_one_version_one_is_refused(lab: Lab) -> None:
    alice = lab.people[0]
    for number in range(ROUNDS):
        hour = 10 * number
        mine = create_reservation(alice, lab.wish(0, hour=hour))
        answers = at_once([lab.extend(alice, mine.id, hour + n) for n in (2, 3, 4)])
        changed = [answer for answer in answers if isinstance(answer, ReservationView)]
        assert len(changed) == 1
        after = get_reservation(mine.id)
        assert (after.version, after.ends) == (2, changed[0].ends)
        db.session.rollback()


@pytest.mark.parametrize("has_begun", [True, False])
def test_what_is_released_stays_so_whatever_is_extended_meanwhile(
    lab: Lab, has_begun: bool
) -> None:
    alice = lab.people[0]
    for number in range(ROUNDS):
        if has_begun:
            mine = add_reservation(lab.app, alice, utc_now() - HOUR, soon(), slots=[number])
        else:
            mine = create_reservation(alice, lab.wish(0, hour=10 * number)).id
        at_once([lab.extend(alice, mine, 10 * number + 3), lab.release(alice, mine)])
        after = get_reservation(mine)
        db.session.rollback()
        assert after.released_at is not None
        assert after.is_cancelled is not has_begun
        if has_begun:
            assert after.ends == after.released_at
            create_reservation(
                lab.people[1],
                dataclasses.replace(lab.wish(number), starts=None),
            )


# --- through gunicorn


@pytest.fixture
def server(config: Config, tmp_path: Path) -> Iterator[tuple[BookingServer, list[Person]]]:
    """Two processes with eight threads each, a node, and four people who have signed in."""
    app = migrated_app(config)
    add_node(app)
    people = [add_person(app, f"p{number}") for number in range(4)]
    with booking_server(
        config, tmp_path, workers=2, threads=8, max_policy_waiters=2
    ) as running:
        yield running, people
    with app.app_context():
        assert broken_invariants() == []
        seq = db.session.scalars(select(Node.booking_seq)).one()
        assert seq == len(db.session.scalars(select(Reservation)).all())


def test_through_all_processes_one_caller_gets_each_slot(
    server: tuple[BookingServer, list[Person]],
) -> None:
    running, people = server
    # Each caller has a connection of their own, so that both processes serve some.
    sessions = [requests.Session() for _ in range(CALLERS)]

    def book(number: int, hour: int) -> int:
        # Half of them want a card, every fourth everything.
        devices = ["GPU-n1-0"] if number % 4 else []
        answer = sessions[number].post(
            f"{running.url}/api/reservations",
            json={
                "node": "n1",
                "devices": devices,
                "whole_node": not devices,
                "starts": rfc3339(soon(hour)),
                "ends": rfc3339(soon(hour + 1)),
            },
            headers=people[number % len(people)].headers,
            timeout=60,
        )
        if answer.status_code == 409:
            document = answer.json()
            assert document["conflicts"][0]["starts"] == rfc3339(soon(hour))
            assert document["max_end"] is None
        return answer.status_code

    for hour in range(SLOTS):
        calls = [partial(book, number, hour) for number in range(CALLERS)]
        counted = collections.Counter(at_once(calls))
        assert counted == {201: 1, 409: CALLERS - 1}
    assert len(running.workers()) == 2
