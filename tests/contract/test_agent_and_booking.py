"""The agent's own client and decoder against the real booking server."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import pytest
from apiflask import APIFlask

from sentinel_agent.errors import ServerError
from sentinel_agent.policy.model import check_replaces, decode, format_time
from sentinel_agent.server.client import BookingClient
from tests.booking.lab import (
    add_key,
    add_node,
    ascend,
    invite,
    now,
    nvidia,
    reserve,
)
from tests.booking.people import add_user


def registered(app: APIFlask, url: str, node: str) -> str:
    """Add the node, register it as the agent does and return the token."""
    add_node(app, node, mode="enforce")
    name, token = BookingClient(url, None).register(invite(app, node), node, "127.0.0.1")
    assert name == node
    return token


def test_the_agent_takes_what_booking_grants(server: tuple[APIFlask, str]) -> None:
    app, url = server
    client = BookingClient(url, None, registered(app, url, "gpu1"))
    client.put_inventory([nvidia(0), ascend(1, minor=None)], {"sentinel": 9641, "node": 9100})
    alice = add_user(app, "alice")
    key = add_key(app, alice)
    card = reserve(app, alice, "gpu1", slots=[1])
    policy, problems = decode(client.get_policy("", 0).document)
    assert problems == []
    check_replaces(policy, None, "gpu1")
    (grant,) = policy.grants
    assert (grant.reservation, grant.user, list(grant.keys)) == (card, "alice", [key])
    assert [device.uuid for device in grant.devices] == ["npu-0000:C1:00.0"]
    assert dict(grant.env) == {
        "ASCEND_RT_VISIBLE_DEVICES": "1",
        "ASCEND_VISIBLE_DEVICES": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    assert grant.not_before < datetime.now(UTC) < grant.not_after <= policy.expires_at


def test_a_heartbeat_of_the_agent_is_taken(server: tuple[APIFlask, str]) -> None:
    app, url = server
    client = BookingClient(url, None, registered(app, url, "gpu2"))
    server_time = client.heartbeat(
        {
            "agent_version": "0.1.0",
            "sent_at": format_time(now()),
            "boot_id": "6a3c1f0e-0000-4000-8000-000000000000",
            "mode": "observe",
            "policy_version": None,
            "sessions": {"alice": 1},
            "problems": ["npu-smi is missing"],
        }
    )
    assert abs((server_time - now()).total_seconds()) < 30


def test_the_agent_is_woken_by_a_change(server: tuple[APIFlask, str]) -> None:
    app, url = server
    token = registered(app, url, "gpu3")
    client, reporting = (BookingClient(url, None, token) for _ in range(2))
    known = client.get_policy("", 0)
    assert not client.get_policy(known.etag, 0).is_new
    devices = [nvidia(0)]
    reporter = threading.Timer(0.3, reporting.put_inventory, args=(devices, {}))
    reporter.start()
    woken = client.get_policy(known.etag, 30)
    reporter.join()
    assert woken.is_new
    new, _ = decode(woken.document)
    old, _ = decode(known.document)
    check_replaces(new, old, "gpu3")


def test_a_code_is_refused_for_good_the_second_time(server: tuple[APIFlask, str]) -> None:
    app, url = server
    add_node(app, "gpu4")
    code = invite(app, "gpu4")
    BookingClient(url, None).register(code, "gpu4", "127.0.0.1")
    with pytest.raises(ServerError) as refused:
        BookingClient(url, None).register(code, "gpu4", "127.0.0.1")
    assert refused.value.is_permanent
