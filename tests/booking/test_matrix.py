"""What the matrix's cells say, and that reading it costs the same for one node and many."""

from __future__ import annotations

import datetime as dt
from itertools import permutations

import pytest
from apiflask import APIFlask
from sqlalchemy import event

from sentinel_booking.domain.matrix import Booked, CellState, is_online, occupancy
from sentinel_booking.models import SLOT_END, db
from sentinel_booking.services.matrix import read_matrix
from tests.booking.page_lab import fill_lab

NOW = dt.datetime(2026, 5, 4, 12, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)


def booked(
    holder: str,
    starts: float,
    ends: float,
    slots: tuple[int, int] = (0, 1),
    maintenance: bool = False,
) -> Booked:
    return Booked(
        slot_lo=slots[0],
        slot_hi=slots[1],
        starts=NOW + starts * HOUR,
        ends=NOW + ends * HOUR,
        holder=holder,
        reservation_id=1,
        whole_node=slots == (0, SLOT_END),
        is_maintenance=maintenance,
    )


@pytest.mark.parametrize(
    ("claims", "online", "state"),
    [
        ([], True, CellState.FREE),
        ([booked("bob", -1, 1)], True, CellState.BUSY),
        ([booked("alice", -1, 1)], True, CellState.MINE),
        ([booked("alice", -1, 1)], False, CellState.OFFLINE),
        ([], False, CellState.OFFLINE),
        ([booked("bob", -2, 0)], True, CellState.FREE),
        ([booked("bob", 0, 1)], True, CellState.BUSY),
        ([booked("bob", 0.001, 1)], True, CellState.FREE),
        ([booked("bob", -1, 1, (0, SLOT_END))], True, CellState.BUSY),
        ([booked("bob", -1, 1, (1, 2))], True, CellState.FREE),
        ([booked("alice", -1, 1, maintenance=True)], True, CellState.BUSY),
    ],
)
def test_a_cell_shows_whose_it_is_now(
    claims: list[Booked], online: bool, state: CellState
) -> None:
    assert occupancy(0, claims, viewer="alice", online=online, now=NOW).state == state


def test_an_offline_cell_still_tells_its_holder() -> None:
    shown = occupancy(0, [booked("bob", -1, 1)], viewer="alice", online=False, now=NOW)
    assert shown.now is not None
    assert shown.now.holder == "bob"


def test_the_next_booking_is_the_earliest_that_comes_in_any_order() -> None:
    claims = [booked("a", -1, 1), booked("b", 2, 3), booked("c", 5, 6), booked("d", -9, -8)]
    for order in permutations(claims):
        shown = occupancy(0, order, viewer="x", online=True, now=NOW)
        assert shown.next is not None
        assert shown.next.holder == "b"


def test_a_machine_as_a_whole_shows_the_viewers_own_card_first() -> None:
    claims = [booked("bob", -1, 9, (0, 1)), booked("alice", -1, 1, (1, 2))]
    for order in permutations(claims):
        shown = occupancy(None, order, viewer="alice", online=True, now=NOW)
        assert shown.state == CellState.MINE


def test_a_heartbeat_is_good_for_exactly_as_long_as_is_set() -> None:
    assert is_online(NOW, NOW, 60)
    assert is_online(NOW - dt.timedelta(seconds=60), NOW, 60)
    assert not is_online(NOW - dt.timedelta(seconds=61), NOW, 60)
    assert not is_online(None, NOW, 60)


def test_the_matrix_counts_what_it_shows_and_filters_leave_whole_nodes(app: APIFlask) -> None:
    fill_lab(app)
    with app.app_context():
        everything = read_matrix("alice", 900)
        assert [name for name, _rows in everything.clusters] == ["ascend", "training", ""]
        cells = sum(len(row.cells) for _name, rows in everything.clusters for row in rows)
        assert cells == sum(everything.counts.values()) == 8 + 8 + 4 + 16 + 8 + 1
        assert everything.counts[CellState.MINE] == 4
        assert everything.counts[CellState.OFFLINE] == 4

        training = read_matrix("alice", 900, cluster="training")
        assert [name for name, _rows in training.clusters] == ["training"]
        tagged = read_matrix("alice", 900, tag="a100")
        assert [row.node.name for _name, rows in tagged.clusters for row in rows] == ["gpu-03"]
        free = read_matrix("alice", 900, only_free=True)
        names = [row.node.name for _name, rows in free.clusters for row in rows]
        assert names == ["npu-01", "npu-02", "gpu-01"]
        # What can be chosen is the same, whatever is chosen.
        assert free.all_clusters == everything.all_clusters == ["", "ascend", "training"]


def test_the_matrix_takes_a_handful_of_queries_for_any_number_of_nodes(app: APIFlask) -> None:
    fill_lab(app)
    statements: list[str] = []
    with app.app_context():
        event.listen(
            db.engine,
            "before_cursor_execute",
            lambda *arguments: statements.append(arguments[2]),
        )
        read_matrix("alice", 900)
    assert len([text for text in statements if text.startswith("SELECT")]) == 4, statements
