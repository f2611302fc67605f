"""Reading reservations: one, or pages of many. Changes nothing."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, or_, select, tuple_

from ..domain.booking_rules import State
from ..errors import InvalidInput, NotFound
from ..models import Node, Reservation, User, db, utc_now
from .paging import Slice, decode_time_cursor, encode_time_cursor
from .reservation_view import ReservationView, read_views, with_details


@dataclass(frozen=True)
class ReservationFilter:
    """Which reservations; None: any. `since` and `until`: those that overlap the interval."""

    node: str | None = None
    holder: str | None = None
    since: dt.datetime | None = None
    until: dt.datetime | None = None
    state: State | None = None


def get_reservation(reservation_id: int) -> ReservationView:
    """Return one reservation as it is now. Who: anybody signed in. Raises NotFound."""
    session = db.session()
    item = session.scalar(
        with_details(select(Reservation).where(Reservation.id == reservation_id))
    )
    if item is None:
        raise NotFound(f"There is no reservation {reservation_id}.")
    return read_views(session, [item], utc_now())[0]


def list_reservations(
    wanted: ReservationFilter, cursor: str | None = None, limit: int = 50
) -> Slice[ReservationView]:
    """Return a page of them. Who: anybody signed in.

    What runs or comes is listed with the earliest start first, all else with the latest.
    Raises InvalidInput for a cursor that was not given out, or an empty interval.
    """
    if wanted.since and wanted.until and wanted.until <= wanted.since:
        raise InvalidInput.field("to", "must lie behind 'from'")
    now = utc_now()
    key = tuple_(Reservation.starts, Reservation.id)
    query = with_details(select(Reservation).where(*_conditions(wanted, now)))
    is_ascending = wanted.state in (State.RUNNING, State.COMING)
    if is_ascending:
        query = query.order_by(Reservation.starts, Reservation.id)
    else:
        query = query.order_by(Reservation.starts.desc(), Reservation.id.desc())
    if cursor is not None:
        last = tuple_(*decode_time_cursor(cursor))
        query = query.where(key > last if is_ascending else key < last)
    session = db.session()
    # One more than asked for tells whether there is another page.
    items = session.scalars(query.limit(limit + 1)).all()
    views = read_views(session, items[:limit], now)
    more = len(items) > limit
    return Slice(
        views, encode_time_cursor(views[-1].starts, views[-1].id) if more and views else None
    )


def _conditions(wanted: ReservationFilter, now: dt.datetime) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if wanted.node is not None:
        conditions.append(
            Reservation.node_id.in_(select(Node.id).where(Node.name == wanted.node))
        )
    if wanted.holder is not None:
        conditions.append(
            Reservation.user_id.in_(select(User.id).where(User.name == wanted.holder))
        )
    if wanted.since is not None:
        conditions.append(Reservation.ends > wanted.since)
    if wanted.until is not None:
        conditions.append(Reservation.starts < wanted.until)
    if wanted.state is not None:
        conditions.append(_in_state(wanted.state, now))
    return conditions


def _in_state(state: State, now: dt.datetime) -> ColumnElement[bool]:
    """The same as state_at, in SQL."""
    is_open = and_(Reservation.is_cancelled.is_(False), Reservation.ends > now)
    if state == State.COMING:
        return and_(is_open, Reservation.starts > now)
    if state == State.RUNNING:
        return and_(is_open, Reservation.starts <= now)
    return or_(Reservation.is_cancelled.is_(True), Reservation.ends <= now)
