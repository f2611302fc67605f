"""A node's policy, built from its reservations. policy_watch.py waits for its changes."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable

from sqlalchemy import select
from sqlalchemy.orm import Session, joinedload, selectinload

from ..domain.policy import Holding, Policy, PolicyDevice, build_policy
from ..errors import NotSignedIn
from ..models import Claim, Device, Node, Reservation, SshKey, User, db, utc_now


def read_policy_version(node_id: int) -> int:
    """Return the version of the node's policy. Raises NotSignedIn when it was removed."""
    version = db.session.scalar(
        select(Node.policy_version).where(Node.id == node_id, Node.removed_at.is_(None))
    )
    if version is None:
        raise NotSignedIn("The node was removed.")
    return version


def release_connection() -> None:
    """Give the request's database connection back, for as long as it waits."""
    db.session.remove()


def read_policy(node_id: int, horizon: dt.timedelta) -> Policy:
    """Return the node's policy now; `horizon` is how far ahead it reaches.

    Maintenance grants its holder access as any reservation does: somebody has to get in
    to do it. Who: the node's agent. Raises NotSignedIn when the node was removed.
    """
    session: Session = db.session()
    # The version is read first: a change that is committed during this function is then
    # in the answer with the older version, and the agent asks again. The other way round
    # it would keep what is outdated.
    session.rollback()
    node = session.scalar(select(Node).where(Node.id == node_id, Node.removed_at.is_(None)))
    if node is None:
        raise NotSignedIn("The node was removed.")
    version, now = node.policy_version, utc_now()
    devices = session.scalars(
        select(Device).where(Device.node_id == node_id).order_by(Device.slot)
    ).all()
    reservations = session.scalars(
        select(Reservation)
        .where(
            Reservation.node_id == node_id,
            Reservation.is_cancelled.is_(False),
            Reservation.ends > now,
            Reservation.starts < now + horizon,
        )
        .options(joinedload(Reservation.user), selectinload(Reservation.claims))
    ).all()
    keys = _read_keys(session, {reservation.user_id for reservation in reservations})
    return build_policy(
        node=node.name,
        version=version,
        mode=str(node.mode),
        now=now,
        horizon=horizon,
        vendors={device.vendor for device in devices},
        holdings=[
            _holding(reservation, reservation.user, keys[reservation.user_id], devices)
            for reservation in reservations
        ],
    )


def _holding(
    reservation: Reservation, user: User, keys: Iterable[str], devices: Iterable[Device]
) -> Holding:
    claims = [claim for claim in reservation.claims if claim.is_active]
    return Holding(
        reservation=reservation.id,
        user=user.name,
        role=str(user.role),
        is_active_user=user.is_active,
        keys=tuple(keys),
        starts=reservation.starts,
        ends=reservation.ends,
        whole_node=reservation.whole_node,
        devices=tuple(
            PolicyDevice(device.vendor, device.uuid, device.index, device.minor)
            for device in devices
            # The numbers of one that is absent may be another device's by now.
            if device.is_present and _is_claimed(device.slot, claims)
        ),
    )


def _is_claimed(slot: int, claims: Iterable[Claim]) -> bool:
    return any(claim.slot_lo <= slot < claim.slot_hi for claim in claims)


def _read_keys(session: Session, user_ids: Iterable[int]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = defaultdict(list)
    for key in session.scalars(
        select(SshKey).where(SshKey.user_id.in_(list(user_ids))).order_by(SshKey.id)
    ):
        found[key.user_id].append(key.public_key)
    return found
