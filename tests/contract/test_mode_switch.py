"""One click on the node's page locks the node, and another one opens it: all parts real."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from sentinel_booking.models import Role
from tests.booking.page_visitor import visible_text
from tests.booking.people import PASSWORD, add_user
from tests.contract.real_lab import NODE, RealLab, real_lab
from tests.lab.wait import wait_for


class Operator:
    """Olga at the pages."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._session = requests.Session()
        form = {"name": "olga", "password": PASSWORD, "next": "/"}
        self._session.post(f"{url}/login", data=form, timeout=10).raise_for_status()

    def read(self) -> str:
        """Return the text of the node's page."""
        return visible_text(self._html())

    def click(self, button: str) -> None:
        """Press the button that switches the mode, with what its form holds."""
        html = self._html()
        forms = [form for form in html.split("<form")[1:] if f"/nodes/{NODE}/mode" in form]
        (form,) = [form.split("</form>")[0] for form in forms]
        assert f">{button}</button>" in form
        fields = dict(re.findall(r'name="(\w+)" value="(\w+)"', form))
        answer = self._session.post(f"{self._url}/nodes/{NODE}/mode", data=fields, timeout=10)
        answer.raise_for_status()

    def _html(self) -> str:
        answer = self._session.get(
            f"{self._url}/nodes/{NODE}", headers={"Accept-Language": "en"}, timeout=10
        )
        answer.raise_for_status()
        return answer.text


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[RealLab]:
    """An open node on which the lock is installed; bob has a key of his own there."""
    with real_lab(tmp_path, ("bob", "ops"), "observe") as lab:
        node = lab.node
        node.install_gates()
        node.add_breakglass("ops", lab.keys["ops"])
        node.run(["install", "-d", "-o", "bob", "-m", "0700", "/home/bob/.ssh"])
        public = lab.keys["bob"].with_suffix(".pub").read_text()
        node.write("/home/bob/.ssh/authorized_keys", public, mode=0o600, owner="bob")
        node.write("/var/lib/sentinel/install.json", '{"format": 1}', mode=0o600)
        node.start_sshd()
        add_user(lab.app, "olga", Role.OPERATOR)
        lab.start_agent(heartbeat_s=0.5, reconcile_s=0.3, grace_s=1, term_s=0.5)
        yield lab


def is_let_in(lab: RealLab, name: str) -> bool:
    return lab.node.ssh(name, lab.keys[name], "true").returncode == 0


def test_one_click_locks_the_node_and_another_one_opens_it(lab: RealLab) -> None:
    olga = Operator(lab.url)
    argv = [*lab.node.ssh_argv("bob", lab.keys["bob"], "-tt"), "echo in; exec sleep 600"]
    with subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as session:
        try:
            assert session.stdout is not None
            assert session.stdout.readline().strip() == "in"
            wait_for(
                "the page says who would be ended",
                lambda: "would end bob: no running reservation" in olga.read(),
            )
            text = olga.read()
            assert "Now no booking runs" in text
            assert "Logged in without a booking: bob (1)." in text
            assert "Mode in force observe On the node open" in text

            olga.click("Start enforcing")
            wait_for(
                "the page says that it is locked",
                lambda: "Mode in force enforce On the node locked" in olga.read(),
            )
            assert "its lock is not in place" not in olga.read()
            # What bob had open is warned and ended.
            assert "no running reservation" in session.communicate(timeout=30)[0]
        finally:
            session.kill()
    assert not is_let_in(lab, "bob")
    assert is_let_in(lab, "ops")

    olga.click("Back to observing")
    wait_for(
        "the page says that it is open",
        lambda: "Mode in force observe On the node open" in olga.read(),
    )
    assert is_let_in(lab, "bob")
