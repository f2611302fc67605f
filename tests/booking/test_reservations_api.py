"""`/api/reservations` and `/api/nodes/<name>/calendar` over HTTP, as callers see them."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Any

import pytest
from apiflask import APIFlask
from werkzeug.test import TestResponse

from sentinel_booking.domain.times import rfc3339
from sentinel_booking.models import Role
from tests.booking.bookings import HOUR, add_node, soon
from tests.booking.people import Person, add_person

PATH = "/api/reservations"


@dataclasses.dataclass(frozen=True)
class Lab:
    app: APIFlask
    uuids: list[str]
    alice: Person
    bob: Person
    olga: Person
    rita: Person

    def wish(self, *slots: int, **fields: object) -> dict[str, object]:
        """A body: some cards, or the whole node, for an hour tomorrow."""
        body: dict[str, object] = {
            "node": "n1",
            "starts": rfc3339(soon()),
            "ends": rfc3339(soon(1)),
        }
        if slots:
            body["devices"] = [self.uuids[slot] for slot in slots]
        else:
            body["whole_node"] = True
        return body | fields


@pytest.fixture
def lab(app: APIFlask) -> Lab:
    return Lab(
        app,
        add_node(app),
        alice=add_person(app, "alice"),
        bob=add_person(app, "bob"),
        olga=add_person(app, "olga", Role.OPERATOR),
        rita=add_person(app, "rita", Role.READONLY),
    )


def problem(answer: TestResponse, status: int) -> dict[str, Any]:
    """The problem document of a refusal."""
    assert answer.status_code == status, answer.text
    assert answer.mimetype == "application/problem+json"
    document: dict[str, Any] = answer.get_json()
    assert document["status"] == status
    return document


def fields(document: dict[str, Any]) -> list[str]:
    return [item["field"] for item in document["errors"]]


def test_a_booking_is_created_with_its_address_and_etag(lab: Lab) -> None:
    answer = lab.alice.call("POST", PATH, json=lab.wish(1, 0, purpose="train"))
    assert answer.status_code == 201
    made = answer.get_json()
    assert (made["node"], made["holder"], made["state"]) == ("n1", "alice", "coming")
    assert (made["devices"], made["whole_node"]) == (lab.uuids[:2], False)
    assert (made["starts"], made["ends"]) == (rfc3339(soon()), rfc3339(soon(1)))
    assert (made["kind"], made["purpose"], made["version"]) == ("use", "train", 1)
    assert (made["holder_has_key"], made["released_at"]) == (False, None)
    assert answer.headers["Location"] == f"{PATH}/{made['id']}"
    assert answer.headers["ETag"] == '"1"'
    again = lab.rita.call("GET", answer.headers["Location"])
    assert (again.get_json(), again.headers["ETag"]) == (made, '"1"')


def test_times_are_taken_with_any_offset_and_shown_in_utc(lab: Lab) -> None:
    body = lab.wish(0, starts=soon().isoformat().replace("+00:00", "-00:00"))
    body["ends"] = soon(1).astimezone(dt.timezone(dt.timedelta(hours=8))).isoformat()
    made = lab.alice.call("POST", PATH, json=body).get_json()
    assert (made["starts"], made["ends"]) == (rfc3339(soon()), rfc3339(soon(1)))


def test_a_conflict_says_who_has_it_and_what_would_fit(lab: Lab) -> None:
    made = lab.bob.call("POST", PATH, json=lab.wish(0, 1, purpose="mine")).get_json()
    body = lab.wish(1, 2, starts=rfc3339(soon(-1)), ends=rfc3339(soon(1)))
    document = problem(lab.alice.call("POST", PATH, json=body), 409)
    assert document["type"] == "/problems/slot-taken"
    assert document["conflicts"] == [
        {
            "reservation": made["id"],
            "holder": "bob",
            "kind": "use",
            "starts": rfc3339(soon()),
            "ends": rfc3339(soon(1)),
            "whole_node": False,
            "devices": lab.uuids[:2],
            "purpose": "mine",
        }
    ]
    assert document["next_free"] == rfc3339(soon(1))
    assert document["max_end"] == rfc3339(soon())


BAD_INPUT: list[tuple[dict[str, object], str]] = [
    ({"starts": "2026-05-01T12:00:00"}, "starts"),
    ({"ends": 0}, "ends"),
    ({"ends": "tomorrow"}, "ends"),
    ({"ends": None}, "ends"),
    ({"ends": "9999-12-31T23:59:59-12:00"}, "ends"),
    ({"whole_node": "yes"}, "whole_node"),
    ({"devices": "GPU-n1-0"}, "devices"),
    ({"devices": ["GPU-n1-0", 1]}, "devices.1"),
    ({"devices": ["GPU-n1-0"]}, "devices"),  # and the whole node
    ({"whole_node": False}, "devices"),
    ({"kind": "party"}, "kind"),
    ({"node": "nowhere"}, "node"),
    ({"purpose": "two\nlines"}, "purpose"),
    ({"surprise": 1}, "surprise"),
    ({"starts": rfc3339(soon(-48))}, "starts"),
    ({"ends": rfc3339(soon(0))}, "ends"),
]


def test_bad_input_names_the_field_and_books_nothing(lab: Lab) -> None:
    for change, refused in BAD_INPUT:
        document = problem(lab.alice.call("POST", PATH, json=lab.wish() | change), 422)
        assert refused in fields(document), change
    assert lab.alice.call("GET", PATH).get_json()["items"] == []


def test_all_problems_are_named_at_once(lab: Lab) -> None:
    body = lab.wish(0, 0, purpose="\x07")
    assert fields(problem(lab.alice.call("POST", PATH, json=body), 422)) == [
        "devices.1",
        "purpose",
    ]
    body = lab.wish(0, ends=rfc3339(soon(-9))) | {"devices": [lab.uuids[0], "GPU-x"]}
    assert fields(problem(lab.alice.call("POST", PATH, json=body), 422)) == [
        "ends",
        "devices.1",
    ]


def test_roles_are_kept(lab: Lab) -> None:
    assert lab.app.test_client().get(PATH).status_code == 401
    assert lab.app.test_client().post(PATH, json=lab.wish(0)).status_code == 401
    problem(lab.rita.call("POST", PATH, json=lab.wish(0)), 403)
    problem(lab.alice.call("POST", PATH, json=lab.wish(0, holder="bob")), 403)
    problem(lab.alice.call("POST", PATH, json=lab.wish(0, kind="maintenance")), 403)
    made = lab.olga.call("POST", PATH, json=lab.wish(0, holder="alice")).get_json()
    assert made["holder"] == "alice"
    path = f"{PATH}/{made['id']}"
    for stranger in (lab.bob, lab.rita):
        problem(stranger.call("POST", f"{path}/release"), 403)
        answer = stranger.call(
            "PATCH", path, json={"purpose": "x"}, headers={"If-Match": '"1"'}
        )
        problem(answer, 403)


def test_a_repeated_request_gets_the_first_answer(lab: Lab) -> None:
    key = {"Idempotency-Key": "6f1c"}
    first = lab.alice.call("POST", PATH, json=lab.wish(0), headers=key)
    # The same wish in other words: key order, and a default that is spelled out.
    body = dict(reversed(lab.wish(0).items())) | {"purpose": "", "kind": "use"}
    again = lab.alice.call("POST", PATH, json=body, headers=key)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.get_json() == first.get_json()
    assert again.headers["Location"] == first.headers["Location"]
    assert len(lab.alice.call("GET", PATH).get_json()["items"]) == 1


def test_a_key_with_another_body_is_refused(lab: Lab) -> None:
    key = {"Idempotency-Key": "6f1c"}
    lab.alice.call("POST", PATH, json=lab.wish(0), headers=key)
    document = problem(lab.alice.call("POST", PATH, json=lab.wish(1), headers=key), 422)
    assert fields(document) == ["Idempotency-Key"]
    too_long = {"Idempotency-Key": "x" * 256}
    problem(lab.alice.call("POST", PATH, json=lab.wish(1), headers=too_long), 422)


def test_a_change_needs_if_match(lab: Lab) -> None:
    made = lab.alice.call("POST", PATH, json=lab.wish(0))
    path, longer = made.headers["Location"], {"ends": rfc3339(soon(2))}
    problem(lab.alice.call("PATCH", path, json=longer), 428)
    for stale in ('"0"', '"2"', '"other"', "1", '"1", "2"', '"99999999999999999999"'):
        answer = lab.alice.call("PATCH", path, json=longer, headers={"If-Match": stale})
        problem(answer, 412)
    problem(lab.alice.call("PATCH", path, json=longer, headers={"If-Match": "*"}), 428)
    answer = lab.alice.call("PATCH", path, json=longer, headers={"If-Match": '"1"'})
    assert (answer.status_code, answer.headers["ETag"]) == (200, '"2"')
    assert answer.get_json()["ends"] == rfc3339(soon(2))
    # A proxy that compresses makes the ETag a weak one.
    answer = lab.alice.call("PATCH", path, json={"purpose": "x"}, headers={"If-Match": 'W/"2"'})
    assert answer.get_json()["purpose"] == "x"


def test_only_end_and_purpose_can_be_changed(lab: Lab) -> None:
    path = lab.alice.call("POST", PATH, json=lab.wish(0)).headers["Location"]
    for body in (
        {"ends": None},
        {"purpose": None},
        {"node": "n2"},
        {"starts": rfc3339(soon(2))},
    ):
        answer = lab.alice.call("PATCH", path, json=body, headers={"If-Match": '"1"'})
        problem(answer, 422)
    assert lab.alice.call("GET", path).get_json()["version"] == 1


def test_an_extension_into_the_next_one_says_how_long_it_could_be(lab: Lab) -> None:
    path = lab.alice.call("POST", PATH, json=lab.wish(0)).headers["Location"]
    lab.bob.call("POST", PATH, json=lab.wish(starts=rfc3339(soon(2)), ends=rfc3339(soon(3))))
    answer = lab.alice.call(
        "PATCH", path, json={"ends": rfc3339(soon(2.5))}, headers={"If-Match": '"1"'}
    )
    document = problem(answer, 409)
    assert document["max_end"] == rfc3339(soon(2))
    assert document["next_free"] is None
    assert document["conflicts"][0]["holder"] == "bob"


def test_a_release_can_be_repeated(lab: Lab) -> None:
    running = lab.wish(0)
    del running["starts"]
    for body, is_cancelled in ((running, False), (lab.wish(1), True)):
        path = lab.alice.call("POST", PATH, json=body).headers["Location"]
        first = lab.alice.call("POST", f"{path}/release")
        assert first.status_code == 200
        assert first.get_json()["state"] == "past"
        assert first.get_json()["is_cancelled"] is is_cancelled
        again = lab.alice.call("POST", f"{path}/release")
        assert (again.status_code, again.get_json()) == (200, first.get_json())


def test_pages_follow_each_other(lab: Lab) -> None:
    for hour in range(5):
        body = lab.wish(0, starts=rfc3339(soon(hour)), ends=rfc3339(soon(hour + 1)))
        assert lab.alice.call("POST", PATH, json=body).status_code == 201
    first = lab.rita.call("GET", f"{PATH}?state=coming&limit=3").get_json()
    cursor = first["next_cursor"]
    second = lab.rita.call("GET", f"{PATH}?state=coming&limit=3&cursor={cursor}").get_json()
    starts = [item["starts"] for item in first["items"] + second["items"]]
    assert starts == [rfc3339(soon(hour)) for hour in range(5)]
    assert second["next_cursor"] is None


def test_a_query_that_means_nothing_is_refused(lab: Lab) -> None:
    for query, field in (
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("cursor=x", "cursor"),
        ("state=open", "state"),
        ("from=2026-01-01", "from"),
        ("from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", "to"),
        ("who=alice", "who"),
    ):
        assert fields(problem(lab.alice.call("GET", f"{PATH}?{query}"), 422)) == [field]


def test_filters_are_applied(lab: Lab) -> None:
    lab.alice.call("POST", PATH, json=lab.wish(0))
    lab.bob.call("POST", PATH, json=lab.wish(1, ends=rfc3339(soon(9))))
    after = f"from={rfc3339(soon(2))}&to={rfc3339(soon(3))}"
    for query, holders in (
        ("", {"alice", "bob"}),
        ("holder=bob&node=n1", {"bob"}),
        ("node=n2", set()),
        (after, {"bob"}),
        ("state=running", set()),
    ):
        items = lab.rita.call("GET", f"{PATH}?{query}").get_json()["items"]
        assert {item["holder"] for item in items} == holders


def test_what_does_not_exist_is_not_found(lab: Lab) -> None:
    for number in ("4711", "0", "99999999999"):
        problem(lab.alice.call("GET", f"{PATH}/{number}"), 404)
        problem(lab.alice.call("POST", f"{PATH}/{number}/release"), 404)


def test_a_calendar_is_sent_once_until_it_changes(lab: Lab) -> None:
    path = f"/api/nodes/n1/calendar?from={rfc3339(soon())}&to={rfc3339(soon(24))}"
    made = lab.alice.call("POST", PATH, json=lab.wish(0)).get_json()
    first = lab.rita.call("GET", path)
    assert first.status_code == 200
    assert [item["reservation"] for item in first.get_json()["bookings"]] == [made["id"]]
    known = {"If-None-Match": first.headers["ETag"]}
    same = lab.rita.call("GET", path, headers=known)
    assert (same.status_code, same.data, same.headers["ETag"]) == (
        304,
        b"",
        known["If-None-Match"],
    )
    lab.alice.call("POST", f"{PATH}/{made['id']}/release")
    changed = lab.rita.call("GET", path, headers=known)
    assert (changed.status_code, changed.get_json()["bookings"]) == (200, [])


def test_a_calendar_needs_a_node_and_an_interval(lab: Lab) -> None:
    span = f"from={rfc3339(soon())}&to={rfc3339(soon() + 400 * 24 * HOUR)}"
    assert fields(problem(lab.rita.call("GET", f"/api/nodes/n1/calendar?{span}"), 422)) == [
        "to"
    ]
    problem(lab.rita.call("GET", "/api/nodes/n1/calendar"), 422)
    span = f"from={rfc3339(soon())}&to={rfc3339(soon(1))}"
    problem(lab.rita.call("GET", f"/api/nodes/nowhere/calendar?{span}"), 404)
