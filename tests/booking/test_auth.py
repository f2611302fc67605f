"""Signing in, the two tokens, cookies with their CSRF value, and what ends a sign-in."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from apiflask import APIFlask
from flask.testing import FlaskClient
from flask_jwt_extended import create_access_token, decode_token
from sqlalchemy import select

from sentinel_booking.app import create_app
from sentinel_booking.config import Config
from sentinel_booking.models import AuditEntry, Role, SignIn, User, db, write
from tests.booking.people import PASSWORD, Person, add_person, add_user, sign_in

LOGIN = "/api/auth/login"

# Nothing here depends on the database's kind.
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def audit_actions(app: APIFlask) -> list[tuple[str, str]]:
    with app.app_context():
        rows = db.session.scalars(select(AuditEntry).order_by(AuditEntry.id)).all()
        return [(row.action, row.object_id) for row in rows]


def change(app: APIFlask, name: str, **values: object) -> None:
    with app.app_context(), write() as session:
        user = session.scalars(select(User).where(User.name == name)).one()
        for field, value in values.items():
            setattr(user, field, value)


def browser(person: Person, *, access: str | None = None) -> FlaskClient:
    """A browser with the person's cookies; `access` replaces the access cookie ("": none)."""
    client = person.app.test_client()
    token = person.access_token if access is None else access
    if token:
        client.set_cookie("sentinel_access", token)
    client.set_cookie("sentinel_refresh", person.refresh_token)
    return client


def claims_of(app: APIFlask, token: str) -> dict[str, Any]:
    with app.app_context():
        claims: dict[str, Any] = decode_token(token)
        return claims


def expired_access_token(person: Person) -> str:
    claims = claims_of(person.app, person.access_token)
    with person.app.app_context():
        token: str = create_access_token(
            str(person.id),
            expires_delta=dt.timedelta(seconds=-1),
            additional_claims={"sid": claims["sid"], "csrf": claims["csrf"]},
        )
        return token


def test_a_right_password_gives_tokens_that_work(app: APIFlask) -> None:
    add_user(app, "alice")
    answer = app.test_client().post(LOGIN, json={"name": "alice", "password": PASSWORD})
    assert answer.status_code == 200
    tokens = answer.get_json()
    assert tokens["expires_in"] == 15 * 60
    assert tokens["must_change_password"] is False
    assert "Set-Cookie" not in answer.headers
    alice = sign_in(app, "alice")
    assert alice.call("GET", "/api/me").get_json()["name"] == "alice"
    assert audit_actions(app) == [("sign_in.open", "alice")] * 2


def test_unknown_name_wrong_password_and_deactivated_user_are_answered_alike(
    app: APIFlask,
) -> None:
    add_user(app, "alice")
    add_user(app, "gone")
    change(app, "gone", is_active=False)
    answers = [
        app.test_client().post(LOGIN, json={"name": name, "password": password})
        for name, password in (("nosuch", "x"), ("alice", "x"), ("gone", PASSWORD))
    ]
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.text for answer in answers}) == 1
    # An unknown name may be a password typed into the wrong field, so it is not kept.
    assert audit_actions(app) == [
        ("sign_in.refuse", "(unknown)"),
        ("sign_in.refuse", "alice"),
        ("sign_in.refuse", "gone"),
    ]


def test_guessing_at_one_name_is_stopped_even_with_the_right_password(app: APIFlask) -> None:
    add_user(app, "alice")
    client = app.test_client()
    for _ in range(10):
        assert client.post(LOGIN, json={"name": "alice", "password": "x"}).status_code == 401
    answer = client.post(LOGIN, json={"name": "alice", "password": PASSWORD})
    assert answer.status_code == 429
    assert 0 < int(answer.headers["Retry-After"]) <= 60
    add_user(app, "bob")
    assert client.post(LOGIN, json={"name": "bob", "password": PASSWORD}).status_code == 200, (
        "others are not locked out"
    )


def test_a_refresh_token_gives_access_tokens_and_nothing_else(app: APIFlask) -> None:
    alice = add_person(app, "alice")
    client = app.test_client()
    refresh = {"Authorization": f"Bearer {alice.refresh_token}"}
    renewed = client.post("/api/auth/refresh", headers=refresh).get_json()
    assert set(renewed) == {"access_token", "expires_in"}
    access = {"Authorization": f"Bearer {renewed['access_token']}"}
    assert client.get("/api/me", headers=access).status_code == 200
    assert client.get("/api/me", headers=refresh).status_code == 401
    assert client.post("/api/auth/refresh", headers=access).status_code == 401


@pytest.mark.parametrize("kind", ["access_token", "refresh_token"])
def test_logging_out_with_either_token_ends_both(app: APIFlask, kind: str) -> None:
    alice, other = add_person(app, "alice"), sign_in(app, "alice")
    token = getattr(alice, kind)
    client = app.test_client()
    answer = client.post("/api/auth/logout", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 204
    assert alice.call("GET", "/api/me").status_code == 401
    refresh = {"Authorization": f"Bearer {alice.refresh_token}"}
    assert client.post("/api/auth/refresh", headers=refresh).status_code == 401
    assert other.call("GET", "/api/me").status_code == 200, "another sign-in goes on"
    assert audit_actions(app)[-1] == ("sign_in.end", "alice")


def test_a_deactivated_user_is_refused_at_once(app: APIFlask) -> None:
    alice = add_person(app, "alice")
    change(app, "alice", is_active=False)
    assert alice.call("GET", "/api/me").status_code == 401
    refresh = {"Authorization": f"Bearer {alice.refresh_token}"}
    assert app.test_client().post("/api/auth/refresh", headers=refresh).status_code == 401


def test_a_changed_role_counts_at_once(app: APIFlask) -> None:
    alice = add_person(app, "alice", Role.ADMIN)
    assert alice.call("GET", "/api/users").status_code == 200
    change(app, "alice", role=Role.USER)
    assert alice.call("GET", "/api/users").status_code == 403


def test_a_sign_in_ends_by_itself(app: APIFlask) -> None:
    alice = add_person(app, "alice")
    with app.app_context(), write() as session:
        for row in session.scalars(select(SignIn)):
            row.expires_at = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=1)
    assert alice.call("GET", "/api/me").status_code == 401


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer x",
        "Bearer é",
        "Bearer a.b.c",
        "Basic YWxpY2U6eA==",
        "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0.",
        "x" * 5000,
    ],
)
def test_a_malformed_token_is_a_401_problem(app: APIFlask, header: str) -> None:
    answer = app.test_client().get("/api/me", headers={"Authorization": header})
    assert answer.status_code == 401
    assert answer.content_type == "application/problem+json"
    assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_a_token_of_another_server_is_refused(app: APIFlask, config: Config) -> None:
    alice = add_person(app, "alice")
    other_key = config.secret_key_file.with_name("other")
    other_key.write_text("another-secret-0123456789abcdef0123456789abcdef")
    other = create_app(config.model_copy(update={"secret_key_file": other_key}))
    answer = other.test_client().get("/api/me", headers=alice.headers)
    assert answer.status_code == 401


def test_a_cookie_is_enough_to_read_but_not_to_change(app: APIFlask) -> None:
    alice = add_person(app, "alice")
    client = browser(alice)
    assert client.get("/api/me").status_code == 200
    refused = client.patch("/api/me", json={"display_name": "Mallory"})
    assert refused.status_code == 403
    assert refused.get_json()["type"] == "/problems/csrf"
    for wrong in ("", "x", "é"):
        answer = client.patch(
            "/api/me", json={"display_name": "Mallory"}, headers={"X-CSRF-TOKEN": wrong}
        )
        assert answer.status_code in (401, 403)
    assert client.get("/api/me").get_json()["display_name"] == ""


def test_a_change_by_cookie_with_its_csrf_value_is_served(app: APIFlask) -> None:
    alice = add_person(app, "alice")
    csrf = claims_of(app, alice.access_token)["csrf"]
    answer = browser(alice).patch(
        "/api/me", json={"display_name": "Alice"}, headers={"X-CSRF-TOKEN": csrf}
    )
    assert answer.get_json()["display_name"] == "Alice"


@pytest.mark.parametrize("has_access", [True, False])
def test_a_browser_is_renewed_without_asking(app: APIFlask, has_access: bool) -> None:
    alice = add_person(app, "alice")
    client = browser(alice, access=expired_access_token(alice) if has_access else "")
    answer = client.get("/api/me")
    assert answer.status_code == 200
    (cookie,) = answer.headers.getlist("Set-Cookie")
    assert cookie.startswith("sentinel_access=")
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    client.delete_cookie("sentinel_refresh")
    assert client.get("/api/me").status_code == 200, "the new cookie is enough by itself"


def test_an_open_form_stays_valid_while_its_token_is_renewed(app: APIFlask) -> None:
    alice = add_person(app, "alice")
    csrf = claims_of(app, alice.access_token)["csrf"]
    client = browser(alice, access=expired_access_token(alice))
    change_name = {"json": {"display_name": "Alice"}}
    assert client.patch("/api/me", **change_name).status_code == 403, "but not without it"
    answer = client.patch("/api/me", **change_name, headers={"X-CSRF-TOKEN": csrf})
    assert answer.status_code == 200


def test_an_expired_bearer_token_is_not_renewed(app: APIFlask) -> None:
    alice = add_person(app, "alice")
    client = browser(alice)
    expired = {"Authorization": f"Bearer {expired_access_token(alice)}"}
    assert client.get("/api/me", headers=expired).status_code == 401


def test_an_expired_cookie_of_an_ended_sign_in_is_not_renewed(app: APIFlask) -> None:
    alice = add_person(app, "alice")
    expired = expired_access_token(alice)
    alice.call("POST", "/api/auth/logout")
    answer = browser(alice, access=expired).get("/api/me")
    assert answer.status_code == 401
    assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "null"},
    ],
)
def test_another_sites_page_cannot_sign_anybody_in(
    app: APIFlask, headers: dict[str, str]
) -> None:
    add_user(app, "alice")
    answer = app.test_client().post(
        LOGIN, json={"name": "alice", "password": PASSWORD}, headers=headers
    )
    assert answer.status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://localhost"},
        {"Origin": "http://127.0.0.1:8800"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "http://behind.a.proxy"},
    ],
)
def test_our_own_pages_can(app: APIFlask, headers: dict[str, str]) -> None:
    add_user(app, "alice")
    answer = app.test_client().post(
        LOGIN, json={"name": "alice", "password": PASSWORD}, headers=headers
    )
    assert answer.status_code == 200


def test_whoever_must_change_the_password_can_do_only_that(app: APIFlask) -> None:
    add_user(app, "alice")
    change(app, "alice", must_change_password=True)
    alice = sign_in(app, "alice")
    assert alice.call("GET", "/api/me").get_json()["must_change_password"] is True
    refused = alice.call("GET", "/api/me/keys")
    assert refused.status_code == 403
    assert refused.get_json()["type"] == "/problems/password-change-required"
    new = {"old": PASSWORD, "new": "a-new-password"}
    assert alice.call("POST", "/api/me/password", json=new).status_code == 204
    assert alice.call("GET", "/api/me/keys").status_code == 200
    assert alice.call("POST", "/api/auth/logout").status_code == 204


@pytest.mark.parametrize("trusted", [0, 1])
def test_the_callers_address_is_taken_from_trusted_proxies_only(
    config: Config, trusted: int
) -> None:
    app = create_app(config.model_copy(update={"trusted_proxies": trusted}))
    with app.app_context():
        db.create_all()
    add_user(app, "alice")
    app.test_client().post(
        LOGIN,
        json={"name": "alice", "password": PASSWORD},
        headers={"X-Forwarded-For": "203.0.113.9"},
    )
    with app.app_context():
        (ip,) = db.session.scalars(select(SignIn.ip)).all()
    assert ip == ("203.0.113.9" if trusted else "127.0.0.1")


@pytest.mark.parametrize(("path", "right"), [("/metrics", "scrape"), ("/sd/node", "scrape")])
def test_a_programs_token_opens_only_its_own_door(
    app: APIFlask, config: Config, path: str, right: str
) -> None:
    secrets = {
        "scrape": config.scrape_token_file.read_text().strip(),
        "webhook": config.webhook_token_file.read_text().strip(),
    }
    client = app.test_client()
    for name, secret in secrets.items():
        answer = client.get(path, headers={"Authorization": f"Bearer {secret}"})
        assert answer.status_code == (200 if name == right else 401)
    assert client.get(path).status_code == 401
    assert client.get(path, headers={"Authorization": "Bearer é"}).status_code == 401
    alice = add_person(app, "alice", Role.ADMIN)
    assert alice.call("GET", path).status_code == 401
    assert client.get("/api/users", headers={"Authorization": f"Bearer {secrets['scrape']}"}
                      ).status_code == 401  # fmt: skip


def test_cookies_are_secure_where_the_pages_are(config: Config) -> None:
    app = create_app(config.model_copy(update={"public_url": "https://lab.example"}))
    with app.app_context():
        db.create_all()
    alice = add_person(app, "alice")
    client = app.test_client()
    client.set_cookie("sentinel_refresh", alice.refresh_token, domain="lab.example")
    answer = client.get("/api/me", base_url="https://lab.example")
    assert "Secure" in answer.headers["Set-Cookie"]
    assert "max-age" in answer.headers["Strict-Transport-Security"]
