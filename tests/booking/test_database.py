"""The write transaction on both databases."""

from __future__ import annotations

import datetime as dt
import threading

import pytest
from sqlalchemy import select, update

from sentinel_booking.app import create_app
from sentinel_booking.config import Config
from sentinel_booking.models import Lease, Node, db, write


def test_times_come_back_aware_in_utc(config: Config) -> None:
    app = create_app(config)
    beijing = dt.timezone(dt.timedelta(hours=8))
    with app.app_context():
        db.create_all()
        with write() as session:
            session.add(
                Lease(
                    name="l", owner="o", expires_at=dt.datetime(2026, 1, 1, 8, tzinfo=beijing)
                )
            )
        found = db.session.scalars(select(Lease.expires_at)).one()
    assert found == dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    assert found.tzinfo is dt.UTC


def test_a_failed_write_leaves_nothing(config: Config) -> None:
    app = create_app(config)
    with app.app_context():
        db.create_all()
        with pytest.raises(RuntimeError), write() as session:
            session.add(Node(name="n1"))
            session.flush()
            raise RuntimeError("planted")
        assert db.session.scalars(select(Node)).all() == []


def test_a_read_before_the_write_does_not_break_concurrent_increments(config: Config) -> None:
    app = create_app(config)
    with app.app_context():
        db.create_all()
        with write() as session:
            session.add(Node(name="n1"))

    failures: list[Exception] = []

    def bump() -> None:
        with app.app_context():
            for _ in range(10):
                try:
                    db.session.scalars(select(Node.booking_seq)).one()
                    with write() as session:
                        session.execute(update(Node).values(booking_seq=Node.booking_seq + 1))
                except Exception as error:  # collected: a thread's error is not the test's
                    failures.append(error)

    threads = [threading.Thread(target=bump) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with app.app_context():
        assert failures == []
        assert db.session.scalars(select(Node.booking_seq)).one() == 80
