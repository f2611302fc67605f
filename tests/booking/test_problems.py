"""Every error is a problem document, or a page where people are; none tells too much."""

from __future__ import annotations

import pytest
from apiflask import APIFlask
from flask import Response, abort
from sqlalchemy import text

from sentinel_booking.app import create_app
from sentinel_booking.auth import public
from sentinel_booking.config import Config
from sentinel_booking.models import db
from tests.booking.people import add_person

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def test_an_unexpected_error_is_logged_and_not_shown(
    app: APIFlask, caplog: pytest.LogCaptureFixture
) -> None:
    @app.get("/api/broken")
    @public
    def broken() -> Response:
        raise RuntimeError("the secret plan")

    answer = app.test_client().get("/api/broken")
    assert answer.status_code == 500
    assert answer.content_type == "application/problem+json"
    assert "secret plan" not in answer.text
    assert "the secret plan" in caplog.text


def test_a_database_that_fails_is_a_503_without_its_words(
    app: APIFlask, caplog: pytest.LogCaptureFixture
) -> None:
    alice = add_person(app, "alice")
    with app.app_context():
        db.session.execute(text("DROP TABLE sign_ins"))
        db.session.commit()
    answer = alice.call("GET", "/api/me")
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]
    assert "sign_ins" not in answer.text
    assert "database failure" in caplog.text
    # The liveness probe must not restart a process that only waits for its database.
    assert alice.call("GET", "/healthz").status_code == 200


def test_ready_means_a_database_with_the_tables_of_this_version(
    app: APIFlask, config: Config
) -> None:
    from sentinel_booking.models import upgrade_schema

    answer = app.test_client().get("/readyz")
    assert answer.status_code == 503, "made without migrations"
    assert "init-db" in answer.get_json()["detail"]
    other = config.database_url.replace("booking.db", "migrated.db")
    migrated = create_app(config.model_copy(update={"database_url": other}))
    with migrated.app_context():
        upgrade_schema()
    assert migrated.test_client().get("/readyz").status_code == 200


def test_ready_is_503_without_a_database(config: Config) -> None:
    gone = "postgresql+psycopg://nobody@127.0.0.1:1/none?connect_timeout=2"
    app = create_app(config.model_copy(update={"database_url": gone}))
    answer = app.test_client().get("/readyz")
    assert answer.status_code == 503
    assert answer.content_type == "application/problem+json"


def test_a_wrong_method_is_told_which_ones_are_right(app: APIFlask) -> None:
    answer = app.test_client().put("/api/auth/login")
    assert answer.status_code == 405
    assert "POST" in answer.headers["Allow"]
    assert answer.content_type == "application/problem+json"


@pytest.mark.parametrize("path", ["/api/none", "/sd/", "/api/", "/api/users/a/b/c"])
def test_an_unknown_address_of_the_api_is_a_404_problem(app: APIFlask, path: str) -> None:
    answer = app.test_client().get(path)
    assert answer.status_code == 404
    assert answer.get_json()["type"] == "/problems/not-found"


def test_an_unknown_page_is_a_page(app: APIFlask) -> None:
    answer = app.test_client().get("/no/such/page")
    assert answer.status_code == 404
    assert answer.mimetype in ("text/html", "text/plain")


def test_an_abort_in_a_view_keeps_its_words(app: APIFlask) -> None:
    @app.get("/api/closed")
    @public
    def closed() -> Response:
        abort(429, "later")

    answer = app.test_client().get("/api/closed")
    assert (answer.status_code, answer.get_json()["detail"]) == (429, "later")


def test_people_without_a_sign_in_are_sent_to_sign_in_and_back(app: APIFlask) -> None:
    client = app.test_client()
    answer = client.get("/reservations?state=past&x=%2F")
    assert answer.status_code == 303
    assert answer.location == "/login?next=%2Freservations%3Fstate%3Dpast%26x%3D%252F"
    assert client.post("/keys").location == "/login", "a lost form is not sent again"
    scripted = client.get("/reservations", headers={"HX-Request": "true"})
    assert (scripted.status_code, scripted.headers["HX-Redirect"][:6]) == (401, "/login")
    assert client.get("/api/me").status_code == 401


@pytest.mark.parametrize("path", ["/api/me", "/login", "/healthz", "/no/such", "/openapi.json"])
def test_every_answer_binds_the_browser(app: APIFlask, path: str) -> None:
    headers = app.test_client().get(path).headers
    policy = headers["Content-Security-Policy"]
    assert "script-src 'self'" in policy
    assert "style-src 'self'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"


def test_only_grafana_may_be_framed(config: Config) -> None:
    app = create_app(config.model_copy(update={"grafana_url": "https://g.lab:3000/x"}))
    policy = app.test_client().get("/healthz").headers["Content-Security-Policy"]
    assert "frame-src https://g.lab:3000;" in policy


def test_the_openapi_document_names_no_outside_address(app: APIFlask) -> None:
    answer = app.test_client().get("/openapi.json")
    assert answer.status_code == 200
    assert "://" not in answer.text
    assert app.test_client().get("/docs").status_code == 404
