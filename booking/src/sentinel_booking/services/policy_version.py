"""Bumps the policy versions, in the transaction that changes what the policies say.

It builds no policy: that is policy.py's job.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from ..models import Node, Reservation, utc_now


def bump_policy(session: Session, node_ids: Iterable[int]) -> None:
    """Raise the policy version of these nodes; in id order, as every lock of nodes is."""
    for node_id in sorted(set(node_ids)):
        session.execute(
            update(Node)
            .where(Node.id == node_id)
            .values(policy_version=Node.policy_version + 1)
            .execution_options(synchronize_session=False)
        )


def bump_policy_of_user(session: Session, user_id: int) -> None:
    """Raise it on every node where the user holds a reservation that has not ended."""
    bump_policy(
        session,
        session.scalars(
            select(Reservation.node_id)
            .where(
                Reservation.user_id == user_id,
                Reservation.ends > utc_now(),
                Reservation.is_cancelled.is_(False),
            )
            .distinct()
        ).all(),
    )
