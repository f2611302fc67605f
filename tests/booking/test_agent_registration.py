"""Agents: registering with an invite, and what is refused without a trace whoever asks."""

from __future__ import annotations

import datetime as dt
import threading

from apiflask import APIFlask
from sqlalchemy import select

from sentinel_booking.models import AuditEntry, Invite, Node, Role, write
from tests.booking.lab import (
    HOUR,
    SCRAPE,
    add_agent,
    add_node,
    invite,
    now,
    register,
    what_agents_change,
)
from tests.booking.people import add_person


def registration(code: str, **changes: object) -> dict[str, object]:
    return {
        "code": code,
        "hostname": "gpu1",
        "address": "10.0.0.7",
        "agent_version": "0.1.0",
        **changes,
    }


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
    before = what_agents_change(app)
    for code in (expired, "nonsense"):
        answer = app.test_client().post("/api/agent/register", json=registration(code))
        assert answer.status_code == 403
    assert what_agents_change(app) == before


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
    before = what_agents_change(app)
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
    assert what_agents_change(app) == before


def test_garbage_is_refused_and_changes_nothing(app: APIFlask) -> None:
    agent = add_agent(app)
    before = what_agents_change(app)
    bodies = [b"", b"{", b"[]", b"null", b'"x"', b"{}", b"\xed\xa0\xbd", b"[" * 9999]
    for verb, path in (("POST", "/register"), ("PUT", "/inventory"), ("POST", "/heartbeat")):
        for body in bodies:
            answer = agent.call(verb, path, data=body, content_type="application/json")
            assert answer.status_code in (400, 422), (path, body[:9])
            assert answer.mimetype == "application/problem+json"
        assert agent.call(verb, path, data=b"{}").status_code == 415
        big = agent.call(verb, path, data=b" " * 2**21, content_type="application/json")
        assert big.status_code == 413
    assert what_agents_change(app) == before
