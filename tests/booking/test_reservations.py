"""Booking at the services, on both databases: who may book what, and what is made of it."""

from __future__ import annotations

import dataclasses
import datetime as dt

import pytest
from sqlalchemy import func, select, update

from sentinel_booking.config import Config
from sentinel_booking.domain.booking_rules import START_TOLERANCE, State
from sentinel_booking.errors import Conflict, InvalidInput, NotAllowed
from sentinel_booking.models import (
    SLOT_END,
    Claim,
    Device,
    Kind,
    Node,
    Reservation,
    User,
    db,
    utc_now,
    write,
)
from sentinel_booking.services.audit import SYSTEM
from sentinel_booking.services.booked import SlotTaken
from sentinel_booking.services.reservation_list import get_reservation
from sentinel_booking.services.reservations import (
    change_reservation,
    create_reservation,
    release_reservation,
)
from tests.booking.bookings import HOUR, add_node, soon
from tests.booking.reservation_lab import (
    Lab,
    add_key,
    audit_actions,
    fields,
    lab,
    node_row,
)

__all__ = ["lab"]  # a fixture


def test_a_booking_is_shown_as_it_was_asked_for(lab: Lab) -> None:
    wish = dataclasses.replace(lab.wish(2, 0), purpose="  train  ")
    made = create_reservation(lab.alice, wish)
    assert (made.node, made.holder, made.kind) == ("n1", "alice", Kind.USE)
    assert (made.starts, made.ends) == (wish.starts, wish.ends)
    assert made.device_uuids == (lab.uuids[0], lab.uuids[2])
    assert (made.whole_node, made.purpose, made.state) == (False, "train", State.COMING)
    assert (made.version, made.is_cancelled, made.released_at) == (1, False, None)
    assert get_reservation(made.id) == made


def test_neighbouring_cards_are_one_claim_and_others_are_several(lab: Lab) -> None:
    create_reservation(lab.alice, lab.wish(3, 0, 1))
    create_reservation(lab.alice, lab.wish(start=5, end=6))
    rows = db.session.execute(select(Claim.slot_lo, Claim.slot_hi).order_by(Claim.id)).all()
    assert [tuple(row) for row in rows] == [(0, 2), (3, 4), (0, SLOT_END)]


def test_without_a_start_it_begins_now(lab: Lab) -> None:
    before = utc_now()
    wish = dataclasses.replace(lab.wish(0), starts=None)
    made = create_reservation(lab.alice, wish)
    assert before <= made.starts <= utc_now()
    assert made.state == State.RUNNING


def test_a_start_of_a_moment_ago_becomes_now_and_an_older_one_is_refused(lab: Lab) -> None:
    before = utc_now()
    wish = dataclasses.replace(lab.wish(0), starts=before - dt.timedelta(seconds=30))
    assert create_reservation(lab.alice, wish).starts >= before
    old = dataclasses.replace(lab.wish(1), starts=before - START_TOLERANCE - HOUR)
    with pytest.raises(InvalidInput) as caught:
        create_reservation(lab.alice, old)
    assert fields(caught) == ["starts"]


def test_what_is_beyond_the_configured_limits_is_refused(lab: Lab, config: Config) -> None:
    long = dataclasses.replace(
        lab.wish(0), ends=soon() + (config.max_reservation_hours + 1) * HOUR
    )
    far = dt.timedelta(days=config.max_advance_days + 2)
    early = dataclasses.replace(lab.wish(0), starts=soon() + far, ends=soon(1) + far)
    for wish, field in ((long, "ends"), (early, "starts")):
        with pytest.raises(InvalidInput) as caught:
            create_reservation(lab.alice, wish)
        assert fields(caught) == [field]


def test_maintenance_may_last_as_long_as_it_must(lab: Lab) -> None:
    wish = dataclasses.replace(
        lab.wish(), kind=Kind.MAINTENANCE, ends=soon() + dt.timedelta(days=400)
    )
    assert create_reservation(lab.olga, wish).kind == Kind.MAINTENANCE
    with pytest.raises(SlotTaken):
        create_reservation(lab.alice, lab.wish(1))


def test_unknown_absent_and_repeated_devices_are_named_each(lab: Lab) -> None:
    with write() as session:
        session.execute(update(Device).where(Device.slot == 3).values(is_present=False))
    wish = dataclasses.replace(
        lab.wish(0), device_uuids=(lab.uuids[0], "GPU-other", lab.uuids[3])
    )
    with pytest.raises(InvalidInput) as caught:
        create_reservation(lab.alice, wish)
    assert fields(caught) == ["devices.1", "devices.2"]
    with pytest.raises(InvalidInput) as caught:
        create_reservation(lab.alice, lab.wish(0, 0))
    assert fields(caught) == ["devices.1"]


def test_a_device_of_another_node_is_not_this_nodes(lab: Lab) -> None:
    others = add_node(lab.app, "n2")
    with pytest.raises(InvalidInput) as caught:
        create_reservation(
            lab.alice, dataclasses.replace(lab.wish(0), device_uuids=(others[0],))
        )
    assert fields(caught) == ["devices.0"]


def test_a_node_without_cards_can_be_booked_as_a_whole(lab: Lab) -> None:
    add_node(lab.app, "cpu", devices=0)
    wish = dataclasses.replace(lab.wish(), node="cpu")
    assert create_reservation(lab.alice, wish).whole_node
    with pytest.raises(SlotTaken):
        create_reservation(lab.bob, wish)


def test_an_unknown_or_removed_node_is_refused(lab: Lab) -> None:
    with write() as session:
        session.execute(update(Node).values(removed_at=utc_now()))
    for name in ("nowhere", "n1"):
        with pytest.raises(InvalidInput) as caught:
            create_reservation(lab.alice, dataclasses.replace(lab.wish(0), node=name))
        assert fields(caught) == ["node"]


def test_who_may_only_look_cannot_book_nor_be_booked_for(lab: Lab) -> None:
    with pytest.raises(NotAllowed):
        create_reservation(lab.rita, lab.wish(0))
    with pytest.raises(NotAllowed):
        create_reservation(SYSTEM, lab.wish(0))
    with pytest.raises(InvalidInput) as caught:
        create_reservation(lab.olga, dataclasses.replace(lab.wish(0), holder="rita"))
    assert fields(caught) == ["holder"]


def test_only_operators_book_for_others_and_for_maintenance(lab: Lab) -> None:
    for_bob = dataclasses.replace(lab.wish(0), holder="bob")
    upkeep = dataclasses.replace(lab.wish(1), kind=Kind.MAINTENANCE)
    for wish in (for_bob, upkeep):
        with pytest.raises(NotAllowed):
            create_reservation(lab.alice, wish)
    assert create_reservation(lab.olga, for_bob).holder == "bob"
    assert create_reservation(lab.olga, upkeep).holder == "olga"
    mine = dataclasses.replace(lab.wish(2), holder="alice")
    assert create_reservation(lab.alice, mine).holder == "alice"


def test_a_closed_account_and_a_stranger_hold_nothing(lab: Lab) -> None:
    with write() as session:
        session.execute(update(User).where(User.name == "bob").values(is_active=False))
    for holder in ("bob", "nobody"):
        with pytest.raises(InvalidInput) as caught:
            create_reservation(lab.olga, dataclasses.replace(lab.wish(0), holder=holder))
        assert fields(caught) == ["holder"]
    with pytest.raises(InvalidInput):
        create_reservation(lab.bob, lab.wish(0))


def test_the_view_says_whether_the_holder_has_a_key(lab: Lab) -> None:
    made = create_reservation(lab.alice, lab.wish(0))
    assert made.holder_has_key is False
    add_key(lab.alice)
    assert get_reservation(made.id).holder_has_key is True


def test_a_refused_booking_leaves_no_trace(lab: Lab) -> None:
    create_reservation(lab.alice, lab.wish(0))
    before = (node_row().booking_seq, node_row().policy_version, audit_actions())
    for wish in (lab.wish(0), lab.wish(), dataclasses.replace(lab.wish(1), ends=soon(-48))):
        with pytest.raises(Conflict if wish.ends == soon(1) else InvalidInput):
            create_reservation(lab.bob, wish)
    assert (node_row().booking_seq, node_row().policy_version, audit_actions()) == before
    assert db.session.scalar(select(func.count(Reservation.id))) == 1


def test_every_change_moves_the_calendar_and_the_policy(lab: Lab) -> None:
    versions = [(node_row().booking_seq, node_row().policy_version)]
    made = create_reservation(lab.alice, lab.wish(0))
    versions.append((node_row().booking_seq, node_row().policy_version))
    change_reservation(lab.alice, made.id, 1, ends=soon(2))
    versions.append((node_row().booking_seq, node_row().policy_version))
    release_reservation(lab.alice, made.id)
    versions.append((node_row().booking_seq, node_row().policy_version))
    first_seq, first_policy = versions[0]
    assert versions == [(first_seq + n, first_policy + n) for n in range(4)]
