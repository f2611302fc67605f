"""Where explain is asked about users, and its answer is tried at the door."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.agent.booking_server import BookingServer, make_grant
from tests.agent.conftest import Lab
from tests.lab.node import Node, why_not
from tests.lab.wait import wait_for

STATE = "/var/lib/sentinel"
CACHE = f"{STATE}/policy.json"
SITE = "/etc/ssh/sshd_config.d/50-site.conf"


@dataclass
class Said:
    """What explain said of a user, for a program."""

    status: int
    document: dict[str, object]

    def topic(self, name: str) -> str:
        """Return the lines of one topic."""
        sections = self.document["sections"]
        assert isinstance(sections, list)
        return "\n".join(
            line["text"]
            for section in sections
            for line in section["lines"]
            if section["topic"] == name
        )


class Desk:
    """A locked node with an agent; alice holds a reservation, ops is break-glass."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.node = lab.node
        # What alice holds unless a test says otherwise.
        self.alices = make_grant("alice", lab.keys["alice"], reservation=12)

    def ask(self, user: str) -> Said:
        done = self.node.run(self.node.agent_argv("explain", user, "--json"), check=False)
        assert done.stdout, done.stderr
        return Said(done.returncode, json.loads(done.stdout))

    def check(self, user: str, code: str, *, key: str | None = None) -> Said:
        """Ask about the user, compare with a login, and return what was said."""
        said = self.ask(user)
        assert said.document["code"] == code, said.document
        # With sshd's permission, and by the account's shell.
        login = self.node.ssh(user, self.lab.keys[key or user], "true")
        is_let_in = login.returncode == 0
        assert said.document["let_in"] == is_let_in, said.document
        assert said.status == (0 if is_let_in else 1)
        return said

    def put_policy(self, *grants: dict[str, object], **more: object) -> None:
        """Have the agent put these grants in force."""
        self.lab.server.grant(*grants, **more)
        self.lab.wait_for_policy()

    @contextlib.contextmanager
    def changed(self, change: str, back: str) -> Iterator[None]:
        """Run a shell command in the node, and another one at the end."""
        self.node.run(["sh", "-ec", change])
        try:
            yield
        finally:
            self.node.run(["sh", "-ec", back])

    @contextlib.contextmanager
    def without_agent(self) -> Iterator[None]:
        """Have no agent, which would mend what is broken; what it keeps is put back."""
        self.node.stop_agent()
        self.node.run(["cp", "-a", STATE, "/var/kept"])
        try:
            yield
        finally:
            self.node.run(["sh", "-c", f"rm -rf {STATE}; mv /var/kept {STATE}"])
            beats = len(self.lab.server.heartbeats)
            self.node.start_agent()
            wait_for("the agent reports", lambda: len(self.lab.server.heartbeats) > beats)
            self.lab.wait_for_policy()

    @contextlib.contextmanager
    def site_setting(self, text: str) -> Iterator[None]:
        """Have sshd read a file of the site's own."""
        self.node.write(SITE, text)
        self.node.reload_sshd()
        try:
            yield
        finally:
            self.node.run(["rm", SITE])
            self.node.reload_sshd()


@contextlib.contextmanager
def desk_in(folder: Path) -> Iterator[Desk]:
    """Make the node and what is on it."""
    with Node("gpu-01", folder) as node, BookingServer(node.host_address) as server:
        node.install_lock(ignored_users=["watcher"])
        keys = {name: node.make_key(name) for name in ("alice", "bob", "ops", "watcher")}
        for name in keys:
            node.add_user(name)
        node.add_breakglass("ops", keys["ops"])
        node.start_sshd()
        desk = Desk(Lab(node, server, keys))
        server.grant(desk.alices)
        desk.lab.start_agent(ignored_users=["watcher"], metrics_listen="127.0.0.1:9642")
        yield desk


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """One node for all tests of a module; each puts back what it changes."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    with desk_in(tmp_path_factory.mktemp("explain")) as desk:
        yield desk


@pytest.fixture
def desk(shared: Desk) -> Desk:
    """The shared node, on which alice holds a reservation."""
    if shared.lab.server.policy["grants"] != [shared.alices]:
        shared.put_policy(shared.alices)
    return shared
