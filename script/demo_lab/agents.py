"""Simulated agents: each node registers, reports its devices, sends heartbeats."""

from __future__ import annotations

import datetime as dt
import logging
import uuid as uuids
from typing import Any

from script.demo_lab.client import Client, Refused
from script.demo_lab.exporters import NodeState
from script.demo_lab.lab import PEOPLE, DemoNode

log = logging.getLogger("demo")

_EAGERNESS = {person.name: person.eagerness for person in PEOPLE}


def device_uuids(node: DemoNode) -> list[str]:
    """Return the node's device identities; the same ones at each start."""
    if node.model is None:
        return []
    if node.model.vendor == "ascend":
        buses = ("C1", "C2", "81", "82", "01", "02", "41", "42")
        return [f"npu-0000:{bus}:00.0" for bus in buses[: node.device_count]]
    return [
        f"GPU-{uuids.uuid5(uuids.NAMESPACE_DNS, f'{node.name}-{index}.demo')}"
        for index in range(node.device_count)
    ]


def inventory(node: DemoNode, sentinel_port: int, node_port: int) -> dict[str, Any]:
    """Return the body that reports the node's devices and targets."""
    model = node.model
    return {
        "devices": [
            {
                "vendor": model.vendor,
                "uuid": uuid,
                "index": index,
                "minor": index,
                "model": model.name,
                "bus_id": uuid.removeprefix("npu-") if model.vendor == "ascend" else "",
                "memory_bytes": model.memory_bytes,
            }
            for index, uuid in enumerate(device_uuids(node))
            if model is not None
        ],
        "targets": [
            {"job": "node", "port": node_port},
            {"job": "sentinel", "port": sentinel_port},
        ],
    }


def beat(client: Client, state: NodeState) -> None:
    """Fetch the policy, let the booked devices be used, and send one heartbeat."""
    now = dt.datetime.now(dt.UTC)
    try:
        policy = client.call("GET", "/api/agent/policy")
        state.users = running_users(policy, now)
        users = [user for user, _ in state.users.values()]
        client.call(
            "POST",
            "/api/agent/heartbeat",
            {
                "agent_version": "demo",
                "sent_at": dt.datetime.now(dt.UTC).isoformat(),
                "boot_id": "demo",
                "mode": policy["mode"],
                "lock": "locked" if policy["mode"] == "enforce" else "open",
                "policy_version": policy["version"],
                "sessions": dict.fromkeys(sorted(set(users)), 1),
                "problems": [],
            },
        )
    except (Refused, OSError) as error:
        log.warning("heartbeat failed node=%s reason=%s", state.node.name, error)


def running_users(policy: dict[str, Any], now: dt.datetime) -> dict[str, tuple[str, float]]:
    """Return device uuid → (user, eagerness) for the grants that run at `now`."""
    return {
        device["uuid"]: (grant["user"], _EAGERNESS.get(grant["user"], 0.7))
        for grant in policy["grants"]
        if dt.datetime.fromisoformat(grant["not_before"])
        <= now
        < dt.datetime.fromisoformat(grant["not_after"])
        for device in grant["devices"]
    }
