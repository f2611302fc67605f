"""A booking that is sent again with its Idempotency-Key, on both databases."""

from __future__ import annotations

import dataclasses
import threading

import pytest
from sqlalchemy import func, select, update

from sentinel_booking.errors import InvalidInput
from sentinel_booking.models import IdempotencyKey, Node, Reservation, db, utc_now, write
from sentinel_booking.services.booked import SlotTaken
from sentinel_booking.services.reservations import (
    Wanted,
    change_reservation,
    create_reservation,
    release_reservation,
)
from tests.booking.bookings import add_node
from tests.booking.reservation_lab import Lab, audit_actions, fields, lab, node_row

__all__ = ["lab"]  # a fixture


def test_a_repeated_request_gets_the_first_answer_and_books_once(lab: Lab) -> None:
    wish = lab.wish(0)
    first = create_reservation(lab.alice, wish, "key", "hash")
    seq = node_row().booking_seq
    change_reservation(lab.alice, first.id, 1, purpose="changed since")
    assert create_reservation(lab.alice, wish, "key", "hash") == first
    assert node_row().booking_seq == seq + 1
    assert audit_actions() == ["reservation.create", "reservation.change"]


def test_a_key_cannot_be_used_for_another_body(lab: Lab) -> None:
    create_reservation(lab.alice, lab.wish(0), "key", "hash")
    with pytest.raises(InvalidInput) as caught:
        create_reservation(lab.alice, lab.wish(1), "key", "other hash")
    assert fields(caught) == ["Idempotency-Key"]


def test_a_key_belongs_to_one_person(lab: Lab) -> None:
    first = create_reservation(lab.alice, lab.wish(0), "key", "hash")
    second = create_reservation(lab.bob, lab.wish(1), "key", "hash")
    assert first.id != second.id


def test_a_refused_request_may_be_repeated_with_its_key(lab: Lab) -> None:
    taken = create_reservation(lab.bob, lab.wish(0))
    with pytest.raises(SlotTaken):
        create_reservation(lab.alice, lab.wish(0), "key", "hash")
    release_reservation(lab.bob, taken.id)
    create_reservation(lab.alice, lab.wish(0), "key", "hash")


def test_the_first_answer_outlives_the_node(lab: Lab) -> None:
    first = create_reservation(lab.alice, lab.wish(0), "key", "hash")
    with write() as session:
        session.execute(update(Node).values(removed_at=utc_now()))
    assert create_reservation(lab.alice, lab.wish(0), "key", "hash") == first


def test_a_key_that_no_header_carries_is_refused(lab: Lab) -> None:
    for key in ("", "x" * 256, "tab\tkey", "schlüssel"):
        with pytest.raises(InvalidInput) as caught:
            create_reservation(lab.alice, lab.wish(0), key, "hash")
        assert fields(caught) == ["Idempotency-Key"]


def test_one_key_sent_many_times_at_once_books_once(lab: Lab) -> None:
    others = add_node(lab.app, "n2")
    wishes = [
        (lab.wish(0), "hash"),
        (
            dataclasses.replace(lab.wish(0), node="n2", device_uuids=(others[0],)),
            "other hash",
        ),
    ] * 6
    answers: list[object] = []
    gate = threading.Barrier(len(wishes))

    def book(wish: Wanted, body_hash: str) -> None:
        with lab.app.app_context():
            gate.wait()
            try:
                answers.append(create_reservation(lab.alice, wish, "key", body_hash).id)
            except InvalidInput as error:
                answers.append(error.fields[0].field)

    threads = [threading.Thread(target=book, args=wish) for wish in wishes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    db.session.rollback()
    made = db.session.scalars(select(Reservation.id)).one()
    assert sorted(answers, key=str) == [made] * 6 + ["Idempotency-Key"] * 6
    assert db.session.scalar(select(func.count(IdempotencyKey.id))) == 1
