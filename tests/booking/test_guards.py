"""Deny by default, and what each guard lets in."""

from __future__ import annotations

from apiflask import APIFlask

from sentinel_booking.auth import guard_of


def test_every_endpoint_has_a_guard(app: APIFlask) -> None:
    unguarded = [name for name, view in app.view_functions.items() if guard_of(view) is None]
    assert unguarded == []


def test_an_endpoint_without_a_guard_is_never_called(app: APIFlask) -> None:
    called = []

    def forgotten() -> str:
        called.append(1)
        return "secret"

    app.add_url_rule("/api/forgotten", view_func=forgotten)
    answer = app.test_client().get("/api/forgotten")
    assert answer.status_code == 403
    assert called == []
