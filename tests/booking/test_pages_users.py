"""Adding and changing people by the administrator's forms."""

from __future__ import annotations

import pytest
from apiflask import APIFlask

from tests.booking.page_forms import admin, lab, shown_secret, signed_in
from tests.booking.page_visitor import Visitor, visible_text

__all__ = ["admin", "lab"]  # fixtures


def test_a_user_is_added_with_a_password_shown_once(lab: APIFlask, admin: Visitor) -> None:
    form = {"name": "dora", "display_name": "Dora", "email": "", "role": "user"}
    answer = admin.post("/admin/users/add", form)
    assert answer.status_code == 201
    assert answer.headers["Cache-Control"] == "no-store"
    password = shown_secret(answer.text, "password")
    assert len(password) >= 16
    assert password not in admin.get("/admin/users").text
    assert password not in admin.get("/admin/audit").text
    dora = Visitor(lab)
    assert dora.sign_in("dora", password).status_code == 303
    assert dora.get("/").location == "/me/password"


def test_a_closed_account_is_out_at_once(lab: APIFlask, admin: Visitor) -> None:
    bob = signed_in(lab, "bob")
    form = {"display_name": "Bob", "email": "", "role": "user"}
    assert admin.post("/admin/users/bob", form).location == "/admin/users"
    assert bob.get("/").status_code == 303
    assert bob.sign_in("bob").status_code == 401


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"name": "Root!"}, "Must begin with a small letter"),
        ({"name": "root"}, "Belongs to the system; choose another one."),
        ({"role": "emperor"}, "Choose a role."),
        ({"display_name": "x" * 101}, "At most 100 characters."),
        ({"email": "a\tb"}, "One line of printable characters only."),
        ({"name": "alice"}, "There is a user named alice already."),
    ],
)
def test_a_refused_user_keeps_what_was_typed(
    admin: Visitor, change: dict[str, str], told: str
) -> None:
    form = {"name": "dora", "display_name": "Dora", "email": "d@lab.example", "role": "user"}
    answer = admin.post("/admin/users/add", {**form, **change})
    assert answer.status_code in (409, 422)
    assert told in visible_text(answer.text)
    if "display_name" not in change:
        assert 'value="Dora"' in answer.text


def test_the_last_administrator_stays(admin: Visitor) -> None:
    answer = admin.post("/admin/users/admin", {"role": "user", "is_active": "1"})
    assert answer.status_code == 409
    assert "admin is the last active admin" in visible_text(answer.text)
