"""SSH keys by their page's forms."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from apiflask import APIFlask
from sqlalchemy import select

from sentinel_booking.models import SshKey, db
from tests.booking.page_forms import alice, lab
from tests.booking.page_visitor import Visitor, visible_text

__all__ = ["alice", "lab"]  # fixtures


def test_a_key_is_added_listed_and_removed(
    lab: APIFlask, alice: Visitor, tmp_path: Path
) -> None:
    key = make_key(tmp_path, "alice@desk")
    assert alice.post("/keys", {"public_key": key, "label": ""}).location == "/keys"
    page = alice.get("/keys").text
    listed = subprocess.run(
        ["ssh-keygen", "-l", "-f", tmp_path / "key.pub"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert listed.split()[1] in page
    assert "alice@desk" in page
    with lab.app_context():
        key_id = db.session.scalars(select(SshKey.id).order_by(SshKey.id.desc())).first()
    again = alice.post("/keys", {"public_key": key})
    assert again.status_code == 409
    assert "is registered already" in visible_text(again.text)
    assert alice.post(f"/keys/{key_id}/remove").location == "/keys"
    assert listed.split()[1] not in alice.get("/keys").text.replace("Key removed", "")


def test_a_private_key_is_refused_and_not_sent_back(alice: Visitor, tmp_path: Path) -> None:
    make_key(tmp_path, "alice@desk")
    private = (tmp_path / "key").read_text()
    answer = alice.post("/keys", {"public_key": private, "label": "mine"})
    assert answer.status_code == 422
    assert "This is a private key, which must never leave your computer." in answer.text
    for line in private.splitlines():
        assert line not in answer.text


@pytest.mark.parametrize(
    ("pasted", "told"),
    [
        ("", "Empty."),
        ("hello", "Not an SSH public key; one begins with a type such as ssh-ed25519."),
        ("ssh-ed25519 AAAA", "The key inside is not of the type ssh-ed25519"),
    ],
)
def test_a_refused_key_is_told_beside_the_field_and_kept(
    alice: Visitor, pasted: str, told: str
) -> None:
    answer = alice.post("/keys", {"public_key": pasted, "label": "kept"})
    assert answer.status_code == 422
    assert told in visible_text(answer.text)
    assert f">{pasted}</textarea>" in answer.text
    assert 'value="kept"' in answer.text


def make_key(folder: Path, comment: str) -> str:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", folder / "key"],
        check=True,
    )
    return (folder / "key.pub").read_text()
