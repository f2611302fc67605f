"""Releasing and changing reservations at the services, on both databases."""

from __future__ import annotations

import datetime as dt

import pytest
from sqlalchemy import select

from sentinel_booking.config import Config
from sentinel_booking.domain.booking_rules import State
from sentinel_booking.errors import (
    Conflict,
    InvalidInput,
    NotAllowed,
    NotFound,
    PreconditionFailed,
    PreconditionRequired,
)
from sentinel_booking.models import AuditEntry, db, utc_now
from sentinel_booking.services.audit import SYSTEM
from sentinel_booking.services.booked import SlotTaken
from sentinel_booking.services.reservation_list import get_reservation
from sentinel_booking.services.reservations import (
    change_reservation,
    create_reservation,
    release_reservation,
)
from tests.booking.bookings import HOUR, add_reservation, soon
from tests.booking.reservation_lab import Lab, audit_actions, fields, lab, node_row

__all__ = ["lab"]  # a fixture


def test_releasing_a_running_one_ends_it_now(lab: Lab) -> None:
    number = add_reservation(
        lab.app, lab.alice, utc_now() - HOUR, utc_now() + HOUR, slots=[0, 2]
    )
    before = utc_now()
    released = release_reservation(lab.alice, number)
    assert before <= released.ends <= utc_now()
    assert released.released_at == released.ends
    assert (released.state, released.is_cancelled) == (State.PAST, False)
    assert audit_actions() == ["reservation.release"]


def test_releasing_a_coming_one_cancels_it(lab: Lab) -> None:
    made = create_reservation(lab.alice, lab.wish(0, 2))
    released = release_reservation(lab.alice, made.id)
    assert (released.state, released.is_cancelled) == (State.PAST, True)
    assert (released.starts, released.ends) == (made.starts, made.ends)
    assert released.released_at is not None
    assert audit_actions() == ["reservation.create", "reservation.cancel"]


def test_releasing_again_changes_nothing(lab: Lab) -> None:
    ended = add_reservation(lab.app, lab.alice, soon(-72), soon(-70), slots=[0])
    running = add_reservation(lab.app, lab.alice, soon(-25), soon(9), slots=[0])
    coming = create_reservation(lab.alice, lab.wish(1)).id
    for number in (running, coming):
        release_reservation(lab.alice, number)
    state = (node_row().booking_seq, node_row().policy_version, audit_actions())
    for number in (ended, running, coming):
        before = get_reservation(number)
        assert release_reservation(lab.alice, number) == before
    assert (node_row().booking_seq, node_row().policy_version, audit_actions()) == state


def test_only_the_holder_and_operators_release_or_change(lab: Lab) -> None:
    made = create_reservation(lab.alice, lab.wish(0))
    for stranger in (lab.bob, lab.rita, SYSTEM):
        with pytest.raises(NotAllowed):
            release_reservation(stranger, made.id)
        with pytest.raises(NotAllowed):
            change_reservation(stranger, made.id, 1, purpose="x")
    assert change_reservation(lab.olga, made.id, 1, purpose="x").purpose == "x"
    assert release_reservation(lab.olga, made.id).is_cancelled


def test_a_holder_who_may_no_longer_book_can_still_release(lab: Lab) -> None:
    number = add_reservation(lab.app, lab.rita, soon(), soon(1))
    with pytest.raises(NotAllowed):
        change_reservation(lab.rita, number, 1, ends=soon(2))
    assert release_reservation(lab.rita, number).is_cancelled


def test_what_does_not_exist_is_not_found(lab: Lab) -> None:
    with pytest.raises(NotFound):
        get_reservation(4711)
    with pytest.raises(NotFound):
        release_reservation(lab.olga, 4711)
    with pytest.raises(NotFound):
        change_reservation(lab.olga, 4711, 1, purpose="x")


def test_an_extension_and_a_shortening_keep_start_and_cards(lab: Lab) -> None:
    made = create_reservation(lab.alice, lab.wish(0, 1, 3, end=4))
    longer = change_reservation(lab.alice, made.id, 1, ends=soon(6))
    shorter = change_reservation(lab.alice, made.id, 2, ends=soon(1), purpose=" done ")
    assert (longer.ends, longer.version) == (soon(6), 2)
    assert (shorter.ends, shorter.version, shorter.purpose) == (soon(1), 3, "done")
    assert (shorter.starts, shorter.devices) == (made.starts, made.devices)
    create_reservation(lab.bob, lab.wish(0, 1, 3, start=1, end=2))


def test_the_audit_shows_before_and_after(lab: Lab) -> None:
    made = create_reservation(lab.alice, lab.wish(0))
    change_reservation(lab.olga, made.id, 1, ends=soon(2))
    entries = db.session.scalars(select(AuditEntry).order_by(AuditEntry.id)).all()
    created, changed = (e for e in entries if e.object_type == "reservation")
    assert (created.actor, created.before, changed.actor) == ("alice", None, "olga")
    assert changed.before is not None
    assert changed.after is not None
    assert changed.before == created.after
    assert changed.object_id == str(made.id)
    differing = {key for key, value in changed.after.items() if value != changed.before[key]}
    assert differing == {"ends"}


def test_an_extension_stops_where_the_next_one_begins(lab: Lab) -> None:
    mine = create_reservation(lab.alice, lab.wish(0, 1))
    other = create_reservation(lab.bob, lab.wish(1, start=3, end=4))
    with pytest.raises(SlotTaken) as caught:
        change_reservation(lab.alice, mine.id, 1, ends=soon(3.5))
    assert [item.reservation for item in caught.value.conflicts] == [other.id]
    assert (caught.value.max_end, caught.value.next_free) == (soon(3), None)
    assert change_reservation(lab.alice, mine.id, 1, ends=soon(3)).ends == soon(3)


def test_a_change_needs_the_version_that_is_there(lab: Lab) -> None:
    made = create_reservation(lab.alice, lab.wish(0))
    with pytest.raises(PreconditionRequired):
        change_reservation(lab.alice, made.id, None, purpose="x")
    change_reservation(lab.alice, made.id, 1, purpose="x")
    with pytest.raises(PreconditionFailed):
        change_reservation(lab.alice, made.id, 1, purpose="y")
    assert get_reservation(made.id).purpose == "x"


def test_a_change_to_what_is_there_already_is_none(lab: Lab) -> None:
    made = create_reservation(lab.alice, lab.wish(0))
    same = change_reservation(lab.alice, made.id, 1, ends=made.ends, purpose=made.purpose)
    assert same == made
    assert audit_actions() == ["reservation.create"]


def test_an_end_that_has_passed_and_one_too_far_away_are_refused(
    lab: Lab, config: Config
) -> None:
    number = add_reservation(lab.app, lab.alice, utc_now() - HOUR, utc_now() + HOUR)
    too_far = utc_now() + config.max_reservation_hours * HOUR
    for ends in (utc_now() - dt.timedelta(minutes=5), too_far):
        with pytest.raises(InvalidInput) as caught:
            change_reservation(lab.alice, number, 1, ends=ends)
        assert fields(caught) == ["ends"]


def test_what_has_ended_cannot_be_changed(lab: Lab) -> None:
    ended = add_reservation(lab.app, lab.alice, soon(-72), soon(-70))
    cancelled = create_reservation(lab.alice, lab.wish(0)).id
    release_reservation(lab.alice, cancelled)
    for number, version in ((ended, 1), (cancelled, 2)):
        with pytest.raises(Conflict):
            change_reservation(lab.alice, number, version, ends=soon(5))
