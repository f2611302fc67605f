"""What an agent reports of its node: devices and scrape targets. Reserves, grants nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from ..domain.inventory import ReportedDevice, ReportedTarget, check_devices, check_targets
from ..domain.targets import join_host_port
from ..errors import InvalidInput, NotSignedIn
from ..models import Device, Node, Target, write
from .audit import Actor, record
from .policy_version import bump_policy


@dataclass(frozen=True)
class SlottedDevice:
    """A device as it was reported, with the slot that it has for good."""

    device: ReportedDevice
    slot: int


def report_inventory(
    actor: Actor,
    node_id: int,
    devices: Sequence[ReportedDevice],
    targets: Sequence[ReportedTarget],
) -> list[SlottedDevice]:
    """Make the node's devices and targets those of the report, which is the whole truth.

    A device that was never seen gets the next slot; one that is gone stays, marked absent,
    and has the same slot when it comes back. The policy's version rises only when a
    device came, went or changed its number. Who: the node's agent.
    Raises InvalidInput, with every problem, when the report contradicts itself.
    """
    problems = [*check_devices(devices), *check_targets(targets)]
    if problems:
        raise InvalidInput("The inventory contradicts itself.", fields=problems)
    with write() as session:
        node = _lock(session, node_id)
        devices_before, targets_before = _devices_of(node), _targets_of(node)
        if _apply_devices(node, devices):
            bump_policy(session, [node.id])
        _apply_targets(node, targets)
        session.flush()
        devices_after, targets_after = _devices_of(node), _targets_of(node)
        if (devices_before, targets_before) != (devices_after, targets_after):
            record(
                session,
                actor,
                "node.inventory",
                "node",
                node.name,
                before={"devices": devices_before, "targets": targets_before},
                after={"devices": devices_after, "targets": targets_after},
            )
        slots = {device.uuid: device.slot for device in node.devices}
    return [SlottedDevice(device, slots[device.uuid]) for device in devices]


def _lock(session: Session, node_id: int) -> Node:
    # On SQLite the write transaction is the lock; on PostgreSQL the row is.
    node = session.get(Node, node_id, with_for_update=True)
    if node is None or node.removed_at is not None:
        raise NotSignedIn("The node was removed.")
    return node


def _apply_devices(node: Node, reported: Sequence[ReportedDevice]) -> bool:
    """Return whether anything changed that the node's policy says."""
    known = {device.uuid: device for device in node.devices}
    listed = {device.uuid for device in reported}
    changed = False
    for device in known.values():
        if device.is_present and device.uuid not in listed:
            device.is_present = False
            changed = True
    for report in reported:
        row = known.get(report.uuid)
        if row is None:
            row = Device(uuid=report.uuid, slot=node.next_slot, is_present=False)
            node.next_slot += 1
            node.devices.append(row)
        elif row.is_present and (row.vendor, row.index, row.minor) == report.granted_by:
            _describe(row, report)
            continue
        row.vendor, row.index, row.minor = report.granted_by
        row.is_present = True
        _describe(row, report)
        changed = True
    return changed


def _describe(row: Device, report: ReportedDevice) -> None:
    row.model = report.model
    row.bus_id = report.bus_id
    row.memory_bytes = report.memory_bytes


def _apply_targets(node: Node, reported: Sequence[ReportedTarget]) -> None:
    wanted = {item.job: join_host_port(node.address, item.port) for item in reported}
    for target in list(node.targets):
        address = wanted.pop(target.job, None)
        if address is None:
            node.targets.remove(target)
        else:
            target.address = address
    node.targets.extend(Target(job=job, address=address) for job, address in wanted.items())


def _devices_of(node: Node) -> list[dict[str, object]]:
    return [
        {
            "slot": device.slot,
            "uuid": device.uuid,
            "vendor": device.vendor,
            "index": device.index,
            "minor": device.minor,
            "model": device.model,
            "bus_id": device.bus_id,
            "memory_bytes": device.memory_bytes,
        }
        for device in node.devices
        if device.is_present
    ]


def _targets_of(node: Node) -> dict[str, str]:
    return {target.job: target.address for target in sorted(node.targets, key=lambda t: t.job)}
