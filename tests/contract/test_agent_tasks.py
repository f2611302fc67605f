"""The agent's tasks against the real booking server, from its database to sshd's answer."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from apiflask import APIFlask
from sqlalchemy import select

from sentinel_agent.config import Config as AgentConfig
from sentinel_agent.errors import PolicyRefused
from sentinel_agent.gates import get_keys
from sentinel_agent.policy.access import Access
from sentinel_agent.policy.cache import Cache
from sentinel_agent.policy.held import HeldPolicy
from sentinel_agent.server.client import BookingClient
from sentinel_agent.server.enrolment import register
from sentinel_agent.server.registration import load_registration
from sentinel_agent.service.status import Status
from sentinel_agent.service.tasks import HeartbeatTask, InventoryTask, PolicyTask
from sentinel_agent.sessions.doors import Doorkeeper
from sentinel_agent.sessions.granted import GrantedUsers
from sentinel_booking.models import Node, write
from tests.booking.lab import add_key, add_node, ascend, invite, reserve
from tests.booking.people import add_user

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="get-keys trusts root's files only")


def test_what_is_booked_is_what_sshd_is_answered(
    server: tuple[APIFlask, str], tmp_path: Path
) -> None:
    app, url = server
    add_node(app, "gpu1", mode="enforce")
    devices = [ascend(number) for number in range(4)]
    report = f"import json; print(json.dumps({{'devices': {devices!r}, 'problems': []}}))"
    config = AgentConfig(
        server=url,
        address="127.0.0.1",
        state_dir=tmp_path,
        cache_file=tmp_path / "policy.json",
        cache_group="root",
        inventory_command=(sys.executable, "-c", report),
        policy_wait_s=1,
    )
    register(config, invite(app, "gpu1"))
    registration = load_registration(tmp_path)
    status = Status(mode="enforce", sessions={"alice": 2})
    status.set_problems("inventory", ["x" * 5000])
    files = Cache(config.cache_file, config.cache_group), Access(tmp_path / "access", url)
    held = HeldPolicy(*files, registration)

    def client() -> BookingClient:
        return BookingClient(url, None, registration.token)

    InventoryTask(config, client()).step()
    alice = add_user(app, "alice")
    key = add_key(app, alice)
    reserve(app, alice, "gpu1", slots=[2, 3])
    rounds: list[None] = []
    keeper = Doorkeeper(held, GrantedUsers(tmp_path), limit_s=60, may_enforce=True)
    policy = PolicyTask(config, client(), keeper, status, lambda: rounds.append(None))
    policy.step()
    assert policy.step().problems == ()
    # The second answer was `nothing new`: sessions were looked at once.
    assert len(rounds) == 1
    heartbeat = HeartbeatTask(config, client(), held, status).step()
    assert heartbeat.problems == ()

    # An older backup of the database is restored: its policies are older than the node's.
    with app.app_context(), write() as session:
        node = session.scalars(select(Node).where(Node.name == "gpu1")).one()
        node.policy_version = 1
    fresh = PolicyTask(config, client(), keeper, status, lambda: rounds.append(None))
    with pytest.raises(PolicyRefused):
        fresh.step()
    HeartbeatTask(config, client(), held, status).step()
    assert fresh.step().problems == ()

    cache = get_keys.read_cache(str(config.cache_file))
    (line,) = get_keys.authorized_keys(cache, "alice", get_keys.utc_now())
    assert line.endswith(f" {key}\n")
    assert 'environment="ASCEND_RT_VISIBLE_DEVICES=2,3"' in line
    with pytest.raises(get_keys.Denied):
        get_keys.authorized_keys(cache, "bob", get_keys.utc_now())
