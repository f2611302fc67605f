"""Signing in and out, the language, and the own password, by the forms."""

from __future__ import annotations

import pytest
from apiflask import APIFlask

from tests.booking.page_forms import admin, alice, lab, shown_secret, signed_in
from tests.booking.page_visitor import Visitor, visible_text
from tests.booking.people import PASSWORD

__all__ = ["admin", "alice", "lab"]  # fixtures


@pytest.mark.parametrize(
    ("wanted", "leads_to"),
    [
        ("/keys", "/keys"),
        ("/book?node=gpu-01&device=a%2Fb", "/book?node=gpu-01&device=a%2Fb"),
        ("https://evil.example/", "/"),
        ("//evil.example/", "/"),
        ("/\\evil.example/", "/"),
        ("/\t/evil.example/", "/"),
        ("\\/evil.example", "/"),
        ("javascript:alert(1)", "/"),
        ("keys", "/"),
        ("", "/"),
    ],
)
def test_signing_in_leads_to_a_page_of_our_own(
    lab: APIFlask, wanted: str, leads_to: str
) -> None:
    assert Visitor(lab).sign_in("alice", then=wanted).location == leads_to


def test_a_wrong_password_is_told_and_the_name_kept(lab: APIFlask) -> None:
    answer = Visitor(lab).sign_in("alice", "wrong", then="/keys")
    assert answer.status_code == 401
    assert "The name or the password is wrong." in answer.text
    assert 'value="alice"' in answer.text
    assert 'name="next" value="/keys"' in answer.text
    assert 'value="wrong"' not in answer.text


def test_too_many_tries_are_refused_on_the_page(lab: APIFlask) -> None:
    answers = [Visitor(lab).sign_in("alice", "wrong") for _ in range(11)]
    assert [answer.status_code for answer in answers] == [401] * 10 + [429]
    assert "Too many attempts; try again in" in answers[-1].text


def test_signing_out_ends_the_sign_in(alice: Visitor) -> None:
    cookie = alice.cookie("sentinel_access")
    answer = alice.post("/logout")
    assert answer.location == "/login"
    assert alice.cookie("sentinel_access") is None
    alice._client.set_cookie("sentinel_access", cookie or "")
    assert alice.get("/").location == "/login"


def test_the_language_before_signing_in_is_the_browsers(lab: APIFlask) -> None:
    visitor = Visitor(lab, "en")
    answer = visitor.get("/login?lang=zh&next=/keys")
    assert answer.location == "/login?next=/keys"
    assert "登录" in visitor.get("/login?next=/keys").text
    assert visitor.get("/login?lang=fr").status_code == 200


def test_the_chosen_language_goes_with_the_person(lab: APIFlask, alice: Visitor) -> None:
    answer = alice.post("/language", {"locale": "zh", "next": "/keys?x=1"})
    assert answer.location == "/keys?x=1"
    assert "什么是公钥？" in alice.get("/keys").text
    # From another browser that asks for English.
    assert "什么是公钥？" in signed_in(lab, "alice").get("/keys").text
    alice.post("/language", {"locale": "tlh", "next": "//evil.example"})
    assert "什么是公钥？" in alice.get("/keys").text


def test_who_must_change_the_password_sees_nothing_else_before(
    lab: APIFlask, admin: Visitor
) -> None:
    page = admin.post("/admin/users/bob/password")
    assert page.status_code == 201
    given = shown_secret(page.text, "password")
    bob = Visitor(lab)
    bob.sign_in("bob", given)
    for path in ("/", "/book", "/keys", "/reservations"):
        assert bob.get(path).location == "/me/password"
    form = bob.get("/me/password")
    assert "Somebody else has set your password" in form.text
    assert 'href="/keys"' not in form.text
    new = {"old": given, "new": "a long new password", "again": "a long new password"}
    assert bob.post("/me/password", new).location == "/"
    assert bob.get("/").status_code == 200


@pytest.mark.parametrize(
    ("old", "new", "again", "told"),
    [
        (
            "wrong",
            "a long new password",
            "a long new password",
            "Is not your present password.",
        ),
        (PASSWORD, "short", "short", "Must have at least 10 characters."),
        (PASSWORD, "a long new password", "another password", "The two new passwords differ."),
        (PASSWORD, PASSWORD, PASSWORD, "Must differ from the old one."),
    ],
)
def test_a_refused_password_is_told_beside_its_field_and_never_sent_back(
    alice: Visitor, old: str, new: str, again: str, told: str
) -> None:
    answer = alice.post("/me/password", {"old": old, "new": new, "again": again})
    assert answer.status_code == 422
    assert told in visible_text(answer.text)
    assert 'aria-invalid="true"' in answer.text
    for typed in (old, new, again):
        assert f'value="{typed}"' not in answer.text
