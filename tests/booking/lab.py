"""Nodes, agents and reservations for the booking tests."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from apiflask import APIFlask
from sqlalchemy import select
from werkzeug.test import TestResponse

from sentinel_booking.models import (
    SLOT_END,
    AuditEntry,
    Claim,
    Kind,
    Node,
    Reservation,
    SshKey,
    write,
)
from sentinel_booking.services.audit import SYSTEM
from sentinel_booking.services.invites import create_invite
from sentinel_booking.services.nodes import NodeFields, create_node

SCRAPE = {"Authorization": "Bearer scrape-for-tests-0123456789abcdef0123456789"}
WEBHOOK = {"Authorization": "Bearer webhook-for-tests-0123456789abcdef0123456789"}
HOUR = dt.timedelta(hours=1)
_numbers = itertools.count(1)


def now() -> dt.datetime:
    """The time, aware, in UTC."""
    return dt.datetime.now(dt.UTC)


@dataclass(frozen=True)
class AgentOf:
    """A node's agent; asks as it does."""

    app: APIFlask
    node: str
    token: str

    @property
    def headers(self) -> dict[str, str]:
        """What it sends."""
        return {"Authorization": f"Bearer {self.token}"}

    def call(self, method: str, path: str, **options: Any) -> TestResponse:
        """Ask with its token; `options` as in Flask's test client."""
        headers = {**self.headers, **options.pop("headers", {})}
        client = self.app.test_client(use_cookies=False)
        return client.open(f"/api/agent{path}", method=method, headers=headers, **options)

    def report(
        self, devices: Sequence[dict[str, object]], targets: Sequence[dict[str, object]] = ()
    ) -> TestResponse:
        """Send an inventory."""
        body = {"devices": list(devices), "targets": list(targets)}
        return self.call("PUT", "/inventory", json=body)


def add_node(app: APIFlask, name: str = "gpu1", **fields: Any) -> None:
    """Add a node; `fields` as in NodeFields."""
    with app.app_context():
        create_node(SYSTEM, name, NodeFields(**fields), 60)


def invite(app: APIFlask, name: str, valid_for: dt.timedelta = HOUR) -> str:
    """Return a code to register with."""
    with app.app_context():
        return create_invite(SYSTEM, name, valid_for).code


def register(app: APIFlask, name: str = "gpu1", address: str = "10.0.0.7") -> AgentOf:
    """Register the node's agent by its endpoint."""
    body = {
        "code": invite(app, name),
        "hostname": name,
        "address": address,
        "agent_version": "0.1.0",
    }
    answer = app.test_client().post("/api/agent/register", json=body)
    assert answer.status_code == 201, answer.text
    return AgentOf(app, name, answer.get_json()["token"])


def add_agent(app: APIFlask, name: str = "gpu1", **fields: Any) -> AgentOf:
    """Add a node and register its agent."""
    add_node(app, name, **fields)
    return register(app, name)


def nvidia(number: int, uuid: str | None = None, **changes: object) -> dict[str, object]:
    """A GPU as `sentinel-exporter devices` prints it."""
    return {
        "vendor": "nvidia",
        "uuid": f"GPU-{number}" if uuid is None else uuid,
        "index": number,
        "minor": number,
        "model": "NVIDIA H100",
        "bus_id": f"0000:{number:02x}:00.0",
        "memory_bytes": 80 * 2**30,
        **changes,
    }


def ascend(number: int, **changes: object) -> dict[str, object]:
    """An NPU as `sentinel-exporter devices` prints it."""
    return {
        "vendor": "ascend",
        "uuid": f"npu-0000:C{number}:00.0",
        "index": number,
        "minor": number,
        "model": "910B3",
        "bus_id": f"0000:C{number}:00.0",
        "memory_bytes": 64 * 2**30,
        **changes,
    }


def heartbeat(**changes: object) -> dict[str, object]:
    """A heartbeat's body."""
    return {
        "agent_version": "0.1.0",
        "sent_at": now().isoformat(),
        "boot_id": "b1",
        "mode": "observe",
        "policy_version": 1,
        "sessions": {"alice": 2},
        "problems": [],
        **changes,
    }


def reserve(
    app: APIFlask,
    user_id: int,
    node: str = "gpu1",
    *,
    slots: Sequence[int] | None = None,
    starts: dt.timedelta = -HOUR,
    ends: dt.timedelta = HOUR,
    kind: Kind = Kind.USE,
) -> int:
    """Put a reservation into the tables; the times are from now, `slots` None: whole node.

    Past the booking's rules, which have their own tests: here it is what others read.
    """
    with app.app_context(), write() as session:
        node_id = session.scalars(select(Node.id).where(Node.name == node)).one()
        times = {"starts": now() + starts, "ends": now() + ends}
        reservation = Reservation(
            user_id=user_id, node_id=node_id, kind=kind, whole_node=slots is None, **times
        )
        spans = [(0, SLOT_END)] if slots is None else [(slot, slot + 1) for slot in slots]
        reservation.claims = [
            Claim(node_id=node_id, slot_lo=low, slot_hi=high, **times) for low, high in spans
        ]
        session.add(reservation)
        session.flush()
        return reservation.id


def add_key(app: APIFlask, user_id: int) -> str:
    """Give a user an SSH key; returns it as the policy has it."""
    number = next(_numbers)
    public_key = f"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA{number:04d}"
    with app.app_context(), write() as session:
        session.add(
            SshKey(
                user_id=user_id,
                public_key=public_key,
                key_type="ssh-ed25519",
                bits=256,
                fingerprint=f"SHA256:{number}",
            )
        )
    return public_key


def policy_version(app: APIFlask, node: str = "gpu1") -> int:
    """The version that the database has."""
    with app.app_context(), write() as session:
        return session.scalars(select(Node.policy_version).where(Node.name == node)).one()


def what_agents_change(app: APIFlask) -> list[object]:
    """All that an agent can change of the only node, to see that nothing did."""
    with app.app_context(), write() as session:
        node = session.scalars(select(Node)).one()
        return [
            node.policy_version,
            node.heartbeat_at,
            node.agent_report,
            node.next_slot,
            node.token_hash,
            [(device.uuid, device.slot, device.is_present) for device in node.devices],
            [(target.job, target.address) for target in node.targets],
            session.scalars(select(AuditEntry.id)).all(),
        ]
