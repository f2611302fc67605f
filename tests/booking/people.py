"""People for the booking tests, signed in by the real login."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from apiflask import APIFlask
from werkzeug.test import TestResponse

from sentinel_booking.models import Role, User, write
from sentinel_booking.services.passwords import hash_password

PASSWORD = "correct horse battery"
_PASSWORD_HASH = hash_password(PASSWORD)


@dataclass(frozen=True)
class Person:
    """Somebody with a bearer token; `call("GET", "/api/me")` asks as them."""

    app: APIFlask
    name: str
    id: int
    access_token: str
    refresh_token: str

    @property
    def headers(self) -> dict[str, str]:
        """What a program of theirs sends."""
        return {"Authorization": f"Bearer {self.access_token}"}

    def call(self, method: str, path: str, **options: Any) -> TestResponse:
        """Ask with their token; `options` as in Flask's test client (json=, headers=, …)."""
        headers = {**self.headers, **options.pop("headers", {})}
        client = self.app.test_client(use_cookies=False)
        return client.open(path, method=method, headers=headers, **options)


def add_user(app: APIFlask, name: str, role: Role = Role.USER) -> int:
    """Add a user whose password is PASSWORD; returns the id."""
    with app.app_context(), write() as session:
        user = User(name=name, role=role, password_hash=_PASSWORD_HASH)
        session.add(user)
        session.flush()
        return user.id


def sign_in(app: APIFlask, name: str, password: str = PASSWORD) -> Person:
    """Sign somebody in who is there already."""
    answer = app.test_client().post(
        "/api/auth/login", json={"name": name, "password": password}
    )
    assert answer.status_code == 200, answer.text
    tokens = answer.get_json()
    with app.app_context(), write() as session:
        user_id = session.query(User.id).filter_by(name=name).scalar()
    return Person(app, name, user_id, tokens["access_token"], tokens["refresh_token"])


def add_person(app: APIFlask, name: str, role: Role = Role.USER) -> Person:
    """Add a user and sign them in."""
    add_user(app, name, role)
    return sign_in(app, name)
