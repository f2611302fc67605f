"""What booking's database says in numbers, for /metrics. It knows nothing of Prometheus."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ..models import Claim, Device, Node, Reservation, Role, User, db, utc_now


@dataclass(frozen=True)
class NodeGauges:
    """One node; ages and skews in seconds, None where the agent did not say it."""

    name: str
    cluster: str
    mode: str
    address: str
    is_monitored: bool
    heartbeat_age_s: float | None
    clock_skew_s: float | None
    is_locked: bool | None
    unclean_holders: int | None
    # None: no agent is registered.
    is_cloned: bool | None


@dataclass(frozen=True)
class HeldDevice:
    """A device that a reservation holds now."""

    node: str
    uuid: str
    user: str
    reservation: int


@dataclass(frozen=True)
class HeldNode:
    """A node that a reservation holds as a whole now."""

    node: str
    user: str
    reservation: int


@dataclass(frozen=True)
class Gauges:
    """Everything at one moment. `devices` counts those present, by node and vendor."""

    nodes: list[NodeGauges]
    devices: dict[tuple[str, str], int]
    held_devices: list[HeldDevice]
    held_nodes: list[HeldNode]
    users: dict[str, int]
    reservations_running: int


def read_gauges() -> Gauges:
    """Read all of it. Raises SQLAlchemyError when the database fails."""
    session: Session = db.session()
    nodes = session.scalars(select(Node).where(Node.removed_at.is_(None))).all()
    devices = session.scalars(
        select(Device).join(Node, Node.id == Device.node_id).where(Node.removed_at.is_(None))
    ).all()
    names = {node.id: node.name for node in nodes}
    counts: dict[tuple[str, str], int] = {}
    for device in devices:
        key = (names[device.node_id], device.vendor)
        # A vendor of whose devices none is left counts 0: that is a reading.
        counts[key] = counts.get(key, 0) + int(device.is_present)
    held_devices, held_nodes, running = _read_held(session, names, devices)
    return Gauges(
        nodes=[_node(node) for node in nodes],
        devices=counts,
        held_devices=held_devices,
        held_nodes=held_nodes,
        users=_read_users(session),
        reservations_running=running,
    )


def _node(node: Node) -> NodeGauges:
    report = node.agent_report or {}
    age_s = None
    if node.heartbeat_at is not None:
        age_s = (utc_now() - node.heartbeat_at).total_seconds()
    return NodeGauges(
        name=node.name,
        cluster=node.cluster,
        mode=str(node.mode),
        address=node.address,
        # A node whose agent has never registered cannot be missed yet.
        is_monitored=node.is_monitored and node.registered_at is not None,
        heartbeat_age_s=age_s,
        clock_skew_s=report.get("clock_skew_s"),
        is_locked=None if (lock := report.get("lock")) is None else lock == "locked",
        unclean_holders=None if (unclean := report.get("unclean")) is None else len(unclean),
        is_cloned=None if node.registered_at is None else node.cloned_at is not None,
    )


def _read_held(
    session: Session, names: dict[int, str], devices: Iterable[Device]
) -> tuple[list[HeldDevice], list[HeldNode], int]:
    now = utc_now()
    of_node: dict[int, list[Device]] = {}
    for device in devices:
        of_node.setdefault(device.node_id, []).append(device)
    held_devices: list[HeldDevice] = []
    held_nodes: list[HeldNode] = []
    running = set()
    rows = session.execute(
        select(
            Claim.node_id,
            Claim.slot_lo,
            Claim.slot_hi,
            Reservation.id,
            Reservation.whole_node,
            User.name,
        )
        .join(Reservation, Reservation.id == Claim.reservation_id)
        .join(User, User.id == Reservation.user_id)
        .where(Claim.is_active.is_(True), Claim.starts <= now, Claim.ends > now)
    )
    for row in rows:
        node = names.get(row.node_id)
        if node is None:
            continue
        running.add(row.id)
        if row.whole_node:
            held_nodes.append(HeldNode(node, row.name, row.id))
        held_devices += [
            HeldDevice(node, device.uuid, row.name, row.id)
            for device in of_node.get(row.node_id, ())
            # A card that was booked stays booked when it vanishes; one that vanished
            # before is no part of a whole node.
            if row.slot_lo <= device.slot < row.slot_hi
            and (device.is_present or not row.whole_node)
        ]
    return held_devices, held_nodes, len(running)


def _read_users(session: Session) -> dict[str, int]:
    counts = dict.fromkeys((str(role) for role in Role), 0)
    for role, count in session.execute(
        select(User.role, func.count()).where(User.is_active.is_(True)).group_by(User.role)
    ):
        counts[str(role)] = count
    return counts
