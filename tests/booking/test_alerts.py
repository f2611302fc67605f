"""The alert webhook and the history of alerts."""

from __future__ import annotations

import datetime as dt
import itertools
import threading
from typing import Any

from apiflask import APIFlask
from sqlalchemy import select
from werkzeug.test import TestResponse

from sentinel_booking.domain.alerts import resolved_at
from sentinel_booking.models import Alert, Role, write
from tests.booking.lab import HOUR, SCRAPE, WEBHOOK, add_agent, add_node, now, reserve
from tests.booking.people import Person, add_person, add_user

T0 = "2026-03-01T12:00:00.123456789Z"
NEVER = "0001-01-01T00:00:00Z"


def alert(**changes: Any) -> dict[str, Any]:
    """One alert as Alertmanager 0.25 posts it."""
    return {
        "status": "firing",
        "labels": {"alertname": "NodeOffline", "severity": "critical", "node": "gpu1"},
        "annotations": {"summary": "Node is offline"},
        "startsAt": T0,
        "endsAt": NEVER,
        "generatorURL": "http://prometheus/graph",
        "fingerprint": "c1f2",
        **changes,
    }


def resolved(ends_at: str = "2026-03-01T12:30:00Z", **changes: Any) -> dict[str, Any]:
    return alert(status="resolved", endsAt=ends_at, **changes)


def body_of(*alerts: Any, **changes: Any) -> dict[str, Any]:
    return {
        "version": "4",
        "groupKey": "{}:{}",
        "truncatedAlerts": 0,
        "status": "firing",
        "receiver": "booking",
        "groupLabels": {},
        "commonLabels": {},
        "commonAnnotations": {},
        "externalURL": "http://alertmanager",
        "alerts": list(alerts),
        **changes,
    }


def post(app: APIFlask, *alerts: Any, **changes: Any) -> TestResponse:
    return app.test_client().post(
        "/api/alerts/webhook", json=body_of(*alerts, **changes), headers=WEBHOOK
    )


def history(person: Person, query: str = "") -> list[dict[str, Any]]:
    answer = person.call("GET", f"/api/alerts{query}")
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.get_json()["items"]
    return items


def rows(app: APIFlask) -> list[Any]:
    with app.app_context(), write() as session:
        return [
            (row.fingerprint, row.starts_at, row.ends_at)
            for row in session.scalars(select(Alert).order_by(Alert.id))
        ]


def test_an_alert_is_kept_with_who_held_the_node(app: APIFlask) -> None:
    rita = add_person(app, "rita", Role.READONLY)
    add_agent(app)
    add_node(app, "gpu2")
    bob, alice = add_user(app, "bob"), add_user(app, "alice")
    reserve(app, bob, slots=[0])
    reserve(app, alice, slots=[1, 2])
    reserve(app, alice, slots=[5])
    reserve(app, add_user(app, "carol"), slots=[6], starts=HOUR, ends=2 * HOUR)
    reserve(app, add_user(app, "dave"), "gpu2")
    assert post(app, alert()).status_code == 204
    (found,) = history(rita)
    assert found["holders"] == ["alice", "bob"]
    assert found["state"] == "firing"
    assert (found["name"], found["severity"], found["node"]) == (
        "NodeOffline",
        "critical",
        "gpu1",
    )
    assert found["starts_at"] == "2026-03-01T12:00:00.123456Z"
    assert found["ends_at"] is None
    assert found["labels"] == alert()["labels"]
    assert found["annotations"] == alert()["annotations"]


def test_an_alert_of_no_node_has_no_holders(app: APIFlask) -> None:
    rita = add_person(app, "rita", Role.READONLY)
    assert post(app, alert(labels={"alertname": "DiskFull"})).status_code == 204
    assert history(rita)[0]["node"] == ""
    assert history(rita)[0]["holders"] == []


def test_who_comes_later_is_no_holder(app: APIFlask) -> None:
    rita = add_person(app, "rita", Role.READONLY)
    add_agent(app)
    post(app, alert())
    reserve(app, add_user(app, "alice"))
    post(app, alert())
    assert history(rita)[0]["holders"] == []


def test_the_end_is_recorded_once(app: APIFlask) -> None:
    rita = add_person(app, "rita", Role.READONLY)
    post(app, alert())
    post(app, resolved("2026-03-01T12:30:00Z"))
    post(app, resolved("2026-03-01T12:45:00Z"))
    (found,) = history(rita)
    assert (found["state"], found["ends_at"]) == ("resolved", "2026-03-01T12:30:00Z")


def test_posts_in_any_order_and_number_leave_one_row_that_is_over(app: APIFlask) -> None:
    ended = dt.datetime(2026, 3, 1, 12, 30, tzinfo=dt.UTC)
    posts = [alert(), alert(annotations={"summary": "again"}), resolved(), resolved()]
    for number, order in enumerate(itertools.permutations(posts)):
        fingerprint = f"{number:x}"
        for one in order:
            assert post(app, {**one, "fingerprint": fingerprint}).status_code == 204
    found = rows(app)
    assert len(found) == 24
    assert {row[2] for row in found} == {ended}


def test_a_new_firing_is_a_new_row(app: APIFlask) -> None:
    post(app, resolved())
    post(app, alert(startsAt="2026-03-01T13:00:00Z"), alert(fingerprint="aa"))
    assert [row[2] is None for row in rows(app)] == [False, True, True]


def test_a_new_firing_ends_an_earlier_one_whose_end_was_never_posted(app: APIFlask) -> None:
    """As after a restart of Prometheus."""
    post(app, alert())
    post(app, alert(startsAt="2026-03-01T13:00:00Z"))
    post(app, alert())
    post(app, alert(fingerprint="d3e4"))
    one_o_clock = dt.datetime(2026, 3, 1, 13, tzinfo=dt.UTC)
    assert [ends for _, _, ends in rows(app)] == [one_o_clock, None, None]


def test_one_body_may_say_the_same_twice(app: APIFlask) -> None:
    assert post(app, alert(), alert(), resolved()).status_code == 204
    assert len(rows(app)) == 1


def test_two_alertmanagers_at_once_make_one_history(app: APIFlask) -> None:
    alerts = [alert(fingerprint=f"{number:x}") for number in range(20)]
    answers: list[int] = []
    barrier = threading.Barrier(4)

    def send(order: list[dict[str, Any]]) -> None:
        barrier.wait()
        answers.append(post(app, *order).status_code)

    threads = [
        threading.Thread(target=send, args=(alerts[:: 1 if number % 2 else -1],))
        for number in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [204] * 4
    assert len(rows(app)) == 20


def test_a_newer_alertmanager_may_say_more(app: APIFlask) -> None:
    assert post(app, alert(newField={"a": 1}), routeID="x").status_code == 204
    assert len(rows(app)) == 1


def test_an_end_that_says_nothing_is_the_time_of_arrival() -> None:
    start = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
    arrival = start + HOUR
    assert resolved_at(start, start - HOUR, arrival) == arrival
    assert resolved_at(start, start + HOUR / 2, arrival) == start + HOUR / 2
    assert resolved_at(start, start - HOUR, start - HOUR) == start


def test_an_end_of_year_one_is_accepted(app: APIFlask) -> None:
    before = now()
    assert post(app, resolved(NEVER)).status_code == 204
    assert post(app, resolved("0001-01-01T00:00:00+08:00", fingerprint="a")).status_code == 204
    assert all(before <= row[2] <= now() for row in rows(app))


BAD: list[Any] = [
    body_of(alert(), version="3"),
    body_of(alert(), version=4),
    body_of(alert(), alerts=None),
    body_of("alert"),
    {"alerts": [alert()]},
    body_of(alert(status="acknowledged")),
    body_of(alert(labels={"severity": "critical"})),
    body_of(alert(labels={"alertname": "x" * 201})),
    body_of(alert(labels={"alertname": "x", "severity": "x" * 33})),
    body_of(alert(labels={"alertname": "x", "node": "x" * 64})),
    body_of(alert(labels={"alertname": "x", "a": "x" * 2001})),
    body_of(alert(labels={"alertname": "x", "a": 1})),
    body_of(alert(labels={"alertname": "x", "a": "\x00"})),
    body_of(alert(labels={"alertname": "x", **{f"l{n}": "" for n in range(100)}})),
    body_of(alert(annotations={"a": None})),
    body_of(alert(startsAt="2026-03-01T12:00:00")),
    body_of(alert(startsAt=NEVER)),
    body_of(alert(startsAt=1)),
    body_of(alert(startsAt=None)),
    body_of(alert(endsAt="soon")),
    body_of(alert(fingerprint="../x")),
    body_of(alert(fingerprint="")),
    body_of(alert(fingerprint="a" * 65)),
    body_of(*[alert()] * 2001),
    [],
]


def test_a_body_that_cannot_be_changes_nothing(app: APIFlask) -> None:
    client = app.test_client()
    for body in BAD:
        # A good one beside the bad one is not kept either: the sender is told all at once.
        if isinstance(body, dict) and isinstance(body.get("alerts"), list):
            sent = {**body, "alerts": [alert(fingerprint="bead"), *body["alerts"]]}
        else:
            sent = body
        answer = client.post("/api/alerts/webhook", json=sent, headers=WEBHOOK)
        assert answer.status_code == 422, str(body)[:200]
    for data, status in ((b"{", 400), (b"", 400), (b"null", 422), (b" " * 2**21, 413)):
        answer = client.post(
            "/api/alerts/webhook",
            data=data,
            headers=WEBHOOK,
            content_type="application/json",
        )
        assert answer.status_code == status
    assert rows(app) == []


def test_only_the_webhook_token_may_post(app: APIFlask) -> None:
    admin = add_person(app, "ada", Role.ADMIN)
    refused: list[dict[str, str]] = [{}, SCRAPE, admin.headers]
    for headers in refused:
        answer = app.test_client().post(
            "/api/alerts/webhook", json=body_of(alert()), headers=headers
        )
        assert answer.status_code == 401
    assert rows(app) == []


def test_pages_hold_every_alert_once_newest_first(app: APIFlask) -> None:
    rita = add_person(app, "rita", Role.READONLY)
    # Two of each time, so that pages end between equal times.
    for number in range(10):
        starts_at = f"2026-03-01T12:{number // 2:02}:00Z"
        post(app, alert(fingerprint=f"{number:x}", startsAt=starts_at))
    seen: list[str] = []
    cursor = ""
    while cursor is not None:
        answer = rita.call("GET", f"/api/alerts?limit=3{cursor and '&cursor=' + cursor}")
        page = answer.get_json()
        seen += [item["fingerprint"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert seen == [f"{number:x}" for number in reversed(range(10))]


def test_alerts_are_filtered_by_node_and_state(app: APIFlask) -> None:
    rita = add_person(app, "rita", Role.READONLY)
    elsewhere = {"alertname": "NodeOffline", "node": "gpu2"}
    post(app, alert(fingerprint="a"), resolved(fingerprint="b"))
    post(app, alert(fingerprint="c", labels=elsewhere))
    for query, expected in (
        ("", {"a", "b", "c"}),
        ("?node=gpu1", {"a", "b"}),
        ("?state=firing", {"a", "c"}),
        ("?state=resolved", {"b"}),
        ("?node=gpu2&state=firing", {"c"}),
        ("?node=gpu9", set()),
    ):
        assert {item["fingerprint"] for item in history(rita, query)} == expected, query


def test_a_query_that_cannot_be_is_refused(app: APIFlask) -> None:
    rita = add_person(app, "rita", Role.READONLY)
    for query in (
        "state=open",
        "limit=0",
        "limit=201",
        "limit=x",
        "cursor=!",
        "cursor=YQ",
        "cursor=MjAyNi0wMS0wMXw5",  # a time without an offset
        "nodes=gpu1",
    ):
        assert rita.call("GET", f"/api/alerts?{query}").status_code == 422, query
    assert app.test_client().get("/api/alerts").status_code == 401
