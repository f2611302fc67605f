"""Agents: registering, reporting devices, heartbeats."""

from __future__ import annotations

import datetime as dt
import threading
from typing import Any

import pytest
from apiflask import APIFlask
from sqlalchemy import select

from sentinel_booking.models import AuditEntry, Device, Invite, Node, Role, write
from tests.booking.lab import (
    HOUR,
    SCRAPE,
    add_agent,
    add_node,
    ascend,
    heartbeat,
    invite,
    now,
    nvidia,
    policy_version,
    register,
)
from tests.booking.people import add_person

NODE_TARGET = {"job": "node", "port": 9100}


def registration(code: str, **changes: object) -> dict[str, object]:
    return {
        "code": code,
        "hostname": "gpu1",
        "address": "10.0.0.7",
        "agent_version": "0.1.0",
        **changes,
    }


def everything(app: APIFlask) -> list[object]:
    """What an agent can change, to see that nothing did."""
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


# Registering


def test_an_invite_registers_one_agent(app: APIFlask) -> None:
    add_node(app)
    code = invite(app, "gpu1")
    first = app.test_client().post("/api/agent/register", json=registration(code))
    second = app.test_client().post("/api/agent/register", json=registration(code))
    assert (first.status_code, second.status_code) == (201, 403)
    assert first.get_json()["node"] == "gpu1"
    assert second.get_json()["type"] == "/problems/invite-refused"


def test_of_many_at_once_one_registers(app: APIFlask) -> None:
    add_node(app)
    code = invite(app, "gpu1")
    statuses: list[int] = []
    barrier = threading.Barrier(6)

    def ask() -> None:
        client = app.test_client()
        barrier.wait()
        statuses.append(client.post("/api/agent/register", json=registration(code)).status_code)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [201, 403, 403, 403, 403, 403]


def test_an_expired_or_unknown_code_is_refused(app: APIFlask) -> None:
    add_node(app)
    expired = invite(app, "gpu1", dt.timedelta(seconds=-1))
    before = everything(app)
    for code in (expired, "nonsense"):
        answer = app.test_client().post("/api/agent/register", json=registration(code))
        assert answer.status_code == 403
    assert everything(app) == before


def test_a_refused_address_leaves_the_invite_good(app: APIFlask) -> None:
    add_node(app)
    code = invite(app, "gpu1")
    bad = registration(code, address="http://elsewhere/")
    assert app.test_client().post("/api/agent/register", json=bad).status_code == 422
    good = registration(code)
    assert app.test_client().post("/api/agent/register", json=good).status_code == 201


def test_registering_again_ends_the_old_token(app: APIFlask) -> None:
    old = add_agent(app)
    new = register(app)
    assert old.call("GET", "/policy").status_code == 401
    assert new.call("GET", "/policy").status_code == 200


def test_neither_code_nor_token_is_stored(app: APIFlask) -> None:
    add_node(app)
    code = invite(app, "gpu1")
    token = (
        app.test_client()
        .post("/api/agent/register", json=registration(code))
        .get_json()["token"]
    )
    with app.app_context(), write() as session:
        rows = [
            *session.scalars(select(Invite)),
            *session.scalars(select(Node)),
            *session.scalars(select(AuditEntry)),
        ]
        text = repr([{k: v for k, v in vars(row).items() if k[0] != "_"} for row in rows])
    assert "node.register" in text
    assert code not in text
    assert token not in text


def test_an_invite_is_good_for_the_hours_asked_for(app: APIFlask) -> None:
    olga = add_person(app, "olga", Role.OPERATOR)
    add_node(app)
    asked: list[tuple[dict[str, int], int]] = [({}, 24), ({"hours": 2}, 2)]
    for body, hours in asked:
        answer = olga.call("POST", "/api/nodes/gpu1/invites", json=body)
        assert answer.status_code == 201
        expires = dt.datetime.fromisoformat(answer.get_json()["expires_at"])
        assert abs(expires - now() - hours * HOUR) < dt.timedelta(minutes=5)
    for bad in (0, 10_000, "2"):
        answer = olga.call("POST", "/api/nodes/gpu1/invites", json={"hours": bad})
        assert answer.status_code == 422


def test_without_a_valid_token_nothing_is_served(app: APIFlask) -> None:
    add_agent(app)
    olga = add_person(app, "olga", Role.ADMIN)
    before = everything(app)
    refused: list[dict[str, str]] = [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic x"},
        {"Authorization": "Bearer \u00e9"},
        olga.headers,
        SCRAPE,
    ]
    asked = (
        ("PUT", "/inventory"),
        ("POST", "/heartbeat"),
        ("POST", "/token"),
        ("GET", "/policy"),
    )
    for verb, path in asked:
        for headers in refused:
            answer = app.test_client().open(
                f"/api/agent{path}", method=verb, headers=headers, json={}
            )
            assert answer.status_code == 401, headers
            assert answer.mimetype == "application/problem+json"
    assert everything(app) == before


# Inventory


def slots(answer: Any) -> dict[str, int]:
    assert answer.status_code == 200, answer.text
    return {device["uuid"]: device["slot"] for device in answer.get_json()["devices"]}


def test_a_slot_is_never_given_twice(app: APIFlask) -> None:
    agent = add_agent(app)
    assert slots(agent.report([nvidia(0, "a"), nvidia(1, "b")])) == {"a": 0, "b": 1}
    assert slots(agent.report([nvidia(0, "b")])) == {"b": 1}
    assert slots(agent.report([nvidia(0, "b"), nvidia(1, "c")])) == {"b": 1, "c": 2}
    assert slots(agent.report([nvidia(0, "a"), nvidia(1, "c")])) == {"a": 0, "c": 2}


def test_what_is_not_listed_is_absent_and_kept(app: APIFlask) -> None:
    agent = add_agent(app)
    agent.report([nvidia(0), ascend(0)])
    agent.report([])
    with app.app_context(), write() as session:
        assert session.scalars(select(Device.is_present)).all() == [False, False]


def test_the_answer_repeats_the_report_with_slots(app: APIFlask) -> None:
    report = [ascend(1), nvidia(0, memory_bytes=None, minor=None)]
    answer = add_agent(app).report(report)
    assert answer.get_json()["devices"] == [
        {**device, "slot": slot} for slot, device in enumerate(report)
    ]


def test_the_policy_changes_only_with_what_it_says(app: APIFlask) -> None:
    agent = add_agent(app)
    steps: list[tuple[list[dict[str, object]], int]] = [
        ([nvidia(0)], 1),
        ([nvidia(0)], 0),
        ([nvidia(0, model="renamed", memory_bytes=1, bus_id="x")], 0),
        ([nvidia(0, minor=3)], 1),
        ([nvidia(0, index=4)], 1),
        ([], 1),
        ([], 0),
        ([nvidia(0)], 1),
    ]
    for report, more in steps:
        before = policy_version(app)
        assert agent.report(report).status_code == 200
        assert policy_version(app) == before + more, report


def test_the_same_report_again_leaves_no_trace(app: APIFlask) -> None:
    agent = add_agent(app)
    agent.report([nvidia(0)], [NODE_TARGET])
    before = everything(app)
    agent.report([nvidia(0)], [NODE_TARGET])
    assert everything(app) == before


def test_two_reports_at_once_give_each_device_one_slot(app: APIFlask) -> None:
    agent = add_agent(app)
    barrier = threading.Barrier(4)
    statuses: list[int] = []

    def ask() -> None:
        barrier.wait()
        statuses.append(agent.report([nvidia(number) for number in range(8)]).status_code)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with app.app_context(), write() as session:
        found = session.scalars(select(Device.slot).order_by(Device.slot)).all()
    assert statuses == [200] * 4
    assert found == list(range(8))


def test_cards_that_change_places_keep_their_slots(app: APIFlask) -> None:
    agent = add_agent(app)
    agent.report([nvidia(0, "a"), nvidia(1, "b")])
    assert slots(agent.report([nvidia(0, "b"), nvidia(1, "a")])) == {"a": 0, "b": 1}


BAD_DEVICES: list[list[Any]] = [
    [nvidia(0), nvidia(0)],
    [nvidia(0, "a"), nvidia(0, "b")],
    [nvidia(0, "a"), nvidia(1, "b", minor=0)],
    [nvidia(0, "a,b")],
    [nvidia(0, "")],
    [nvidia(0, "x" * 97)],
    [nvidia(-1)],
    [nvidia(0, index="0")],
    [nvidia(0, index=True)],
    [nvidia(0, index=2**31)],
    [nvidia(0, minor=-1)],
    [nvidia(0, vendor="amd")],
    [nvidia(0, memory_bytes=-1)],
    [nvidia(0, memory_bytes=2**63)],
    [nvidia(0, memory_bytes=1.5)],
    [nvidia(0, model="x" * 101)],
    [nvidia(0, model="a\x00b")],
    [nvidia(0, slot=0)],
    [{"uuid": "a"}],
    ["a"],
    [nvidia(number) for number in range(257)],
]


def test_a_report_that_cannot_be_changes_nothing(app: APIFlask) -> None:
    agent = add_agent(app)
    agent.report([nvidia(5)], [NODE_TARGET])
    before = everything(app)
    for devices in BAD_DEVICES:
        answer = agent.report(devices, [NODE_TARGET])
        assert answer.status_code == 422, devices
        assert answer.get_json()["errors"]
    assert everything(app) == before


BAD_TARGETS: list[list[Any]] = [
    [NODE_TARGET, NODE_TARGET],
    [{"job": "ipmi", "port": 623}],
    [{"job": "Node", "port": 9100}],
    [{"job": "", "port": 9100}],
    [{"job": "../x", "port": 9100}],
    [{"job": "node", "port": 0}],
    [{"job": "node", "port": 65536}],
    [{"job": "node", "port": "9100"}],
    [{"job": "node", "port": 9100, "host": "elsewhere"}],
    [{"job": "node"}],
]


def test_a_target_that_cannot_be_changes_nothing(app: APIFlask) -> None:
    agent = add_agent(app)
    agent.report([nvidia(5)], [NODE_TARGET])
    before = everything(app)
    for targets in BAD_TARGETS:
        assert agent.report([], targets).status_code == 422, targets
    assert everything(app) == before


# Heartbeats


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
    before = everything(app)
    agent.call("POST", "/heartbeat", json=heartbeat())
    after = everything(app)
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
    before = everything(app)
    for held in (501, 7, None):
        agent.call("POST", "/heartbeat", json=heartbeat(policy_version=held))
    assert policy_version(app) == 501
    assert everything(app)[-1] == before[-1]
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
    before = everything(app)
    for changes in BAD_HEARTBEATS:
        answer = agent.call("POST", "/heartbeat", json=heartbeat(**changes))
        assert answer.status_code == 422, changes
    assert everything(app) == before


def test_garbage_is_refused_and_changes_nothing(app: APIFlask) -> None:
    agent = add_agent(app)
    before = everything(app)
    bodies = [b"", b"{", b"[]", b"null", b'"x"', b"{}", b"\xed\xa0\xbd", b"[" * 9999]
    for verb, path in (("POST", "/register"), ("PUT", "/inventory"), ("POST", "/heartbeat")):
        for body in bodies:
            answer = agent.call(verb, path, data=body, content_type="application/json")
            assert answer.status_code in (400, 422), (path, body[:9])
            assert answer.mimetype == "application/problem+json"
        assert agent.call(verb, path, data=b"{}").status_code == 415
        big = agent.call(verb, path, data=b" " * 2**21, content_type="application/json")
        assert big.status_code == 413
    assert everything(app) == before
