"""How a reservation looks from outside. Changes nothing."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import Select, select
from sqlalchemy.orm import Session, joinedload, selectinload

from ..domain.booking_rules import State, state_at
from ..domain.conflicts import Interval
from ..models import Claim, Device, Kind, Reservation, SshKey


@dataclass(frozen=True)
class DeviceRef:
    """A device of a reservation, as the node last reported it."""

    uuid: str
    vendor: str
    index: int
    model: str
    is_present: bool


@dataclass(frozen=True)
class ReservationView:
    """A reservation at one moment. `devices` is empty for a whole node."""

    id: int
    node: str
    holder: str
    holder_display_name: str
    # Without a key of theirs in the system, the reservation lets nobody in.
    holder_has_key: bool
    kind: Kind
    state: State
    whole_node: bool
    devices: tuple[DeviceRef, ...]
    starts: dt.datetime
    ends: dt.datetime
    purpose: str
    created_at: dt.datetime
    released_at: dt.datetime | None
    is_cancelled: bool
    version: int

    @property
    def device_uuids(self) -> tuple[str, ...]:
        """The devices as a request names them."""
        return tuple(device.uuid for device in self.devices)


_JSON = TypeAdapter(ReservationView)


def to_json(view: ReservationView) -> dict[str, Any]:  # Any: JSON
    """Write a view down, to be read again by from_json."""
    written: dict[str, Any] = _JSON.dump_python(view, mode="json")
    return written


def from_json(written: dict[str, Any]) -> ReservationView:
    """Read what to_json wrote."""
    return _JSON.validate_python(written)


def with_details(query: Select[Reservation]) -> Select[Reservation]:
    """Load with the reservations what read_views needs of them."""
    return query.options(
        joinedload(Reservation.user),
        joinedload(Reservation.node),
        selectinload(Reservation.claims),
    )


def read_views(
    session: Session, reservations: Sequence[Reservation], now: dt.datetime
) -> list[ReservationView]:
    """Return how they look at `now`; two queries however many they are."""
    partial = {item.node_id for item in reservations if not item.whole_node}
    devices = read_devices(session, partial)
    with_key = _read_users_with_key(session, {item.user_id for item in reservations})
    return [
        ReservationView(
            id=item.id,
            node=item.node.name,
            holder=item.user.name,
            holder_display_name=item.user.display_name,
            holder_has_key=item.user_id in with_key,
            kind=Kind(item.kind),
            state=state_at(
                now, Interval(item.starts, item.ends), is_cancelled=item.is_cancelled
            ),
            whole_node=item.whole_node,
            devices=_devices_of(item, devices[item.node_id]),
            starts=item.starts,
            ends=item.ends,
            purpose=item.purpose,
            created_at=item.created_at,
            released_at=item.released_at,
            is_cancelled=item.is_cancelled,
            version=item.version,
        )
        for item in reservations
    ]


def read_devices(session: Session, node_ids: set[int]) -> dict[int, list[Device]]:
    """Return the devices of each node by slot, those that are absent now included."""
    found: dict[int, list[Device]] = defaultdict(list)
    if node_ids:
        for device in session.scalars(
            select(Device).where(Device.node_id.in_(node_ids)).order_by(Device.slot)
        ):
            found[device.node_id].append(device)
    return found


def covers(claim: Claim, device: Device) -> bool:
    """True when the device lies in the claim's slots."""
    return claim.slot_lo <= device.slot < claim.slot_hi


def _devices_of(item: Reservation, devices: Sequence[Device]) -> tuple[DeviceRef, ...]:
    if item.whole_node:
        return ()
    return tuple(
        DeviceRef(
            uuid=device.uuid,
            vendor=device.vendor,
            index=device.index,
            model=device.model,
            is_present=device.is_present,
        )
        for device in devices
        if any(covers(claim, device) for claim in item.claims)
    )


def _read_users_with_key(session: Session, user_ids: set[int]) -> set[int]:
    if not user_ids:
        return set()
    return set(
        session.scalars(select(SshKey.user_id).where(SshKey.user_id.in_(user_ids)).distinct())
    )
