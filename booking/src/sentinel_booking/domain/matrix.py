"""What one cell of the resource matrix says. No IO, and no words: the pages write those."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class CellState(StrEnum):
    """What a person sees at a glance. Offline wins: nobody can work there now."""

    FREE = "free"
    BUSY = "busy"
    MINE = "mine"
    OFFLINE = "offline"


@dataclass(frozen=True)
class Booked:
    """One active claim: slots [slot_lo, slot_hi), time [starts, ends)."""

    slot_lo: int
    slot_hi: int
    starts: dt.datetime
    ends: dt.datetime
    holder: str
    reservation_id: int
    whole_node: bool
    is_maintenance: bool
    purpose: str = ""

    def covers(self, slot: int) -> bool:
        """Say whether this claim takes the device with that slot."""
        return self.slot_lo <= slot < self.slot_hi


@dataclass(frozen=True)
class Occupancy:
    """What holds one device now, and what comes next on it."""

    state: CellState
    now: Booked | None
    next: Booked | None


def is_online(
    heartbeat_at: dt.datetime | None, now: dt.datetime, offline_after_s: float
) -> bool:
    """Say whether the node's agent was heard within `offline_after_s` seconds."""
    return heartbeat_at is not None and (now - heartbeat_at).total_seconds() <= offline_after_s


def occupancy(
    slot: int | None, booked: Iterable[Booked], *, viewer: str, online: bool, now: dt.datetime
) -> Occupancy:
    """Return what the device with that slot shows to `viewer`.

    `slot` None stands for the whole node, which every claim on it concerns. Of several
    claims that run now (cards of a whole node) the viewer's own comes first, then the
    longest.
    """
    mine = [one for one in booked if slot is None or one.covers(slot)]
    running = sorted(
        (one for one in mine if one.starts <= now < one.ends),
        key=lambda one: (one.holder != viewer, -one.ends.timestamp()),
    )
    coming = sorted((one for one in mine if one.starts > now), key=lambda one: one.starts)
    current = running[0] if running else None
    return Occupancy(
        state=_state(current, viewer, online),
        now=current,
        next=coming[0] if coming else None,
    )


def _state(current: Booked | None, viewer: str, online: bool) -> CellState:
    if not online:
        return CellState.OFFLINE
    if current is None:
        return CellState.FREE
    if current.holder == viewer and not current.is_maintenance:
        return CellState.MINE
    return CellState.BUSY
