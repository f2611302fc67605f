"""Nodes: creating, changing, removing, and how they look."""

from __future__ import annotations

from typing import Any

import pytest
from apiflask import APIFlask
from sqlalchemy import select

from sentinel_booking.models import AuditEntry, Kind, Node, Role, Target, write
from tests.booking.lab import (
    HOUR,
    SCRAPE,
    add_agent,
    add_node,
    heartbeat,
    invite,
    nvidia,
    policy_version,
    register,
    reserve,
)
from tests.booking.people import add_person, add_user


def audit_actions(app: APIFlask) -> list[str]:
    with app.app_context(), write() as session:
        return list(session.scalars(select(AuditEntry.action).order_by(AuditEntry.id)))


def test_a_new_node_is_shown_with_what_was_set(app: APIFlask) -> None:
    olga = add_person(app, "olga", Role.OPERATOR)
    body = {
        "name": "gpu1",
        "cluster": "room-2",
        "tags": ["h100", "train"],
        "address": "gpu1.lab",
        "bmc_address": "10.9.0.1",
        "mode": "enforce",
        "is_monitored": False,
    }
    answer = olga.call("POST", "/api/nodes", json=body)
    assert answer.status_code == 201
    shown = olga.call("GET", "/api/nodes/gpu1").get_json()
    assert shown == answer.get_json()
    assert {name: shown[name] for name in body} == body
    assert shown["state"] == "unregistered"
    assert audit_actions(app)[-1] == "node.create"


BAD_FIELDS: list[tuple[str, object]] = [
    ("name", "GPU1"),
    ("name", "gpu 1"),
    ("name", "gpu1~2"),
    ("name", "../x"),
    ("name", ""),
    ("name", "n" * 64),
    ("name", 7),
    ("address", "http://x"),
    ("address", "10.0.0.300"),
    ("address", "10.0.0.7:22"),
    ("address", "fe80::1%eth0"),
    ("bmc_address", "a b"),
    ("cluster", "a,b"),
    ("tags", ["a,b"]),
    ("tags", ["a", "a"]),
    ("tags", [f"t{number}" for number in range(17)]),
    ("tags", "a"),
    ("mode", "off"),
    ("is_monitored", "yes"),
    ("is_monitored", None),
    ("password", "x"),
]


def test_a_bad_field_is_named_and_nothing_is_created(app: APIFlask) -> None:
    olga = add_person(app, "olga", Role.OPERATOR)
    for field, value in BAD_FIELDS:
        answer = olga.call("POST", "/api/nodes", json={"name": "gpu1", **{field: value}})
        assert answer.status_code == 422, (field, value)
        assert answer.mimetype == "application/problem+json"
        named = {error["field"].split(".")[0] for error in answer.get_json()["errors"]}
        assert named == {field}
    assert olga.call("GET", "/api/nodes").get_json() == {"items": []}
    assert "node.create" not in audit_actions(app)


def test_a_name_is_taken_once(app: APIFlask) -> None:
    olga = add_person(app, "olga", Role.OPERATOR)
    add_node(app, "gpu1", cluster="first")
    assert olga.call("POST", "/api/nodes", json={"name": "gpu1"}).status_code == 409
    assert olga.call("GET", "/api/nodes/gpu1").get_json()["cluster"] == "first"


def test_a_change_leaves_what_it_does_not_name(app: APIFlask) -> None:
    olga = add_person(app, "olga", Role.OPERATOR)
    add_node(app, "gpu1", cluster="a", tags=["x"], bmc_address="10.9.0.1")
    answer = olga.call("PATCH", "/api/nodes/gpu1", json={"cluster": "b", "bmc_address": ""})
    assert answer.status_code == 200
    shown = answer.get_json()
    assert (shown["cluster"], shown["tags"], shown["bmc_address"]) == ("b", ["x"], "")


def test_only_a_new_mode_is_a_new_policy(app: APIFlask) -> None:
    olga = add_person(app, "olga", Role.OPERATOR)
    add_node(app, "gpu1")
    before = policy_version(app)
    olga.call("PATCH", "/api/nodes/gpu1", json={"cluster": "b", "mode": "observe"})
    assert policy_version(app) == before
    olga.call("PATCH", "/api/nodes/gpu1", json={"mode": "enforce"})
    assert policy_version(app) == before + 1
    with app.app_context(), write() as session:
        entry = session.scalars(select(AuditEntry).order_by(AuditEntry.id.desc())).first()
        assert entry is not None
        assert (entry.actor, entry.action) == ("olga", "node.change")
        assert entry.before is not None
        assert entry.before["mode"] == "observe"
        assert entry.after == {**entry.before, "mode": "enforce"}


def test_a_new_address_moves_the_targets(app: APIFlask) -> None:
    olga = add_person(app, "olga", Role.OPERATOR)
    add_agent(app).report([], [{"job": "node", "port": 9100}])
    olga.call("PATCH", "/api/nodes/gpu1", json={"address": "fd00::7"})
    found = app.test_client().get("/sd/node", headers=SCRAPE).get_json()
    assert found[0]["targets"] == ["[fd00::7]:9100"]


def test_a_registered_node_keeps_an_address(app: APIFlask) -> None:
    olga = add_person(app, "olga", Role.OPERATOR)
    add_agent(app)
    assert olga.call("PATCH", "/api/nodes/gpu1", json={"address": ""}).status_code == 422


def test_changing_nodes_is_for_operators(app: APIFlask) -> None:
    add_node(app, "gpu1")
    urs = add_person(app, "urs", Role.USER)
    before = audit_actions(app)
    changes: list[tuple[str, str, dict[str, Any] | None]] = [
        ("POST", "", {"name": "gpu2"}),
        ("PATCH", "/gpu1", {"cluster": "b"}),
        ("DELETE", "/gpu1", None),
        ("POST", "/gpu1/invites", {}),
        ("DELETE", "/gpu1/token", None),
    ]
    for method, path, body in changes:
        assert urs.call(method, f"/api/nodes{path}", json=body).status_code == 403
    assert audit_actions(app) == before


def test_everybody_signed_in_sees_nodes(app: APIFlask) -> None:
    add_node(app, "gpu1")
    rita = add_person(app, "rita", Role.READONLY)
    assert [node["name"] for node in rita.call("GET", "/api/nodes").get_json()["items"]] == [
        "gpu1"
    ]
    assert app.test_client().get("/api/nodes").status_code == 401


def test_an_unknown_node_is_not_found(app: APIFlask) -> None:
    olga = add_person(app, "olga", Role.OPERATOR)
    for method, path, body in (
        ("GET", "", None),
        ("PATCH", "", {}),
        ("DELETE", "", None),
        ("POST", "/invites", {}),
        ("DELETE", "/token", None),
        ("GET", "/charts/memory", None),
    ):
        answer = olga.call(method, f"/api/nodes/none{path}", json=body)
        assert answer.status_code == 404, path


def test_devices_show_who_has_them(app: APIFlask) -> None:
    rita = add_person(app, "rita", Role.READONLY)
    agent = add_agent(app)
    agent.report([nvidia(0), nvidia(1), nvidia(2), nvidia(3)])
    alice, otto = add_user(app, "alice"), add_user(app, "otto", Role.OPERATOR)
    use = reserve(app, alice, slots=[0, 1])
    reserve(app, otto, slots=[2], kind=Kind.MAINTENANCE)
    reserve(app, alice, slots=[3], starts=HOUR, ends=2 * HOUR)
    agent.report([nvidia(0), nvidia(2), nvidia(3)])
    shown = rita.call("GET", "/api/nodes/gpu1").get_json()
    assert [device["state"] for device in shown["devices"]] == [
        "reserved",
        "absent",
        "maintenance",
        "free",
    ]
    assert shown["devices"][0]["reservation"]["holder"] == "alice"
    assert shown["devices"][0]["reservation"]["id"] == use
    assert [one["holder"] for one in shown["running"]] == ["alice", "otto"]


def test_a_whole_node_reservation_has_every_device(app: APIFlask) -> None:
    rita = add_person(app, "rita", Role.READONLY)
    add_agent(app).report([nvidia(0), nvidia(1)])
    reserve(app, add_user(app, "alice"))
    shown = rita.call("GET", "/api/nodes/gpu1").get_json()
    assert [device["reservation"]["whole_node"] for device in shown["devices"]] == [True, True]


def test_a_heartbeat_makes_a_node_online(app: APIFlask) -> None:
    rita = add_person(app, "rita", Role.READONLY)
    agent = add_agent(app)
    assert rita.call("GET", "/api/nodes/gpu1").get_json()["state"] == "offline"
    agent.call("POST", "/heartbeat", json=heartbeat(mode="enforce", problems=["no sshd"]))
    shown = rita.call("GET", "/api/nodes/gpu1").get_json()
    assert (shown["state"], shown["agent_mode"]) == ("online", "enforce")
    assert (shown["sessions"], shown["problems"]) == ({"alice": 2}, ["no sshd"])


def test_a_removed_node_frees_its_name_and_loses_agent_and_targets(app: APIFlask) -> None:
    olga = add_person(app, "olga", Role.OPERATOR)
    agent = add_agent(app, bmc_address="10.9.0.1")
    agent.report([nvidia(0)], [{"job": "node", "port": 9100}])
    code = invite(app, "gpu1")
    assert olga.call("DELETE", "/api/nodes/gpu1").status_code == 204
    assert olga.call("GET", "/api/nodes/gpu1").status_code == 404
    assert agent.call("GET", "/policy").status_code == 401
    for job in ("node", "ipmi"):
        assert app.test_client().get(f"/sd/{job}", headers=SCRAPE).get_json() == []
    body = {"code": code, "hostname": "h", "address": "10.0.0.7", "agent_version": "1"}
    assert app.test_client().post("/api/agent/register", json=body).status_code == 403
    add_node(app, "gpu1")
    with app.app_context(), write() as session:
        assert len(session.scalars(select(Node)).all()) == 2
        assert session.scalars(select(Target)).all() == []


def test_a_node_of_a_removed_ones_name_goes_on_with_its_policy_versions(
    app: APIFlask,
) -> None:
    olga = add_person(app, "olga", Role.OPERATOR)
    add_agent(app).report([nvidia(0)])
    held = policy_version(app)
    for _ in range(2):
        olga.call("DELETE", "/api/nodes/gpu1")
        add_node(app, "gpu1")
        assert policy_version(app) > held
        held = policy_version(app)
    add_node(app, "gpu")
    assert policy_version(app, "gpu") == 1


@pytest.mark.parametrize(("starts", "ends"), [(-HOUR, HOUR), (HOUR, 2 * HOUR)])
def test_a_node_with_open_reservations_is_not_removed(
    app: APIFlask, starts: Any, ends: Any
) -> None:
    olga = add_person(app, "olga", Role.OPERATOR)
    agent = add_agent(app)
    reserve(app, add_user(app, "alice"), starts=starts, ends=ends)
    answer = olga.call("DELETE", "/api/nodes/gpu1")
    assert answer.status_code == 409
    assert answer.get_json()["reservations"] == 1
    assert agent.call("GET", "/policy").status_code == 200


def test_past_reservations_do_not_keep_a_node(app: APIFlask) -> None:
    olga = add_person(app, "olga", Role.OPERATOR)
    add_node(app, "gpu1")
    reserve(app, add_user(app, "alice"), starts=-2 * HOUR, ends=-HOUR)
    assert olga.call("DELETE", "/api/nodes/gpu1").status_code == 204


def test_a_revoked_token_is_refused_and_a_new_invite_helps(app: APIFlask) -> None:
    olga = add_person(app, "olga", Role.OPERATOR)
    agent = add_agent(app)
    for _ in range(2):
        assert olga.call("DELETE", "/api/nodes/gpu1/token").status_code == 204
    answer = agent.call("GET", "/policy")
    assert answer.status_code == 401
    assert answer.mimetype == "application/problem+json"
    assert audit_actions(app).count("node.revoke_token") == 1
    assert register(app).call("GET", "/policy").status_code == 200
