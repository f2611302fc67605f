"""Agents' heartbeats: what is kept of them, and what they bring about."""

from __future__ import annotations

import datetime as dt

import pytest
from apiflask import APIFlask
from sqlalchemy import select

from sentinel_booking.models import AuditEntry, Node, write
from tests.booking.lab import add_agent, heartbeat, now, policy_version, what_agents_change


def test_a_heartbeat_is_stored_and_answered_with_the_time(app: APIFlask) -> None:
    agent = add_agent(app)
    sent_at = now() - dt.timedelta(seconds=90)
    answer = agent.call("POST", "/heartbeat", json=heartbeat(sent_at=sent_at.isoformat()))
    assert answer.status_code == 200
    server_time = dt.datetime.fromisoformat(answer.get_json()["server_time"])
    with app.app_context(), write() as session:
        node = session.scalars(select(Node)).one()
        assert node.heartbeat_at == server_time
        expected = (server_time - sent_at).total_seconds()
        assert node.agent_report["clock_skew_s"] == pytest.approx(expected, abs=0.001)


def test_a_heartbeat_is_no_audit_entry_and_no_new_policy(app: APIFlask) -> None:
    agent = add_agent(app)
    before = what_agents_change(app)
    agent.call("POST", "/heartbeat", json=heartbeat())
    after = what_agents_change(app)
    assert (after[0], after[-1]) == (before[0], before[-1])


def test_a_node_in_a_sorry_state_is_heard(app: APIFlask) -> None:
    agent = add_agent(app)
    states: list[dict[str, object]] = [
        {"policy_version": None},
        {"sent_at": "1970-01-01T00:00:30Z"},
        {"sessions": {}},
        {"lock": "partial", "unclean": ["bob"]},
        {"lock": None, "unclean": None},
    ]
    for state in states:
        answer = agent.call("POST", "/heartbeat", json=heartbeat(**state))
        assert answer.status_code == 200, state


def test_what_it_says_of_the_lock_is_kept(app: APIFlask) -> None:
    agent = add_agent(app)
    agent.call(
        "POST", "/heartbeat", json=heartbeat(lock="locked", unclean=["bob", "al", "bob"])
    )
    with app.app_context(), write() as session:
        report = session.scalars(select(Node.agent_report)).one()
    assert (report["lock"], report["unclean"]) == ("locked", ["al", "bob"])
    agent.call("POST", "/heartbeat", json=heartbeat())
    with app.app_context(), write() as session:
        report = session.scalars(select(Node.agent_report)).one()
    assert (report["lock"], report["unclean"]) == (None, None)


def test_an_agent_with_a_newer_policy_than_ours_gets_one_that_is_newer_still(
    app: APIFlask,
) -> None:
    # An old backup was restored: the agent would take nothing until we had caught up.
    agent = add_agent(app)
    etag = agent.call("GET", "/policy").headers["ETag"]
    agent.call("POST", "/heartbeat", json=heartbeat(policy_version=500))
    answer = agent.call("GET", "/policy", headers={"If-None-Match": etag})
    assert answer.get_json()["version"] == 501
    before = what_agents_change(app)
    for held in (501, 7, None):
        agent.call("POST", "/heartbeat", json=heartbeat(policy_version=held))
    assert policy_version(app) == 501
    assert what_agents_change(app)[-1] == before[-1]
    with app.app_context(), write() as session:
        query = select(AuditEntry).where(AuditEntry.action == "node.raise_policy")
        entry = session.scalars(query).one()
        assert entry.before == {"policy_version": 2}
        assert entry.after == {"policy_version": 501}


def test_a_version_that_can_only_be_damage_uses_up_no_numbers(app: APIFlask) -> None:
    agent = add_agent(app)
    answer = agent.call("POST", "/heartbeat", json=heartbeat(policy_version=2**31 - 1))
    assert answer.status_code == 200
    assert policy_version(app) == 2


BAD_HEARTBEATS: list[dict[str, object]] = [
    {"sent_at": "2026-01-01T00:00:00"},
    {"sent_at": 0},
    {"sent_at": "0001-01-01T00:00:00+14:00"},
    {"mode": "off"},
    {"policy_version": -1},
    {"policy_version": "1"},
    {"sessions": {"alice": -1}},
    {"sessions": {"alice": "many"}},
    {"sessions": {"": 1}},
    {"sessions": []},
    {"problems": "one"},
    {"problems": ["x"] * 101},
    {"problems": ["a\x00b"]},
    {"boot_id": "x" * 65},
    {"boot_id": None},
    {"load": 1},
    {"lock": "closed"},
    {"lock": True},
    {"unclean": "bob"},
    {"unclean": [""]},
    {"unclean": ["x" * 65]},
    {"unclean": ["x"] * 1001},
]


def test_a_bad_heartbeat_changes_nothing(app: APIFlask) -> None:
    agent = add_agent(app)
    before = what_agents_change(app)
    for changes in BAD_HEARTBEATS:
        answer = agent.call("POST", "/heartbeat", json=heartbeat(**changes))
        assert answer.status_code == 422, changes
    assert what_agents_change(app) == before
