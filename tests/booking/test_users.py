"""People: what an admin may do with them, and what nobody may."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from apiflask import APIFlask
from sqlalchemy import select

from sentinel_booking.models import AuditEntry, Role, User, db, write
from tests.booking.lab import add_node, policy_version, reserve
from tests.booking.people import PASSWORD, Person, add_person, sign_in

# For what does not depend on the database's kind.
sqlite_only = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def make(admin: Person, name: str, role: str = "user", **more: object) -> dict[str, Any]:
    answer = admin.call("POST", "/api/users", json={"name": name, "role": role, **more})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.get_json()
    return made


def last_audit(app: APIFlask) -> AuditEntry:
    with app.app_context():
        return db.session.scalars(select(AuditEntry).order_by(AuditEntry.id.desc())).first()  # type: ignore[return-value]  # there is one


def test_a_new_user_gets_a_password_that_is_shown_once_and_must_be_changed(
    app: APIFlask,
) -> None:
    admin = add_person(app, "ada", Role.ADMIN)
    made = make(admin, "bob", email="bob@lab.example", display_name="Bob")
    assert len(made["generated_password"]) >= 20
    shown = admin.call("GET", "/api/users/bob").get_json()
    assert "generated_password" not in shown
    assert shown["must_change_password"] is True
    bob = sign_in(app, "bob", made["generated_password"])
    assert bob.call("GET", "/api/me/keys").status_code == 403
    entry = last_audit(app)
    with app.app_context():
        trail = str([vars(row) for row in db.session.scalars(select(AuditEntry))])
    assert made["generated_password"] not in trail
    assert entry.action == "sign_in.open"


def test_a_given_password_is_not_answered(app: APIFlask) -> None:
    admin = add_person(app, "ada", Role.ADMIN)
    made = make(admin, "bob", password="a-good-password")
    assert made["generated_password"] is None
    assert "a-good-password" not in str(made)
    sign_in(app, "bob", "a-good-password")


@sqlite_only
@pytest.mark.parametrize(
    "name",
    [
        "root",
        "daemon",
        "nobody",
        "sshd",
        "systemd-network",
        "_apt",
        "sentinel-akc",
        "Alice",
        "1alice",
        "a" * 33,
        "",
        "ali ce",
        "alice\n",
        "älice",
        "-alice",
        "../etc",
    ],
)
def test_a_name_that_is_no_persons_unix_account_is_refused(app: APIFlask, name: str) -> None:
    admin = add_person(app, "ada", Role.ADMIN)
    answer = admin.call("POST", "/api/users", json={"name": name, "role": "user"})
    assert answer.status_code == 422
    assert [error["field"] for error in answer.get_json()["errors"]] == ["name"]


def test_a_taken_name_is_a_conflict_also_when_its_user_is_deactivated(app: APIFlask) -> None:
    admin = add_person(app, "ada", Role.ADMIN)
    make(admin, "bob")
    admin.call("PATCH", "/api/users/bob", json={"is_active": False})
    answer = admin.call("POST", "/api/users", json={"name": "bob", "role": "user"})
    assert answer.status_code == 409


@sqlite_only
@pytest.mark.parametrize("password", ["short", "x" * 129, "BobbyTables"])
def test_a_weak_password_is_refused(app: APIFlask, password: str) -> None:
    admin = add_person(app, "ada", Role.ADMIN)
    body = {"name": "bobbytables", "role": "user", "password": password}
    answer = admin.call("POST", "/api/users", json=body)
    assert answer.status_code == 422
    assert [error["field"] for error in answer.get_json()["errors"]] == ["password"]


def test_only_what_was_sent_is_changed_and_recorded(app: APIFlask) -> None:
    admin = add_person(app, "ada", Role.ADMIN)
    make(admin, "bob", email="bob@lab.example", display_name="Bob")
    answer = admin.call("PATCH", "/api/users/bob", json={"role": "operator"})
    changed = answer.get_json()
    assert (changed["role"], changed["email"], changed["display_name"]) == (
        "operator", "bob@lab.example", "Bob")  # fmt: skip
    entry = last_audit(app)
    assert (entry.actor, entry.action, entry.object_id) == ("ada", "user.change", "bob")
    assert (entry.before, entry.after) == ({"role": "user"}, {"role": "operator"})
    assert entry.ip == "127.0.0.1"
    assert (
        admin.call("PATCH", "/api/users/bob", json={"email": None}).get_json()["email"] is None
    )


def test_a_change_of_nothing_is_not_recorded(app: APIFlask) -> None:
    admin = add_person(app, "ada", Role.ADMIN)
    make(admin, "bob")
    before = last_audit(app).id
    assert admin.call("PATCH", "/api/users/bob", json={"role": "user"}).status_code == 200
    assert admin.call("PATCH", "/api/users/bob", json={}).status_code == 200
    assert last_audit(app).id == before


def test_a_password_set_by_an_admin_ends_the_sign_ins_and_must_be_changed(
    app: APIFlask,
) -> None:
    admin, bob = add_person(app, "ada", Role.ADMIN), add_person(app, "bob")
    body = {"password": "set-by-the-admin"}
    assert admin.call("PATCH", "/api/users/bob", json=body).status_code == 200
    assert bob.call("GET", "/api/me").status_code == 401
    again = sign_in(app, "bob", "set-by-the-admin")
    assert again.call("GET", "/api/me").get_json()["must_change_password"] is True
    assert "set-by-the-admin" not in str(last_audit(app).after)


def test_deactivating_ends_the_sign_ins_for_good(app: APIFlask) -> None:
    admin, bob = add_person(app, "ada", Role.ADMIN), add_person(app, "bob")
    admin.call("PATCH", "/api/users/bob", json={"is_active": False})
    assert bob.call("GET", "/api/me").status_code == 401
    admin.call("PATCH", "/api/users/bob", json={"is_active": True})
    assert bob.call("GET", "/api/me").status_code == 401, "the old sign-in stays ended"
    assert sign_in(app, "bob").call("GET", "/api/me").status_code == 200


@pytest.mark.parametrize(
    "change", [{"role": "user"}, {"is_active": False}, {"role": "operator", "is_active": True}]
)
def test_the_last_active_admin_stays_one(app: APIFlask, change: dict[str, object]) -> None:
    ada, bea = add_person(app, "ada", Role.ADMIN), add_person(app, "bea", Role.ADMIN)
    assert ada.call("PATCH", "/api/users/bea", json={"is_active": False}).status_code == 200
    answer = ada.call("PATCH", "/api/users/ada", json=change)
    assert answer.status_code == 409
    me = ada.call("GET", "/api/me").get_json()
    assert (me["role"], me["is_active"]) == ("admin", True)
    assert bea.call("GET", "/api/me").status_code == 401


def test_two_admins_cannot_demote_each_other_at_the_same_moment(app: APIFlask) -> None:
    people = [add_person(app, name, Role.ADMIN) for name in ("ada", "bea")]
    for _ in range(5):
        start = threading.Barrier(2)
        statuses: list[int] = []

        def demote(
            actor: Person, other: Person, start: Any = start, found: Any = statuses
        ) -> None:
            start.wait()
            answer = actor.call("PATCH", f"/api/users/{other.name}", json={"role": "user"})
            found.append(answer.status_code)

        threads = [
            threading.Thread(target=demote, args=pair) for pair in (people, people[::-1])
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with app.app_context():
            admins = db.session.scalars(select(User.name).where(User.role == Role.ADMIN)).all()
        # The second one is refused: by then no admin (403), or the last one's turn (409).
        assert sorted(statuses) in ([200, 403], [200, 409])
        assert len(admins) == 1
        with app.app_context(), write() as session:
            for user in session.scalars(select(User)):
                user.role = Role.ADMIN


def test_one_changes_ones_own_profile_and_nothing_else_of_it(app: APIFlask) -> None:
    bob = add_person(app, "bob", Role.READONLY)
    changed = bob.call("PATCH", "/api/me", json={"display_name": "鲍勃", "locale": "zh"})
    assert changed.get_json()["display_name"] == "鲍勃"
    for field, value in (("role", "admin"), ("is_active", True), ("name", "eve")):
        answer = bob.call("PATCH", "/api/me", json={field: value})
        assert answer.status_code == 422
    assert bob.call("GET", "/api/me").get_json()["role"] == "readonly"


def test_a_new_password_of_ones_own_ends_the_other_sign_ins(app: APIFlask) -> None:
    here = add_person(app, "bob")
    elsewhere = sign_in(app, "bob")
    body = {"old": PASSWORD, "new": "a-new-password"}
    assert here.call("POST", "/api/me/password", json=body).status_code == 204
    assert here.call("GET", "/api/me").status_code == 200
    assert elsewhere.call("GET", "/api/me").status_code == 401
    sign_in(app, "bob", "a-new-password")


@sqlite_only
@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("wrong", "a-new-password", "old"),
        (PASSWORD, PASSWORD, "new"),
        (PASSWORD, "kurz", "new"),
    ],
)
def test_a_refused_password_changes_nothing(
    app: APIFlask, old: str, new: str, field: str
) -> None:
    bob = add_person(app, "bob")
    answer = bob.call("POST", "/api/me/password", json={"old": old, "new": new})
    assert answer.status_code == 422
    assert [error["field"] for error in answer.get_json()["errors"]] == [field]
    sign_in(app, "bob")


@sqlite_only
def test_guessing_the_old_password_is_stopped(app: APIFlask) -> None:
    bob = add_person(app, "bob")
    body = {"old": "wrong", "new": "a-new-password"}
    statuses = {bob.call("POST", "/api/me/password", json=body).status_code for _ in range(11)}
    assert statuses == {422, 429}


def test_users_are_listed_page_by_page_without_gap_or_repeat(app: APIFlask) -> None:
    admin = add_person(app, "ada", Role.ADMIN)
    names = ["ada", *(f"user{n}" for n in range(6))]
    for name in names[1:]:
        make(admin, name)
    found: list[str] = []
    cursor = ""
    while cursor is not None:
        page = admin.call("GET", f"/api/users?limit=3&cursor={cursor}" if cursor else
                          "/api/users?limit=3").get_json()  # fmt: skip
        assert len(page["items"]) <= 3
        found += [user["name"] for user in page["items"]]
        cursor = page["next_cursor"]
    assert found == names


@sqlite_only
@pytest.mark.parametrize("role", [Role.OPERATOR, Role.USER, Role.READONLY])
def test_only_admins_see_users_and_the_audit_trail(app: APIFlask, role: Role) -> None:
    bob = add_person(app, "bob", role)
    for method, path in (
        ("GET", "/api/users"),
        ("POST", "/api/users"),
        ("GET", "/api/users/bob"),
        ("PATCH", "/api/users/bob"),
        ("GET", "/api/audit"),
    ):
        assert bob.call(method, path, json={}).status_code == 403


def test_the_audit_trail_is_filtered_and_paged_the_newest_first(app: APIFlask) -> None:
    admin = add_person(app, "ada", Role.ADMIN)
    for number in range(4):
        make(admin, f"user{number}")
    path = "/api/audit?actor=ada&object_type=user&limit=3"
    first = admin.call("GET", path).get_json()
    assert [item["object_id"] for item in first["items"]] == ["user3", "user2", "user1"]
    assert first["items"][0]["after"]["role"] == "user"
    second = admin.call("GET", f"{path}&cursor={first['next_cursor']}").get_json()
    assert [item["object_id"] for item in second["items"]] == ["user0", "ada"]
    assert second["next_cursor"] is None
    one = admin.call("GET", "/api/audit?object_id=user2").get_json()["items"]
    assert [item["action"] for item in one] == ["user.create"]


@sqlite_only
@pytest.mark.parametrize("cursor", ["%21%21", "eA", "MTIzNDU2Nzg5MDEyMw", "LTE", "4pGg"])
def test_a_made_up_cursor_is_refused(app: APIFlask, cursor: str) -> None:
    admin = add_person(app, "ada", Role.ADMIN)
    assert admin.call("GET", f"/api/audit?cursor={cursor}").status_code == 422


def test_deactivating_and_reactivating_change_the_policy_of_the_holders_nodes(
    app: APIFlask,
) -> None:
    admin, bob = add_person(app, "ada", Role.ADMIN), add_person(app, "bob")
    add_node(app)
    reserve(app, bob.id)
    start = policy_version(app)
    admin.call("PATCH", "/api/users/bob", json={"display_name": "Bob"})
    assert policy_version(app) == start, "a display name is not in the policy"
    admin.call("PATCH", "/api/users/bob", json={"is_active": False})
    assert policy_version(app) == start + 1
    admin.call("PATCH", "/api/users/bob", json={"is_active": True})
    assert policy_version(app) == start + 2
