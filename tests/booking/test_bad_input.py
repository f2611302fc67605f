"""Bad input to any endpoint of the API: a problem document, and unchanged tables."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from apiflask import APIFlask
from sqlalchemy import select

from sentinel_booking.models import Base, db
from tests.booking.callers import ADMIN, Caller

JSON = "application/json"
TEN_MB = b'{"name": "' + b"x" * 10_000_000 + b'"}'

BROKEN: list[tuple[bytes, str | None]] = [
    (b"", JSON),
    (b"{", JSON),
    (b"\xff\xfe{}", JSON),
    (b'{"a": NaN}', JSON),
    (b"[" * 100_000, JSON),
    (b'{"a":' * 50_000, JSON),
    (b"null", JSON),
    (b"[]", JSON),
    (b"[{}]", JSON),
    (b'"text"', JSON),
    (b"1" * 5000, JSON),
    (b'{"no_such_field": 1}', JSON),
    (b'{"\\u0000": 1}', JSON),
    (b'{"__proto__": {}, "constructor": null}', JSON),
    (TEN_MB, JSON),
    (b"{}", None),
    (b"{}", "text/plain"),
    (b"a=1", "application/x-www-form-urlencoded"),
    (b"--x\r\n\r\n{}\r\n--x--", "multipart/form-data; boundary=x"),
]

# No field anywhere takes them all; each is wrong for some, and NUL for every text.
WRONG_VALUES: list[object] = [
    None, True, 0, -1, 10**30, 1.5, "", "\0", "a\0b", "x" * 10_000, [], ["\0"], {}, {"a": "\0"},
    "0000-00-00T00:00:00Z", "2026-01-01T00:00:00", "9999-12-31T23:59:59Z", [[[]]],
]  # fmt: skip


def operations(app: APIFlask) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Method, path and body schema of every operation that takes a body."""
    document = app.test_client().get("/openapi.json").get_json()
    schemas = document["components"]["schemas"]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if "requestBody" in operation:
                ref = operation["requestBody"]["content"][JSON]["schema"]["$ref"]
                yield method.upper(), path, schemas[ref.rsplit("/", 1)[1]]


def fill(path: str) -> str:
    """A path of something that is there, where there is one."""
    name = ADMIN if path.startswith("/api/users") else "gpu1"
    for field in ("{key_id}", "{reservation_id}", "{id}"):
        path = path.replace(field, "1")
    return path.replace("{name}", name)


def dump(app: APIFlask) -> dict[str, list[Any]]:
    """Every row of every table, but those that record the asking itself."""
    with app.app_context():
        rows = {
            name: sorted(map(repr, db.session.execute(select(table)).all()))
            for name, table in Base.metadata.tables.items()
            if name not in ("sign_ins", "audit_entries")
        }
        db.session.rollback()
        return rows


@pytest.fixture
def caller(app: APIFlask) -> Caller:
    return Caller(app)


def test_what_is_no_json_object_of_known_fields_is_refused_and_changes_nothing(
    app: APIFlask, caller: Caller
) -> None:
    before = dump(app)
    assert before["users"], "the dump shows what is there"
    found = list(operations(app))
    assert ("PATCH", "/api/users/{name}") in [(method, path) for method, path, _ in found]
    client = app.test_client(use_cookies=False)
    for method, path, _ in found:
        for body, content_type in BROKEN:
            answer = client.open(
                fill(path),
                method=method,
                data=body,
                content_type=content_type,
                headers=caller.headers(path),
            )
            what = f"{method} {path} {content_type} {body[:30]!r}: {answer.status_code}"
            assert 400 <= answer.status_code < 500, what
            assert answer.status_code not in (401, 403), what
            assert answer.content_type == "application/problem+json", what
            assert answer.get_json()["status"] == answer.status_code, what
    assert dump(app) == before


def test_a_value_of_the_wrong_type_never_makes_the_server_fail(
    app: APIFlask, caller: Caller
) -> None:
    client = app.test_client(use_cookies=False)
    for method, path, schema in operations(app):
        for field in schema["properties"]:
            for value in WRONG_VALUES:
                answer = client.open(
                    fill(path),
                    method=method,
                    data=json.dumps({field: value}),
                    content_type=JSON,
                    headers=caller.headers(path),
                )
                what = f"{method} {path} {field}={value!r:.40}: {answer.status_code}"
                assert answer.status_code < 500, what
                if r"\u0000" in json.dumps(value):
                    assert answer.status_code == 422, what


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("limit=0", 422),
        ("limit=201", 422),
        ("limit=x", 422),
        ("limit=1&limit=2", 422),
        ("limit=" + "9" * 40, 422),
        ("no_such=1", 422),
        ("cursor=%00", 400),
        ("cursor=%FF", 422),
        ("cursor=" + "A" * 300, 422),
    ],
)
def test_a_bad_query_is_refused(app: APIFlask, caller: Caller, query: str, status: int) -> None:
    for path in ("/api/users", "/api/audit"):
        answer = app.test_client().get(f"{path}?{query}", headers=caller.headers(path))
        assert answer.status_code == status
        assert answer.content_type == "application/problem+json"


def test_a_body_of_unknown_length_is_refused(app: APIFlask) -> None:
    answer = app.test_client().post(
        "/api/auth/login",
        data=b"{}",
        content_type=JSON,
        headers={"Transfer-Encoding": "chunked"},
    )
    assert answer.status_code == 411
