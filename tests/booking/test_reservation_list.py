"""Lists of reservations, and a node's calendar, on both databases."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterator

import pytest
from apiflask import APIFlask

from sentinel_booking.domain.booking_rules import State
from sentinel_booking.domain.conflicts import Interval
from sentinel_booking.errors import InvalidInput, NotFound
from sentinel_booking.models import utc_now
from sentinel_booking.services.audit import Actor
from sentinel_booking.services.calendar import MAX_LENGTH, get_calendar
from sentinel_booking.services.reservation_list import ReservationFilter, list_reservations
from sentinel_booking.services.reservations import release_reservation
from tests.booking.bookings import HOUR, add_actor, add_node, add_reservation, soon

ANY = ReservationFilter()


@dataclasses.dataclass(frozen=True)
class Lab:
    """Reservations of two people on two nodes, by what became of them."""

    app: APIFlask
    alice: Actor
    ids: dict[str, int]

    def find(self, wanted: ReservationFilter, limit: int = 200) -> list[str]:
        names = {number: name for name, number in self.ids.items()}
        return [names[view.id] for view in list_reservations(wanted, limit=limit).items]


@pytest.fixture
def lab(app: APIFlask) -> Iterator[Lab]:
    for node in ("n1", "n2"):
        add_node(app, node)
    alice, bob = add_actor(app, "alice"), add_actor(app, "bob")
    now = utc_now()
    ids = {
        "old": add_reservation(app, alice, now - 9 * HOUR, now - 8 * HOUR, slots=[0]),
        "ended": add_reservation(app, bob, now - 5 * HOUR, now - 4 * HOUR, slots=[1, 2]),
        "running": add_reservation(app, alice, now - 2 * HOUR, now + HOUR, slots=[0, 1]),
        "long": add_reservation(app, bob, now - 3 * HOUR, now + 99 * HOUR, node="n2"),
        "cancelled": add_reservation(app, alice, soon(), soon(1)),
        "later": add_reservation(app, bob, soon(5), soon(6), slots=[0]),
        "next": add_reservation(app, alice, soon(2), soon(4)),
    }
    with app.app_context():
        release_reservation(alice, ids["cancelled"])
        yield Lab(app, alice, ids)


def test_without_a_state_the_latest_start_comes_first(lab: Lab) -> None:
    assert lab.find(ANY) == ["later", "next", "cancelled", "running", "long", "ended", "old"]


def test_a_state_selects_and_orders(lab: Lab) -> None:
    for state, expected in (
        (State.RUNNING, ["long", "running"]),
        (State.COMING, ["next", "later"]),
        (State.PAST, ["cancelled", "ended", "old"]),
    ):
        found = list_reservations(ReservationFilter(state=state)).items
        assert lab.find(ReservationFilter(state=state)) == expected
        assert {view.state for view in found} == {state}


def test_conditions_are_combined(lab: Lab) -> None:
    now = utc_now()
    assert lab.find(ReservationFilter(node="n2")) == ["long"]
    assert lab.find(ReservationFilter(holder="bob", node="n1")) == ["later", "ended"]
    assert lab.find(ReservationFilter(holder="nobody")) == []
    assert lab.find(ReservationFilter(since=soon(4), until=soon(5), holder="bob")) == ["long"]
    assert lab.find(ReservationFilter(until=now - 4.5 * HOUR)) == ["ended", "old"]


def test_pages_hold_everything_once_and_in_order(lab: Lab) -> None:
    # Some begin in the same moment: the id decides between them.
    for slot in (1, 2, 3):
        add_reservation(lab.app, lab.alice, soon(5), soon(6), slots=[slot])
    for state in (None, *State):
        wanted = ReservationFilter(state=state)
        whole = [view.id for view in list_reservations(wanted, limit=200).items]
        assert len(set(whole)) == len(whole)
        for limit in (1, 2, 3):
            pages = read_pages(wanted, limit)
            assert [number for page in pages for number in page] == whole
            assert all(len(page) == limit for page in pages[:-1])
            assert pages[-1], "a cursor led to an empty page"


def read_pages(wanted: ReservationFilter, limit: int) -> list[list[int]]:
    pages: list[list[int]] = []
    cursor: str | None = None
    while len(pages) < 50:
        page = list_reservations(wanted, cursor, limit)
        pages.append([view.id for view in page.items])
        cursor = page.next_cursor
        if cursor is None:
            return pages
    raise AssertionError("the pages have no end")


def test_devices_of_many_reservations_are_told_apart(lab: Lab) -> None:
    found = {view.id: view for view in list_reservations(ANY).items}
    assert found[lab.ids["ended"]].device_uuids == ("GPU-n1-1", "GPU-n1-2")
    assert found[lab.ids["running"]].device_uuids == ("GPU-n1-0", "GPU-n1-1")
    assert found[lab.ids["long"]].device_uuids == ()
    assert found[lab.ids["long"]].whole_node


def test_a_cursor_of_another_make_is_refused(lab: Lab) -> None:
    for cursor in ("x", "!", "MjAyNi0wMS0wMXwx", "", "\N{SNOWMAN}"):
        with pytest.raises(InvalidInput):
            list_reservations(ANY, cursor)


def test_an_interval_that_ends_before_it_begins_is_refused(lab: Lab) -> None:
    with pytest.raises(InvalidInput):
        list_reservations(ReservationFilter(since=soon(2), until=soon(2)))
    with pytest.raises(InvalidInput):
        get_calendar("n1", Interval(soon(2), soon(2)))
    with pytest.raises(InvalidInput):
        get_calendar("n1", Interval(soon(), soon() + MAX_LENGTH + HOUR))


def test_a_calendar_holds_what_overlaps_and_was_not_cancelled(lab: Lab) -> None:
    calendar = get_calendar("n1", Interval(utc_now() - 6 * HOUR, soon(5)))
    assert calendar.bookings is not None
    assert [item.reservation for item in calendar.bookings] == [
        lab.ids[name] for name in ("ended", "running", "next")
    ]
    ended, running, coming = calendar.bookings
    assert running.devices == ("GPU-n1-0", "GPU-n1-1")
    assert (coming.whole_node, coming.devices, coming.holder) == (True, (), "alice")
    assert (ended.holder, ended.ends - ended.starts) == ("bob", dt.timedelta(hours=1))


def test_a_calendar_that_is_known_is_not_read_again(lab: Lab) -> None:
    week = Interval(soon(), soon() + dt.timedelta(days=7))
    first = get_calendar("n1", week)
    assert get_calendar("n1", week, {first.version}).bookings is None
    assert get_calendar("n1", week, {first.version - 1}).bookings == first.bookings
    release_reservation(lab.alice, lab.ids["next"])
    second = get_calendar("n1", week, {first.version})
    assert second.version > first.version
    assert second.bookings is not None
    assert len(second.bookings) == 1


def test_a_node_that_does_not_exist_has_no_calendar(lab: Lab) -> None:
    with pytest.raises(NotFound):
        get_calendar("nowhere", Interval(soon(), soon(1)))
