"""The lock under which bookings are decided, and the refusal of overlaps. Books nothing."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import Session

from ..domain.booking_rules import MIN_LENGTH
from ..domain.conflicts import Booked, Interval, Slots, find_conflicts, max_end, next_free
from ..domain.times import rfc3339
from ..errors import Conflict
from ..models import Claim, Node, Reservation
from .calendar import BookedView, read_booked

# So many conflicts explain a refusal; a wish for weeks on a busy node has hundreds.
MAX_CONFLICTS = 50


class SlotTaken(Conflict):
    """What was wanted is booked.

    `conflicts`: by whom and when, the first MAX_CONFLICTS of them. `next_free`: the earliest
    start from which the same wish fits; None when there is none as far ahead as one may
    book, or when only an end was to change. `max_end`: the latest end for the start that was
    wanted; None when it is taken at that moment.
    """

    code = "slot-taken"
    title = "It is booked already"

    def __init__(
        self,
        conflicts: Sequence[BookedView],
        next_free: dt.datetime | None,
        max_end: dt.datetime | None,
    ) -> None:
        first = conflicts[0]
        super().__init__(
            f"{first.holder} has booked it from {rfc3339(first.starts)}"
            f" to {rfc3339(first.ends)}.",
            extra={
                "conflicts": [item.as_json() for item in conflicts],
                "next_free": None if next_free is None else rfc3339(next_free),
                "max_end": None if max_end is None else rfc3339(max_end),
            },
        )
        self.conflicts = tuple(conflicts)
        self.next_free = next_free
        self.max_end = max_end


@dataclass(frozen=True)
class Wish:
    """What somebody wants of a node, ready to be judged.

    `latest_start` bounds the advice: no booking is accepted that begins later. None: no
    advice on another start, since the reservation exists and only its end is to change.
    """

    slots: tuple[Slots, ...]
    interval: Interval
    latest_start: dt.datetime | None
    # The reservation that is to change: it is not in its own way.
    own_reservation: int | None = None


def lock_node(session: Session, name: str) -> Node | None:
    """Take the node's lock; None when there is no such node.

    Before anything of the node is read: on PostgreSQL it locks the node's row, so that
    whoever comes second sees what the first one booked. It also gives the node's calendar
    a new version. The order of locks is users, then nodes by id; a transaction that books
    on several nodes keeps to it.
    """
    return _lock(session, Node.name == name, Node.removed_at.is_(None))


def lock_node_of(session: Session, reservation_id: int) -> Node | None:
    """Take the lock of the reservation's node, as lock_node; None without a reservation."""
    node_id = select(Reservation.node_id).where(Reservation.id == reservation_id)
    return _lock(session, Node.id == node_id.scalar_subquery())


def _lock(session: Session, *which: ColumnElement[bool]) -> Node | None:
    locked = session.scalar(
        update(Node)
        .where(*which)
        .values(booking_seq=Node.booking_seq + 1)
        .returning(Node.id)
        .execution_options(synchronize_session=False)
    )
    return None if locked is None else session.get(Node, locked, populate_existing=True)


def refuse_overlap(session: Session, node: Node, wish: Wish) -> None:
    """Raise SlotTaken when the wish overlaps a booking. Call it behind the node's lock."""
    interval = wish.interval
    booked = _read_claims(session, node.id, wish, until=interval.ends)
    in_the_way = find_conflicts(wish.slots, interval, booked)
    if not in_the_way:
        return
    free_from = None
    if wish.latest_start is not None:
        # Only a refusal pays for reading all that is booked from then on.
        free_from = next_free(
            wish.slots,
            interval.ends - interval.starts,
            interval.starts,
            wish.latest_start,
            _read_claims(session, node.id, wish, until=None),
        )
    free_until = max_end(wish.slots, interval.starts, interval.ends, booked)
    if free_until is not None and free_until - interval.starts < MIN_LENGTH:
        free_until = None
    conflicts = read_booked(session, {item.reservation for item in in_the_way}, MAX_CONFLICTS)
    raise SlotTaken(conflicts, free_from, free_until)


def _read_claims(
    session: Session, node_id: int, wish: Wish, until: dt.datetime | None
) -> list[Booked]:
    """Return what is booked on the node between the wish's start and `until`.

    The index on (node_id, ends) leaves out all that is past.
    """
    query = select(
        Claim.reservation_id, Claim.slot_lo, Claim.slot_hi, Claim.starts, Claim.ends
    ).where(
        Claim.node_id == node_id,
        Claim.ends > wish.interval.starts,
        Claim.is_active.is_(True),
    )
    if until is not None:
        query = query.where(Claim.starts < until)
    if wish.own_reservation is not None:
        query = query.where(Claim.reservation_id != wish.own_reservation)
    return [
        Booked(reservation, Slots(lo, hi), Interval(starts, ends))
        for reservation, lo, hi, starts, ends in session.execute(query)
    ]
