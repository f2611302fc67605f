"""What is booked on a node, as a calendar shows it. Changes nothing."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session, joinedload

from ..domain.conflicts import Interval
from ..domain.times import rfc3339
from ..errors import InvalidInput, NotFound
from ..models import Claim, Kind, Node, Reservation, db
from .reservation_view import covers, read_devices

MAX_LENGTH = dt.timedelta(days=366)


@dataclass(frozen=True)
class BookedView:
    """A reservation in a calendar. `devices`: UUIDs; none for a whole node.

    Nothing in it changes with time or with the devices' numbers, so that a calendar's ETag
    can be the count of the node's bookings.
    """

    reservation: int
    holder: str
    kind: Kind
    starts: dt.datetime
    ends: dt.datetime
    whole_node: bool
    devices: tuple[str, ...]
    purpose: str

    def as_json(self) -> dict[str, object]:
        """As a refusal shows it."""
        return {
            "reservation": self.reservation,
            "holder": self.holder,
            "kind": str(self.kind),
            "starts": rfc3339(self.starts),
            "ends": rfc3339(self.ends),
            "whole_node": self.whole_node,
            "devices": list(self.devices),
            "purpose": self.purpose,
        }


@dataclass(frozen=True)
class Calendar:
    """The node's bookings that overlap [starts, ends), by start.

    `version` rises with every change of the node's bookings. `bookings` is None when the
    caller knows this version already.
    """

    node: str
    version: int
    starts: dt.datetime
    ends: dt.datetime
    bookings: tuple[BookedView, ...] | None


def get_calendar(
    node: str, interval: Interval, known_versions: Collection[int] = ()
) -> Calendar:
    """Return what is booked in the interval. Who: anybody signed in.

    Raises NotFound, and InvalidInput when the interval is empty or longer than a year.
    """
    if interval.ends <= interval.starts:
        raise InvalidInput.field("to", "must lie behind 'from'")
    if interval.ends - interval.starts > MAX_LENGTH:
        raise InvalidInput.field("to", f"at most {MAX_LENGTH.days} days behind 'from'")
    session = db.session()
    # The version before the bookings: what changes in between is newer than its version
    # says, and is read again; the other way round it would never be.
    row = session.execute(
        select(Node.id, Node.booking_seq).where(Node.name == node, Node.removed_at.is_(None))
    ).one_or_none()
    if row is None:
        raise NotFound(f"There is no node {node}.")
    bookings = None
    if row.booking_seq not in known_versions:
        ids = session.scalars(
            select(Claim.reservation_id)
            .where(
                Claim.node_id == row.id,
                Claim.ends > interval.starts,
                Claim.starts < interval.ends,
                Claim.starts < Claim.ends,
                Claim.is_active.is_(True),
            )
            .distinct()
        ).all()
        bookings = tuple(read_booked(session, ids))
    return Calendar(node, row.booking_seq, interval.starts, interval.ends, bookings)


def read_booked(
    session: Session, reservation_ids: Collection[int], limit: int | None = None
) -> list[BookedView]:
    """Return these reservations by start, the first `limit` of them."""
    reservations = session.scalars(
        select(Reservation)
        .where(Reservation.id.in_(reservation_ids))
        .options(joinedload(Reservation.user), joinedload(Reservation.claims))
        .order_by(Reservation.starts, Reservation.id)
    ).unique()
    chosen = reservations.all()[:limit]
    devices = read_devices(session, {item.node_id for item in chosen if not item.whole_node})
    return [
        BookedView(
            reservation=item.id,
            holder=item.user.name,
            kind=Kind(item.kind),
            starts=item.starts,
            ends=item.ends,
            whole_node=item.whole_node,
            devices=tuple(
                device.uuid
                for device in devices[item.node_id]
                if not item.whole_node and any(covers(claim, device) for claim in item.claims)
            ),
            purpose=item.purpose,
        )
        for item in chosen
    ]
