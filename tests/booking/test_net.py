"""The database alone, without our code, refuses claims that overlap."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

import pytest
from sqlalchemy import insert, text, update
from sqlalchemy.exc import IntegrityError

from sentinel_booking.app import create_app
from sentinel_booking.config import Config
from sentinel_booking.models import (
    SLOT_END,
    Claim,
    Node,
    Reservation,
    Role,
    User,
    db,
    upgrade_schema,
)

NOON = dt.datetime(2026, 5, 1, 12, tzinfo=dt.UTC)


@pytest.fixture(autouse=True)
def tables(config: Config) -> Iterator[None]:
    """Two nodes, and a claim on slot 3 of the first, from noon for one hour."""
    app = create_app(config)
    with app.app_context():
        upgrade_schema()
        db.session.add_all([Node(name="n1"), Node(name="n2")])
        db.session.add(User(name="alice", role=Role.USER, password_hash="-"))
        db.session.flush()
        db.session.add(
            Reservation(user_id=1, node_id=1, whole_node=False, starts=NOON, ends=NOON)
        )
        db.session.commit()
        claim(3, 4, 0, 60)
        yield


def claim(
    lo: int, hi: int, start_min: float, end_min: float, *, node: int = 1, active: bool = True
) -> None:
    """Insert a claim, minutes counted from noon."""
    with db.engine.begin() as connection:
        connection.execute(
            insert(Claim).values(
                reservation_id=1,
                node_id=node,
                slot_lo=lo,
                slot_hi=hi,
                starts=NOON + dt.timedelta(minutes=start_min),
                ends=NOON + dt.timedelta(minutes=end_min),
                is_active=active,
            )
        )


def test_an_overlapping_claim_is_refused() -> None:
    for lo, hi, start, end in (
        (3, 4, 0, 60),
        (3, 4, 59, 120),
        (3, 4, -60, 1),
        (3, 4, 10, 20),
        (3, 4, -10, 100),
        (0, SLOT_END, 30, 40),
        (2, 4, 59.99, 70),
        (3, 5, 0, 1),
    ):
        with pytest.raises(IntegrityError, match="overlap"):
            claim(lo, hi, start, end)


def test_a_neighbour_in_time_or_slot_and_an_empty_claim_are_accepted() -> None:
    for lo, hi, start, end in (
        (3, 4, 60, 120),
        (3, 4, -60, 0),
        (2, 3, 0, 60),
        (4, 5, 0, 60),
        (5, SLOT_END, 0, 60),
        (3, 4, 30, 30),
    ):
        claim(lo, hi, start, end)


def test_another_node_and_an_inactive_claim_do_not_overlap() -> None:
    claim(3, 4, 0, 60, node=2)
    claim(3, 4, 0, 60, active=False)


def test_a_claim_beside_an_empty_one_is_accepted() -> None:
    claim(5, 6, 30, 30)
    claim(5, 6, 0, 60)


def test_a_change_into_an_overlap_is_refused() -> None:
    claim(3, 4, 60, 120)
    claim(3, 4, 0, 60, active=False)
    changes = [
        update(Claim).where(Claim.id == 2).values(starts=NOON + dt.timedelta(minutes=59)),
        update(Claim).where(Claim.id == 1).values(ends=NOON + dt.timedelta(minutes=61)),
        update(Claim).where(Claim.id == 3).values(is_active=True),
    ]
    for change in changes:
        with (
            pytest.raises(IntegrityError, match="overlap"),
            db.engine.begin() as connection,
        ):
            connection.execute(change)


def test_a_claim_may_be_changed_where_it_stands() -> None:
    with db.engine.begin() as connection:
        connection.execute(
            update(Claim).where(Claim.id == 1).values(ends=NOON + dt.timedelta(minutes=90))
        )


def test_a_statement_that_ignores_conflicts_inserts_nothing(config: Config) -> None:
    columns = "reservation_id, node_id, slot_lo, slot_hi, starts, ends, is_active"
    if config.database_url.startswith("sqlite"):
        statement = f"INSERT OR IGNORE INTO claims ({columns}) SELECT {columns} FROM claims"
        with pytest.raises(IntegrityError), db.engine.begin() as connection:
            connection.execute(text(statement))
    else:
        statement = (
            f"INSERT INTO claims ({columns}) SELECT {columns} FROM claims"
            " ON CONFLICT DO NOTHING"
        )
        with db.engine.begin() as connection:
            connection.execute(text(statement))
    with db.engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM claims")).scalar_one() == 1


def test_a_time_written_in_another_form_is_refused(config: Config) -> None:
    if not config.database_url.startswith("sqlite"):
        pytest.skip("PostgreSQL has a type for it")
    # Text compares rightly in one form only: "T" is greater than " ".
    for starts in ("2026-05-01T13:00:00.000000", "2026-05-01 13:00", "2026-05-01 13:00:00Z"):
        with (
            pytest.raises(IntegrityError, match="must look like"),
            db.engine.begin() as connection,
        ):
            connection.execute(text(f"UPDATE claims SET starts = '{starts}'"))
