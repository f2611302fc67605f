"""A person's SSH keys over the API; reading a key is tested in test_ssh_keys.py."""

from __future__ import annotations

import base64
import datetime as dt
import struct
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from apiflask import APIFlask
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError

from sentinel_booking.models import AuditEntry, Node, Reservation, Role, SshKey, db, write
from sentinel_booking.services.keys import MAX_KEYS
from sentinel_booking.services.policy_version import bump_policy
from tests.booking.lab import add_node, policy_version, reserve
from tests.booking.people import Person, add_person

# For what does not depend on the database's kind.
sqlite_only = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def new_key(comment: str = "bob@laptop") -> str:
    point = (
        ed25519.Ed25519PrivateKey.generate()
        .public_key()
        .public_bytes(Encoding.Raw, PublicFormat.Raw)
    )
    blob = b"".join(struct.pack(">I", len(part)) + part for part in (b"ssh-ed25519", point))
    return f"ssh-ed25519 {base64.b64encode(blob).decode()} {comment}"


def add(person: Person, key: str, **more: object) -> Any:
    return person.call("POST", "/api/me/keys", json={"public_key": key, **more})


def count_keys(app: APIFlask) -> int:
    with app.app_context():
        return db.session.scalars(select(func.count()).select_from(SshKey)).one()


def test_a_key_is_added_listed_and_removed(app: APIFlask) -> None:
    bob = add_person(app, "bob")
    text = new_key()
    added = add(bob, text)
    assert added.status_code == 201
    key = added.get_json()
    assert key["public_key"] == text.rsplit(" ", 1)[0], "without the comment"
    assert key["label"] == "bob@laptop"
    assert bob.call("GET", "/api/me/keys").get_json() == {"items": [key]}
    assert bob.call("DELETE", f"/api/me/keys/{key['id']}").status_code == 204
    assert bob.call("DELETE", f"/api/me/keys/{key['id']}").status_code == 404
    assert bob.call("GET", "/api/me/keys").get_json() == {"items": []}
    with app.app_context():
        trail = db.session.scalars(select(AuditEntry).where(AuditEntry.object_type == "key"))
        entries = [(entry.action, entry.before or entry.after) for entry in trail]
    assert [action for action, _ in entries] == ["key.add", "key.remove"]
    assert all(values and values["owner"] == "bob" for _, values in entries)


def test_a_label_given_is_kept_and_cleaned(app: APIFlask) -> None:
    bob = add_person(app, "bob")
    label = add(bob, new_key(), label="  work\u202e\tlaptop ").get_json()["label"]
    assert label == "work laptop"


def test_a_key_belongs_to_one_person_and_whose_is_not_told(app: APIFlask) -> None:
    alice, bob = add_person(app, "alice"), add_person(app, "bob")
    text = new_key("some comment")
    assert add(alice, text).status_code == 201
    refused = add(bob, text + " other comment")
    assert refused.status_code == 409
    assert "alice" not in refused.text
    assert add(alice, text).status_code == 409


def test_one_key_sent_by_many_at_the_same_moment_is_taken_once(app: APIFlask) -> None:
    people = [add_person(app, f"user{number}") for number in range(6)]
    text = new_key()
    start = threading.Barrier(len(people))
    statuses: list[int] = []

    def send(person: Person) -> None:
        start.wait()
        statuses.append(add(person, text).status_code)

    threads = [threading.Thread(target=send, args=(person,)) for person in people]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [201, 409, 409, 409, 409, 409]
    assert count_keys(app) == 1


@sqlite_only
def test_a_private_key_is_refused_and_leaves_no_trace(
    app: APIFlask, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bob = add_person(app, "bob")
    path = tmp_path / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    secret = path.read_text()
    answer = add(bob, secret)
    assert answer.status_code == 422
    problem = answer.get_json()
    assert problem["type"] == "/problems/private-key"
    assert "compromised" in problem["detail"]
    for line in secret.splitlines()[1:-1]:
        assert line not in answer.text
        assert line not in caplog.text
        with app.app_context():
            rows = [str(row.after) for row in db.session.scalars(select(AuditEntry))]
        assert line not in str(rows)
    assert count_keys(app) == 0


def test_somebody_elses_key_can_be_neither_seen_nor_removed(app: APIFlask) -> None:
    alice, bob = add_person(app, "alice"), add_person(app, "bob", Role.ADMIN)
    key_id = add(alice, new_key()).get_json()["id"]
    assert bob.call("GET", "/api/me/keys").get_json() == {"items": []}
    assert bob.call("DELETE", f"/api/me/keys/{key_id}").status_code == 404
    assert count_keys(app) == 1


def test_readonly_people_have_no_keys(app: APIFlask) -> None:
    bob = add_person(app, "bob", Role.READONLY)
    assert add(bob, new_key()).status_code == 403


def test_adding_and_removing_change_the_policy_of_the_holders_nodes(app: APIFlask) -> None:
    bob, other = add_person(app, "bob"), add_person(app, "alice")
    add_node(app)
    reserve(app, bob.id)
    start = policy_version(app)
    key_id = add(bob, new_key()).get_json()["id"]
    assert policy_version(app) == start + 1
    bob.call("DELETE", f"/api/me/keys/{key_id}")
    assert policy_version(app) == start + 2
    add(other, new_key())
    assert policy_version(app) == start + 2, "whoever holds nothing there changes nothing"


def test_changing_keys_while_booking_is_never_a_deadlock(app: APIFlask) -> None:
    """The booking locks the node and refers to the user; a key's change does the reverse."""
    bob = add_person(app, "bob")
    add_node(app)
    reserve(app, bob.id)
    failures: list[str] = []

    def change_keys() -> None:
        for _ in range(25):
            answer = add(bob, new_key())
            if answer.status_code != 201:
                failures.append(answer.text)

    def book() -> None:
        for _ in range(50):
            try:
                with app.app_context(), write() as session:
                    node_id = session.scalars(select(Node.id)).one()
                    bump_policy(session, [node_id])
                    now = dt.datetime.now(dt.UTC)
                    session.add(
                        Reservation(
                            user_id=bob.id,
                            node_id=node_id,
                            whole_node=True,
                            starts=now,
                            ends=now,
                        )
                    )
            except OperationalError as error:
                failures.append(str(error.orig))

    threads = [threading.Thread(target=work) for work in (change_keys, book)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


@sqlite_only
def test_there_is_an_end_to_the_number_of_keys(app: APIFlask) -> None:
    bob = add_person(app, "bob")
    statuses = [add(bob, new_key()).status_code for _ in range(MAX_KEYS + 1)]
    assert statuses == [201] * MAX_KEYS + [409]


@sqlite_only
@pytest.mark.parametrize(
    "key_id", ["0", "999999999", "1000000000", "2147483648", "9" * 30, "-1", "x", "1.0"]
)
def test_a_key_number_that_cannot_be_is_not_found(app: APIFlask, key_id: str) -> None:
    bob = add_person(app, "bob")
    assert bob.call("DELETE", f"/api/me/keys/{key_id}").status_code == 404
