"""A transaction that somebody else forgot: bookings are refused, not hung."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from apiflask import APIFlask
from sqlalchemy import select, text

from sentinel_booking.errors import Unavailable
from sentinel_booking.models import Reservation, db, utc_now
from sentinel_booking.models.database import WRITE_OPTION
from sentinel_booking.services.reservations import Wanted, create_reservation
from tests.booking.bookings import add_actor, add_node


@contextmanager
def forgotten_transaction() -> Iterator[None]:
    """Holds the node's row on PostgreSQL, the write lock on SQLite."""
    with db.engine.connect() as connection:
        holder = connection.execution_options(**{WRITE_OPTION: True})
        holder.execute(text("UPDATE nodes SET booking_seq = booking_seq"))
        yield
        holder.rollback()


def test_a_booking_behind_a_forgotten_transaction_is_refused_and_changes_nothing(
    app: APIFlask,
) -> None:
    alice = add_actor(app, "alice")
    add_node(app, "npu-01")
    with app.app_context():
        wanted = Wanted("npu-01", utc_now() + dt.timedelta(hours=1), whole_node=True)
        with forgotten_transaction(), pytest.raises(Unavailable):
            create_reservation(alice, wanted)
        assert db.session.scalars(select(Reservation)).all() == []
        assert create_reservation(alice, wanted).holder == "alice"
