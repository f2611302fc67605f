"""Writes the demo's bookings that began in the past, which the interface rightly refuses."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from sqlalchemy import func, select

from script.demo_lab.bookings import Plan
from sentinel_booking.app import create_app
from sentinel_booking.config import load_config
from sentinel_booking.models import SLOT_END, Claim, Node, Reservation, User, db, write
from sentinel_booking.services.policy_version import bump_policy


def write_history(config_path: Path, plans: list[Plan]) -> int:
    """Insert the plans, which must be sorted by end; return how many were new.

    A node that has reservations already is left as it is.
    """
    app = create_app(load_config(config_path))
    with app.app_context(), write() as session:
        nodes = {
            node.name: node
            for node in session.scalars(select(Node).where(Node.removed_at.is_(None)))
        }
        users = {user.name: user.id for user in session.scalars(select(User))}
        counts = dict(
            session.execute(
                select(Reservation.node_id, func.count()).group_by(Reservation.node_id)
            ).all()
        )
        inserted = [
            _insert(nodes[plan.node], users[plan.user], plan)
            for plan in plans
            if not counts.get(nodes[plan.node].id)
        ]
        bump_policy(session, {node.id for node in nodes.values()})
        db.session.flush()
    return len(inserted)


def _insert(node: Node, user_id: int, plan: Plan) -> Reservation:
    slots = {device.index: device.slot for device in node.devices}
    spans = (
        [(0, SLOT_END)]
        if plan.cards is None
        else [(slots[card], slots[card] + 1) for card in plan.cards]
    )
    reservation = Reservation(
        user_id=user_id,
        node_id=node.id,
        whole_node=plan.cards is None,
        starts=plan.starts,
        ends=plan.ends,
        purpose=plan.purpose,
        created_at=plan.starts - dt.timedelta(hours=2),
        claims=[
            Claim(
                node_id=node.id, slot_lo=low, slot_hi=high, starts=plan.starts, ends=plan.ends
            )
            for low, high in spans
        ],
    )
    db.session.add(reservation)
    return reservation
