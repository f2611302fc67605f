"""What every change of a reservation brings with it: audit entry and policy version."""

from __future__ import annotations

import datetime as dt

from sqlalchemy.orm import Session

from ..domain.times import rfc3339
from ..models import Reservation
from .audit import Actor, record
from .policy_version import bump_policy
from .reservation_view import ReservationView, read_views


def note_change(
    session: Session,
    actor: Actor,
    item: Reservation,
    now: dt.datetime,
    *,
    action: str,
    before: ReservationView | None,
) -> ReservationView:
    """Record the change, let the node's agent know, and return what it has become."""
    session.flush()
    view = read_views(session, [item], now)[0]
    bump_policy(session, [item.node_id])
    record(
        session,
        actor,
        action,
        "reservation",
        item.id,
        before=None if before is None else _public(before),
        after=_public(view),
    )
    return view


def _public(view: ReservationView) -> dict[str, object]:
    released = view.released_at
    return {
        "node": view.node,
        "holder": view.holder,
        "kind": str(view.kind),
        "whole_node": view.whole_node,
        "devices": list(view.device_uuids),
        "starts": rfc3339(view.starts),
        "ends": rfc3339(view.ends),
        "purpose": view.purpose,
        "released_at": None if released is None else rfc3339(released),
        "is_cancelled": view.is_cancelled,
    }
