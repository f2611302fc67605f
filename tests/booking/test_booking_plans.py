"""With years of past bookings, judging a new one still reads only what is not past."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from apiflask import APIFlask
from sqlalchemy import event, text

from sentinel_booking.domain.booking_rules import State
from sentinel_booking.domain.conflicts import Interval
from sentinel_booking.models import db, utc_now
from sentinel_booking.services.audit import Actor
from sentinel_booking.services.calendar import get_calendar
from sentinel_booking.services.reservation_list import ReservationFilter, list_reservations
from sentinel_booking.services.reservations import Wanted, create_reservation
from tests.booking.bookings import add_actor, add_node, soon

NODES = 50
CLAIMS_PER_NODE = 2000

# One hour each, one after the other, the last one ended an hour ago. Sorted by their end:
# the triggers look at what ends later than the new row begins.
PAST_ON_SQLITE = """
WITH RECURSIVE hours(back) AS (
    SELECT :count UNION ALL SELECT back - 1 FROM hours WHERE back > 1
)
INSERT INTO claims (reservation_id, node_id, slot_lo, slot_hi, starts, ends, is_active)
SELECT reservations.id, reservations.node_id, 0, 1,
    strftime('%Y-%m-%d %H:%M:%S.000000', 'now', '-' || (back + 1) || ' hours'),
    strftime('%Y-%m-%d %H:%M:%S.000000', 'now', '-' || back || ' hours'), 1
FROM hours, reservations ORDER BY back DESC
"""
PAST_ON_POSTGRESQL = """
INSERT INTO claims (reservation_id, node_id, slot_lo, slot_hi, starts, ends, is_active)
SELECT r.id, r.node_id, 0, 1, date_trunc('hour', now()) - make_interval(hours => back + 1),
    date_trunc('hour', now()) - make_interval(hours => back), true
FROM generate_series(1, :count) AS back, reservations r
"""
RESERVATIONS = """
INSERT INTO reservations (user_id, node_id, kind, whole_node, starts, ends, purpose,
    created_at, is_cancelled, version)
SELECT :user, id, 'use', :no, :then, :then, '', :then, :no, 1 FROM nodes
"""


@dataclasses.dataclass(frozen=True)
class Statement:
    sql: str
    parameters: Any  # whatever the driver takes


@contextmanager
def queries_of_claims() -> Iterator[list[Statement]]:
    """Collect the SELECTs that read claims or reservations, as the driver gets them."""
    seen: list[Statement] = []

    def collect(_c: object, _cursor: object, sql: str, parameters: Any, *_rest: object) -> None:
        if sql.startswith("SELECT") and ("FROM claims" in sql or "FROM reservations" in sql):
            seen.append(Statement(sql, parameters))

    event.listen(db.engine, "before_cursor_execute", collect)
    try:
        yield seen
    finally:
        event.remove(db.engine, "before_cursor_execute", collect)


def plan_of(statement: Statement) -> str:
    prefix = "EXPLAIN QUERY PLAN " if db.engine.dialect.name == "sqlite" else "EXPLAIN "
    with db.engine.connect() as connection:
        rows = connection.exec_driver_sql(prefix + statement.sql, statement.parameters)
        return "\n".join(" ".join(str(value) for value in row) for row in rows)


def fill(actor: Actor) -> None:
    is_sqlite = db.engine.dialect.name == "sqlite"
    now = utc_now()
    with db.engine.begin() as connection:
        connection.execute(
            text(RESERVATIONS),
            {
                "user": actor.user_id,
                "no": False,
                "then": f"{now:%Y-%m-%d %H:%M:%S.%f}" if is_sqlite else now,
            },
        )
        connection.execute(
            text(PAST_ON_SQLITE if is_sqlite else PAST_ON_POSTGRESQL),
            {"count": CLAIMS_PER_NODE},
        )
    with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE"))


def test_the_past_is_left_out_by_an_index(app: APIFlask) -> None:
    for number in range(NODES):
        add_node(app, f"n{number}", devices=1)
    alice = add_actor(app, "alice")
    with app.app_context():
        fill(alice)
        count = db.session.execute(text("SELECT count(*) FROM claims")).scalar_one()
        assert count == NODES * CLAIMS_PER_NODE
        db.session.rollback()
        with queries_of_claims() as seen:
            create_reservation(
                alice, Wanted("n7", ends=soon(1), starts=soon(), device_uuids=("GPU-n7-0",))
            )
            get_calendar("n7", Interval(soon(), soon(24)))
            list_reservations(ReservationFilter(node="n7", state=State.COMING))
        assert len([one for one in seen if "FROM claims" in one.sql]) >= 3
        for statement in seen:
            plan = plan_of(statement)
            assert "SCAN claims" not in plan, plan
            assert "Seq Scan on claims" not in plan, plan
        conflict_check = plan_of(seen[0])
        assert "ix_claims_node_ends" in conflict_check or "ex_claims_overlap" in conflict_check
