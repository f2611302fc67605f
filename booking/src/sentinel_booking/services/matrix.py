"""The resource matrix: every node with what holds its devices. Reads only."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sqlalchemy import select
from sqlalchemy.orm import selectinload

from ..domain.matrix import Booked, CellState, Occupancy, is_online, occupancy
from ..models import Alert, Claim, Device, Kind, Node, Reservation, User, db, utc_now

# Alerts of alert_rules/accelerators.yml about a device that is not fit for work.
UNFIT = frozenset(
    {
        "AcceleratorMemoryErrors",
        "AcceleratorOverheating",
        "AcceleratorRowRemapFailed",
        "AcceleratorUnhealthy",
        "AcceleratorXidErrors",
    }
)


@dataclass(frozen=True)
class Firing:
    """The alerts that fire for a node: how many, and what is wrong with which device (uuid)."""

    count: int = 0
    troubles: Mapping[str, str] = field(default_factory=dict)


NOTHING_FIRES = Firing()


@dataclass(frozen=True)
class Cell:
    """One device, or a CPU-only node as a whole: then `device` is None.

    `trouble`: what fires for the device now and makes it unfit for work; empty: nothing.
    """

    device: Device | None
    shows: Occupancy
    trouble: str = ""


@dataclass(frozen=True)
class Row:
    """One node. `firing` counts the alerts that fire for it now."""

    node: Node
    is_online: bool
    firing: int
    cells: list[Cell]
    whole: Occupancy

    @property
    def free(self) -> int:
        """How many cells can be booked now."""
        return sum(cell.shows.state == CellState.FREE for cell in self.cells)

    @property
    def models(self) -> list[tuple[str, int]]:
        """The devices' models, each with how many there are, in slot order."""
        counts: dict[str, int] = {}
        for cell in self.cells:
            if cell.device is not None:
                counts[cell.device.model] = counts.get(cell.device.model, 0) + 1
        return list(counts.items())

    def shown(self) -> tuple[object, ...]:
        """Everything that a page shows of the row."""
        node = self.node
        return (
            (node.name, node.cluster, node.tags, self.models, self.firing),
            # While it is online, its heartbeats are not shown.
            None if self.is_online else node.heartbeat_at,
            [(cell.device and (cell.device.uuid, cell.device.index), cell.shows, cell.trouble)
             for cell in self.cells],
        )  # fmt: skip


@dataclass(frozen=True)
class Matrix:
    """The rows that the filters leave, by cluster, and what there is to filter by."""

    clusters: list[tuple[str, list[Row]]]
    all_clusters: list[str]
    all_tags: list[str]
    counts: dict[CellState, int]

    @property
    def fingerprint(self) -> str:
        """Changes with anything that is shown: the page polls, and this is cheaper to make
        than the page."""
        shown = [[row.shown() for row in rows] for _cluster, rows in self.clusters]
        return hashlib.sha256(repr(shown).encode()).hexdigest()[:16]


def read_matrix(
    viewer: str,
    offline_after_s: float,
    *,
    cluster: str | None = None,
    tag: str | None = None,
    only_free: bool = False,
) -> Matrix:
    """Return the matrix as `viewer` (a user's name) sees it now.

    `cluster` "" means the nodes without one, None all. The counts are those of the rows
    that are shown. Four queries, however many nodes there are.
    """
    now = utc_now()
    nodes = db.session.scalars(
        select(Node)
        .where(Node.removed_at.is_(None))
        .options(selectinload(Node.devices))
        .order_by(Node.cluster, Node.name)
    ).all()
    booked = read_booked(now)
    firing = _firing_alerts()
    look = _Look(viewer=viewer, offline_after_s=offline_after_s, now=now)
    rows = [
        look.row(node, booked.get(node.id, []), firing.get(node.name, NOTHING_FIRES))
        for node in nodes
    ]
    shown = [
        row
        for row in rows
        if (cluster is None or row.node.cluster == cluster)
        and (tag is None or tag in row.node.tags)
        and (not only_free or row.free)
    ]
    grouped: dict[str, list[Row]] = {}
    for row in shown:
        grouped.setdefault(row.node.cluster, []).append(row)
    counts = dict.fromkeys(CellState, 0)
    for row in shown:
        for cell in row.cells:
            counts[cell.shows.state] += 1
    return Matrix(
        # Nodes without a cluster come last: the empty name would sort first.
        clusters=sorted(grouped.items(), key=lambda item: (not item[0], item[0])),
        all_clusters=sorted({node.cluster for node in nodes}),
        all_tags=sorted({tag for node in nodes for tag in node.tags}),
        counts=counts,
    )


def read_row(node: Node, viewer: str, offline_after_s: float) -> Row:
    """Return one node as the matrix shows it."""
    look = _Look(viewer=viewer, offline_after_s=offline_after_s, now=utc_now())
    booked = read_booked(look.now, [node.id]).get(node.id, [])
    return look.row(node, booked, _firing_alerts().get(node.name, NOTHING_FIRES))


def read_booked(
    after: dt.datetime, node_ids: Iterable[int] | None = None
) -> dict[int, list[Booked]]:
    """Return the active claims that end after that time, by node id, in order of start."""
    query = (
        select(
            Claim.node_id,
            Claim.slot_lo,
            Claim.slot_hi,
            Claim.starts,
            Claim.ends,
            User.name,
            Reservation.id,
            Reservation.whole_node,
            Reservation.kind,
            Reservation.purpose,
        )
        .join(Reservation, Reservation.id == Claim.reservation_id)
        .join(User, User.id == Reservation.user_id)
        .where(Claim.is_active.is_(True), Claim.ends > after)
        .order_by(Claim.starts, Claim.id)
    )
    if node_ids is not None:
        query = query.where(Claim.node_id.in_(list(node_ids)))
    found: dict[int, list[Booked]] = defaultdict(list)
    for row in db.session.execute(query):
        found[row.node_id].append(
            Booked(
                slot_lo=row.slot_lo,
                slot_hi=row.slot_hi,
                starts=row.starts,
                ends=row.ends,
                holder=row.name,
                reservation_id=row.id,
                whole_node=row.whole_node,
                is_maintenance=row.kind == Kind.MAINTENANCE,
                purpose=row.purpose,
            )
        )
    return dict(found)


@dataclass(frozen=True)
class _Look:
    """Who looks, and when."""

    viewer: str
    offline_after_s: float
    now: dt.datetime

    def row(self, node: Node, booked: list[Booked], firing: Firing) -> Row:
        online = is_online(node.heartbeat_at, self.now, self.offline_after_s)

        def shows(slot: int | None) -> Occupancy:
            return occupancy(slot, booked, viewer=self.viewer, online=online, now=self.now)

        devices = [device for device in node.devices if device.is_present]
        whole = shows(None)
        cells = [
            Cell(device, shows(device.slot), firing.troubles.get(device.uuid, ""))
            for device in devices
        ]
        return Row(
            node=node,
            is_online=online,
            firing=firing.count,
            cells=cells or [Cell(None, whole)],
            whole=whole,
        )


def _firing_alerts() -> dict[str, Firing]:
    found: dict[str, Firing] = {}
    for row in db.session.execute(
        select(Alert.node, Alert.name, Alert.labels, Alert.annotations)
        .where(Alert.ends_at.is_(None), Alert.node != "")
        .order_by(Alert.starts_at, Alert.id)
    ):
        before = found.get(row.node, NOTHING_FIRES)
        troubles = dict(before.troubles)
        if row.name in UNFIT and "uuid" in row.labels:
            troubles[row.labels["uuid"]] = row.annotations.get("summary") or row.name
        found[row.node] = Firing(before.count + 1, troubles)
    return found
