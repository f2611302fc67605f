"""Adding, changing, inviting and removing nodes by the forms."""

from __future__ import annotations

from pathlib import Path

import pytest
from apiflask import APIFlask
from sqlalchemy import select

from sentinel_booking.models import Invite, Node, db
from tests.booking.page_forms import lab, shown_secret, signed_in
from tests.booking.page_lab import make_lab
from tests.booking.page_visitor import visible_text

__all__ = ["lab"]  # a fixture


def test_a_node_is_added_changed_invited_and_removed(lab: APIFlask) -> None:
    olga = signed_in(lab, "olga")
    form = {"name": "gpu-09", "cluster": "new", "tags": "a, b  c", "mode": "enforce"}
    assert olga.post("/nodes/add", form).location == "/nodes/gpu-09"
    page = visible_text(olga.get("/nodes/gpu-09").text)
    assert "Not registered" in page
    assert "no: no alert when it is offline" in page
    answer = olga.post("/nodes/gpu-09/edit", {**form, "tags": "x", "is_monitored": "1"})
    assert answer.location == "/nodes/gpu-09"
    with lab.app_context():
        node = db.session.scalars(select(Node).where(Node.name == "gpu-09")).one()
        assert (node.cluster, node.tags, node.mode, node.is_monitored) == (
            "new", ["x"], "enforce", True,
        )  # fmt: skip
    invite = olga.post("/nodes/gpu-09/invite")
    assert invite.status_code == 201
    code = shown_secret(invite.text, "code")
    for command in ("install", "register"):
        assert f"SENTINEL_AGENT_CODE={code} sentinel-agent {command} --server " in invite.text
    with lab.app_context():
        kept = db.session.scalars(select(Invite)).one()
        assert code not in kept.code_hash
    assert code not in olga.get("/nodes/gpu-09").text
    assert olga.post("/nodes/gpu-09/remove").location == "/nodes"
    assert olga.get("/nodes/gpu-09").status_code == 404


@pytest.mark.parametrize(
    ("public_url", "option", "warning"),
    [
        ("https://booking.example", "", ""),
        ("http://booking.example:8800", " --plain-http", "is not encrypted"),
        ("http://10.0.0.1:8800", " --plain-http", "is not encrypted"),
        ("http://127.0.0.1:8800", "", "leads every other machine to itself"),
        ("http://[::1]:8800", "", "leads every other machine to itself"),
        ("http://localhost:8800", "", "leads every other machine to itself"),
    ],
)
def test_an_invites_commands_are_such_as_the_agent_takes(
    tmp_path: Path, public_url: str, option: str, warning: str
) -> None:
    lab = make_lab(tmp_path, public_url=public_url)
    page = signed_in(lab, "olga").post("/nodes/gpu-01/invite").text
    code = shown_secret(page, "code")
    began = f"SENTINEL_AGENT_CODE={code} sentinel-agent"
    server = f"--server {public_url}{option}"
    assert shown_secret(page, "command") == (
        f"{began} install {server} --breakglass USER=PUBKEYFILE"
    )
    assert shown_secret(page, "register") == f"{began} register {server}"
    for said in ("is not encrypted", "leads every other machine to itself"):
        assert (said in visible_text(page)) is (said == warning)


def test_a_node_with_bookings_is_not_removed(lab: APIFlask) -> None:
    olga = signed_in(lab, "olga")
    answer = olga.post("/nodes/gpu-01/remove")
    assert answer.status_code == 409
    assert "gpu-01 has 3 reservations that run or come" in visible_text(answer.text)


def test_a_refused_node_keeps_what_was_typed(lab: APIFlask) -> None:
    olga = signed_in(lab, "olga")
    form = {"name": "Bad Name", "cluster": "c", "address": "not an address", "mode": "x"}
    answer = olga.post("/nodes/add", form)
    assert answer.status_code == 422
    text = visible_text(answer.text)
    assert "Lower-case letters, digits" in text
    assert "Not a host name or an IP address." in text
    assert 'value="Bad Name"' in answer.text
    assert 'value="not an address"' in answer.text
    assert olga.post("/nodes/add", {"name": "gpu-01"}).status_code == 409
