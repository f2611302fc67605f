"""Bookings in each other's way: refused with advice, also when they meet in the database."""

from __future__ import annotations

import dataclasses
import datetime as dt
import itertools
import threading
from collections.abc import Callable
from functools import partial

import pytest
from sqlalchemy import insert, select, text, update

from sentinel_booking.config import Config
from sentinel_booking.errors import InvalidInput
from sentinel_booking.models import Claim, User, db
from sentinel_booking.services.booked import SlotTaken
from sentinel_booking.services.keys import remove_key
from sentinel_booking.services.reservations import create_reservation, release_reservation
from tests.booking.bookings import HOUR, add_reservation, soon
from tests.booking.programs import until
from tests.booking.reservation_lab import Lab, add_key, lab

__all__ = ["lab"]  # a fixture


def test_cards_and_the_whole_node_exclude_each_other(lab: Lab) -> None:
    pairs = itertools.product([(0,), (0, 1), ()], [(0,), (1, 0, 3), ()])
    for hour, (first, second) in enumerate(pairs):
        create_reservation(lab.alice, lab.wish(*first, start=hour, end=hour + 1))
        with pytest.raises(SlotTaken):
            create_reservation(lab.bob, lab.wish(*second, start=hour, end=hour + 1))


def test_neighbours_in_time_and_on_other_cards_do_not_conflict(lab: Lab) -> None:
    create_reservation(lab.alice, lab.wish(0, 1, start=2, end=4))
    create_reservation(lab.bob, lab.wish(0, start=1, end=2))
    create_reservation(lab.bob, lab.wish(1, start=4, end=5))
    create_reservation(lab.bob, lab.wish(2, 3, start=2, end=4))
    create_reservation(lab.bob, lab.wish(start=0, end=1))


def test_a_refusal_says_who_when_and_what_would_fit(lab: Lab) -> None:
    mine = create_reservation(lab.alice, lab.wish(0, 1, start=2, end=4))
    create_reservation(lab.bob, lab.wish(start=5, end=6))
    create_reservation(lab.bob, lab.wish(3, start=2, end=5))
    with pytest.raises(SlotTaken) as caught:
        create_reservation(lab.bob, lab.wish(0, start=1, end=3))
    (conflict,) = caught.value.conflicts
    assert (conflict.reservation, conflict.holder) == (mine.id, "alice")
    assert (conflict.starts, conflict.ends) == (mine.starts, mine.ends)
    assert conflict.devices == tuple(lab.uuids[:2])
    # Two hours fit neither before the first nor between the two.
    assert caught.value.next_free == soon(6)
    assert caught.value.max_end == soon(2)
    assert caught.value.extra["max_end"] == soon(2).isoformat().replace("+00:00", "Z")


def test_a_gap_too_short_to_book_is_not_offered(lab: Lab) -> None:
    create_reservation(lab.alice, lab.wish(0))
    with pytest.raises(SlotTaken) as caught:
        create_reservation(lab.bob, lab.wish(0, start=-1 / 120))
    assert caught.value.max_end is None


def test_the_advice_can_be_booked(lab: Lab) -> None:
    create_reservation(lab.alice, lab.wish(0, 1, start=2, end=4))
    wish = lab.wish(1, 2, start=1, end=3)
    with pytest.raises(SlotTaken) as caught:
        create_reservation(lab.bob, wish)
    advice = caught.value
    assert advice.next_free is not None
    assert advice.max_end is not None
    create_reservation(lab.bob, dataclasses.replace(wish, ends=advice.max_end))
    later = dataclasses.replace(wish, starts=advice.next_free, ends=advice.next_free + 2 * HOUR)
    create_reservation(lab.bob, later)


def test_there_is_no_advice_beyond_what_may_be_booked(lab: Lab, config: Config) -> None:
    long_away = soon() + dt.timedelta(days=config.max_advance_days + 30)
    add_reservation(lab.app, lab.olga, soon(-1), long_away)
    with pytest.raises(SlotTaken) as caught:
        create_reservation(lab.alice, lab.wish(0))
    assert (caught.value.next_free, caught.value.max_end) == (None, None)


def test_cancelled_and_released_time_is_free_again(lab: Lab) -> None:
    coming = create_reservation(lab.alice, lab.wish(0))
    release_reservation(lab.alice, coming.id)
    create_reservation(lab.bob, lab.wish(0))
    running = create_reservation(
        lab.alice, dataclasses.replace(lab.wish(1), starts=None, ends=soon(3))
    )
    release_reservation(lab.alice, running.id)
    create_reservation(lab.bob, dataclasses.replace(lab.wish(1), starts=None))


def test_what_our_check_did_not_see_the_database_refuses(lab: Lab, config: Config) -> None:
    # Another program writes past our lock, and commits while the booking is under way.
    if config.database_url.startswith("sqlite"):
        pytest.skip("SQLite has one writer at a time; test_net.py holds its triggers")
    other = db.engine.connect()
    reservation = add_reservation(lab.app, lab.bob, soon(), soon())
    other.execute(
        insert(Claim).values(
            reservation_id=reservation,
            node_id=1,
            slot_lo=0,
            slot_hi=1,
            starts=soon(),
            ends=soon(1),
            is_active=True,
        )
    )
    other.execute(text("UPDATE reservations SET ends = :ends"), {"ends": soon(1)})
    other.execute(text("DELETE FROM claims WHERE starts = ends"))
    refused: list[Exception] = []

    def book() -> None:
        with lab.app.app_context():
            try:
                create_reservation(lab.alice, lab.wish(0))
            except Exception as error:  # the test looks at it below
                refused.append(error)

    thread = threading.Thread(target=book)
    thread.start()
    _wait_for_a_lock(lab)
    other.commit()
    other.close()
    thread.join()
    (error,) = refused
    assert isinstance(error, SlotTaken)
    assert error.conflicts[0].holder == "bob"


def _wait_for_a_lock(lab: Lab) -> None:
    """Return when some connection to the database waits for another's transaction."""
    with db.engine.connect() as connection:
        query = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
        until(
            lambda: connection.execute(query).scalar_one() > 0,
            lambda: "nobody waits for a lock",
        )


def test_a_booking_and_a_change_of_its_holder_wait_for_each_other(
    lab: Lab, config: Config
) -> None:
    # The change renews the policies of the nodes that the holder has booked: it must see
    # the booking, or the booking the change.
    if config.database_url.startswith("sqlite"):
        pytest.skip("SQLite has one writer at a time")
    key = add_key(lab.bob)
    results: list[object] = []

    def run(use_case: Callable[[], object]) -> None:
        with lab.app.app_context():
            try:
                results.append(use_case())
            except InvalidInput as error:
                results.append(error.fields[0].field)

    closing = update(User).where(User.name == "alice").values(is_active=False)
    booking = select(User.id).where(User.name == "bob").with_for_update(read=True)
    for statement, use_case, expected in (
        (closing, partial(create_reservation, lab.alice, lab.wish(0)), "holder"),
        (booking, partial(remove_key, lab.bob, lab.bob.user_id or 0, key), None),
    ):
        with db.engine.connect() as other:
            other.execute(statement)
            thread = threading.Thread(target=run, args=(use_case,))
            thread.start()
            _wait_for_a_lock(lab)
            other.commit()
        thread.join()
        assert results.pop() == expected
