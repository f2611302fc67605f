"""How a node looks from outside: state, devices, what runs on them. Changes nothing."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import select
from sqlalchemy.orm import Session

from ..domain.matrix import is_online
from ..models import Claim, Device, Kind, Mode, Node, Reservation, User

# As the alert NodeClockSkewed has it; heartbeats themselves take milliseconds.
CLOCK_OFF_S = 10
# The agent's problems begin with the name of its task.
_OF_LOCK = "enforce: "


class NodeState(StrEnum):
    """unregistered: no agent has ever registered. offline: its heartbeats stay away."""

    UNREGISTERED = "unregistered"
    ONLINE = "online"
    OFFLINE = "offline"


class DeviceState(StrEnum):
    """absent: the node no longer reports it; a reservation of it may still run."""

    FREE = "free"
    RESERVED = "reserved"
    MAINTENANCE = "maintenance"
    ABSENT = "absent"


@dataclass(frozen=True)
class RunningReservation:
    """A reservation that runs now."""

    id: int
    holder: str
    kind: Kind
    whole_node: bool
    starts: dt.datetime
    ends: dt.datetime


@dataclass(frozen=True)
class DeviceView:
    """A device, and the reservation that has it now."""

    slot: int
    uuid: str
    vendor: str
    index: int
    minor: int | None
    model: str
    bus_id: str
    memory_bytes: int | None
    state: DeviceState
    reservation: RunningReservation | None


@dataclass(frozen=True)
class TargetView:
    """Something Prometheus scrapes: "host:port"."""

    job: str
    address: str


@dataclass(frozen=True)
class NodeView:
    """A node. `mode` is what operators want, `agent_mode` what the agent says it does."""

    name: str
    state: NodeState
    address: str
    bmc_address: str
    cluster: str
    tags: tuple[str, ...]
    mode: Mode
    is_monitored: bool
    # False once the token is revoked, and before the first registration.
    has_agent: bool
    registered_at: dt.datetime | None
    heartbeat_at: dt.datetime | None
    agent_version: str
    agent_mode: str | None
    # Seconds that the server's clock is ahead of the node's, the way of the message included.
    clock_skew_s: float | None
    sessions: dict[str, int]
    problems: tuple[str, ...]
    policy_version: int
    # The version that the agent last said it holds.
    agent_policy_version: int | None
    # "locked", "open" or "partial"; None: the agent does not say.
    lock: str | None
    # Former holders whose processes outlived the limit of a handover.
    unclean: tuple[str, ...]
    # Since when it is known that two machines use its token.
    cloned_at: dt.datetime | None
    devices: tuple[DeviceView, ...]
    targets: tuple[TargetView, ...]
    running: tuple[RunningReservation, ...]

    @property
    def has_reported(self) -> bool:
        """Whether its agent has said anything yet; what is known of it is from then."""
        return self.heartbeat_at is not None

    @property
    def is_silent(self) -> bool:
        """Whether what its agent last said may be true no longer."""
        return self.state is not NodeState.ONLINE

    @property
    def is_lock_missing(self) -> bool:
        """Whether `enforce` is asked for and the lock is not known to be in place."""
        is_heard = self.registered_at is not None and self.has_reported
        return is_heard and self.mode is Mode.ENFORCE and self.lock != "locked"

    @property
    def clock_distance(self) -> dt.timedelta:
        """How far the clocks are apart, whichever is ahead."""
        return dt.timedelta(seconds=abs(self.clock_skew_s or 0))

    @property
    def is_clock_off(self) -> bool:
        """Whether the clocks are so far apart that it matters to bookings."""
        return self.clock_distance.total_seconds() >= CLOCK_OFF_S

    @property
    def would_end(self) -> tuple[str, ...]:
        """What the agent, which observes, says that it would do to those who are logged in."""
        return tuple(
            text.removeprefix(_OF_LOCK)
            for text in self.problems
            if text.startswith(f"{_OF_LOCK}would ")
        )

    @property
    def strangers(self) -> dict[str, int]:
        """Users with SSH sessions and without a running reservation, and their sessions.

        Also those whom the lock never touches: only the agent knows who they are.
        """
        holders = {reservation.holder for reservation in self.running}
        return {user: count for user, count in self.sessions.items() if user not in holders}


@dataclass(frozen=True)
class _Running:
    slot_lo: int
    slot_hi: int
    reservation: RunningReservation


def read_views(
    session: Session, nodes: Sequence[Node], now: dt.datetime, offline_after_s: float
) -> list[NodeView]:
    """Return the nodes as they are at `now`; one query however many nodes there are."""
    running = _read_running(session, [node.id for node in nodes], now)
    return [_node(node, running[node.id], now, offline_after_s) for node in nodes]


def _read_running(
    session: Session, node_ids: Sequence[int], now: dt.datetime
) -> dict[int, list[_Running]]:
    found: dict[int, list[_Running]] = defaultdict(list)
    query = (
        select(Claim, Reservation, User.name)
        .join(Reservation, Reservation.id == Claim.reservation_id)
        .join(User, User.id == Reservation.user_id)
        .where(Claim.is_active.is_(True), Claim.starts <= now, Claim.ends > now)
        .order_by(Claim.slot_lo)
    )
    # One node is looked up by index; for many, what runs now is the smaller set.
    if len(node_ids) == 1:
        query = query.where(Claim.node_id == node_ids[0])
    for claim, reservation, holder in session.execute(query):
        found[claim.node_id].append(
            _Running(
                slot_lo=claim.slot_lo,
                slot_hi=claim.slot_hi,
                reservation=RunningReservation(
                    id=reservation.id,
                    holder=holder,
                    kind=Kind(reservation.kind),
                    whole_node=reservation.whole_node,
                    starts=reservation.starts,
                    ends=reservation.ends,
                ),
            )
        )
    return found


def _node(
    node: Node, running: Sequence[_Running], now: dt.datetime, offline_after_s: float
) -> NodeView:
    report = node.agent_report or {}
    return NodeView(
        name=node.name,
        state=_state(node, now, offline_after_s),
        address=node.address,
        bmc_address=node.bmc_address,
        cluster=node.cluster,
        tags=tuple(node.tags),
        mode=Mode(node.mode),
        is_monitored=node.is_monitored,
        has_agent=node.token_hash is not None,
        registered_at=node.registered_at,
        heartbeat_at=node.heartbeat_at,
        agent_version=node.agent_version,
        agent_mode=report.get("mode"),
        clock_skew_s=report.get("clock_skew_s"),
        sessions=dict(report.get("sessions", {})),
        problems=tuple(report.get("problems", ())),
        policy_version=node.policy_version,
        agent_policy_version=report.get("policy_version"),
        lock=report.get("lock"),
        unclean=tuple(report.get("unclean") or ()),
        cloned_at=node.cloned_at,
        devices=tuple(_device(device, running) for device in node.devices),
        targets=tuple(TargetView(target.job, target.address) for target in node.targets),
        # A reservation of several cards has several claims.
        running=tuple({item.reservation.id: item.reservation for item in running}.values()),
    )


def _state(node: Node, now: dt.datetime, offline_after_s: float) -> NodeState:
    if node.registered_at is None:
        return NodeState.UNREGISTERED
    if is_online(node.heartbeat_at, now, offline_after_s):
        return NodeState.ONLINE
    return NodeState.OFFLINE


def _device(device: Device, running: Sequence[_Running]) -> DeviceView:
    held = next(
        (item.reservation for item in running if item.slot_lo <= device.slot < item.slot_hi),
        None,
    )
    return DeviceView(
        slot=device.slot,
        uuid=device.uuid,
        vendor=device.vendor,
        index=device.index,
        minor=device.minor,
        model=device.model,
        bus_id=device.bus_id,
        memory_bytes=device.memory_bytes,
        state=_device_state(device, held),
        reservation=held,
    )


def _device_state(device: Device, held: RunningReservation | None) -> DeviceState:
    if not device.is_present:
        return DeviceState.ABSENT
    if held is None:
        return DeviceState.FREE
    if held.kind == Kind.MAINTENANCE:
        return DeviceState.MAINTENANCE
    return DeviceState.RESERVED
