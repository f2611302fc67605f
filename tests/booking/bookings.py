"""Nodes and people for the tests of bookings, and what must hold whatever happened."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from apiflask import APIFlask
from sqlalchemy import and_, select
from sqlalchemy.orm import aliased

from sentinel_booking.models import (
    SLOT_END,
    Claim,
    Device,
    Node,
    Reservation,
    Role,
    User,
    db,
    utc_now,
    write,
)
from sentinel_booking.services.audit import Actor
from tests.booking.people import add_user

HOUR = dt.timedelta(hours=1)


def add_node(app: APIFlask, name: str = "n1", devices: int = 4) -> list[str]:
    """Add a node with so many devices; returns their UUIDs by slot."""
    uuids = [f"GPU-{name}-{slot}" for slot in range(devices)]
    with app.app_context(), write() as session:
        node = Node(name=name, next_slot=devices)
        node.devices = [
            Device(slot=slot, uuid=uuid, vendor="nvidia", index=slot, minor=slot, model="H20")
            for slot, uuid in enumerate(uuids)
        ]
        session.add(node)
    return uuids


def add_actor(app: APIFlask, name: str, role: Role = Role.USER) -> Actor:
    """Add somebody, and return them as the services see them."""
    return Actor(kind="user", name=name, user_id=add_user(app, name, role), role=role)


# Fixed once: two calls in one test mean the same day, also over a full minute.
_TOMORROW = utc_now().replace(second=0, microsecond=0) + dt.timedelta(days=1)


def soon(hours: float = 0) -> dt.datetime:
    """A full minute tomorrow, so many hours on."""
    return _TOMORROW + hours * HOUR


def add_reservation(
    app: APIFlask,
    holder: Actor,
    starts: dt.datetime,
    ends: dt.datetime,
    *,
    slots: Sequence[int] | None = None,
    node: str = "n1",
) -> int:
    """Put a reservation into the database as it stands: also one that began long ago.

    `slots` None: the whole node. The database's own net judges it all the same.
    """
    ranges = [(0, SLOT_END)] if slots is None else [(slot, slot + 1) for slot in slots]
    with app.app_context(), write() as session:
        item = Reservation(
            user_id=holder.user_id,
            node=session.scalars(select(Node).where(Node.name == node)).one(),
            whole_node=slots is None,
            starts=starts,
            ends=ends,
        )
        session.add(item)
        session.flush()
        session.add_all(
            Claim(
                reservation_id=item.id,
                node_id=item.node_id,
                slot_lo=lo,
                slot_hi=hi,
                starts=starts,
                ends=ends,
            )
            for lo, hi in ranges
        )
        return item.id


def broken_invariants() -> list[str]:
    """Return what no sequence of events may lead to; needs an app context.

    Two active claims never share a slot and a moment; a reservation that was not cancelled
    has claims over exactly its interval, a cancelled one has none that is active; every one
    belongs to somebody and somewhere.
    """
    session = db.session()
    session.rollback()
    one, other = aliased(Claim), aliased(Claim)
    overlaps = session.execute(
        select(one.id, other.id).join(
            other,
            and_(
                one.id < other.id,
                one.node_id == other.node_id,
                one.is_active.is_(True),
                other.is_active.is_(True),
                one.slot_lo < other.slot_hi,
                other.slot_lo < one.slot_hi,
                one.starts < other.ends,
                other.starts < one.ends,
                one.starts < one.ends,
                other.starts < other.ends,
            ),
        )
    )
    broken = [f"claims {a} and {b} overlap" for a, b in overlaps]
    for item in session.scalars(select(Reservation)):
        if session.get(User, item.user_id) is None or session.get(Node, item.node_id) is None:
            broken.append(f"reservation {item.id} hangs in the air")
        if not item.claims:
            broken.append(f"reservation {item.id} has no claims")
        for claim in item.claims:
            if claim.is_active == item.is_cancelled:
                broken.append(f"claim {claim.id} is active: {claim.is_active}")
            if (claim.node_id, claim.starts, claim.ends) != (
                item.node_id,
                item.starts,
                item.ends,
            ):
                broken.append(f"claim {claim.id} differs from reservation {item.id}")
    return broken
