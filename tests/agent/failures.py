"""A node on which things are made to fail, and the comparison with what was promised.

The promises are in failure_table.py; who makes things fail is in test_failures_*.py.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.agent.booking_server import BookingServer, make_grant
from tests.agent.conftest import Lab, Session
from tests.agent.failure_table import Promise
from tests.lab.node import Node, Setting, why_not
from tests.lab.wait import wait_for

# alice holds a reservation, bob's was released, carol never had one, ops is break-glass.
USERS = ("alice", "bob", "carol", "ops")
# Longer than get-keys gives itself, and than a login takes on a busy machine.
LOGIN_LIMIT_S = 8.0
KEYS_INSIDE = "/etc/lab-keys"

Failure = Callable[["Matrix"], AbstractContextManager[None]]


class Matrix:
    """The lab in its steady state, which every failure starts from and comes back to."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.node = lab.node
        self.server = lab.server
        # Whether the row before left all as it was.
        self._is_proven = False

    def grants_for(self, *users: str) -> list[dict[str, object]]:
        """Return a grant for each of the users, from a minute ago to two hours from now."""
        return [make_grant(user, self.lab.keys[user], end_s=7200) for user in users]

    def settle(self, **settings: Setting) -> None:
        """Start the agent with bob's reservation, release it, and give alice hers."""
        self.server.grant(*self.grants_for("alice", "bob"))
        self.lab.start_agent(**settings)
        granted = self.node.root / "var/lib/sentinel/granted.json"
        wait_for(
            "bob's reservation is seen",
            lambda: "bob" in json.loads(granted.read_text())["users"],
        )
        self.server.grant(*self.grants_for("alice"))
        self.lab.wait_for_policy()

    def who_gets_in(self, *, inside: bool = False) -> set[str]:
        """Return who of the four gets in now; all knock at the same time.

        `inside`: they knock from the node itself, for when it has no network.
        """
        knocks = {}
        for user in USERS:
            argv = self.node.ssh_argv(user, self.lab.keys[user])
            if inside:
                argv = self.node.ssh_argv(user, Path(KEYS_INSIDE, user))
                argv = self.node.argv([*argv[:-1], f"{user}@127.0.0.1"])
            knocks[user] = subprocess.Popen(
                [*argv, "true"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, cwd="/",
            )  # fmt: skip
        entered = set()
        for user, knock in knocks.items():
            try:
                status = knock.wait(LOGIN_LIMIT_S)
            except subprocess.TimeoutExpired:
                knock.kill()
                status = knock.wait()
            if status == 0:
                entered.add(user)
        return entered

    def expect(self, promise: Promise, *, inside: bool = False) -> None:
        """Compare who gets in with the promise."""

        def is_kept() -> bool:
            entered = self.who_gets_in(inside=inside)
            assert "ops" in entered
            assert not entered & {"bob", "carol"}
            return ("alice" in entered) == (promise.booked != "out")

        if promise.booked == "in again":
            wait_for("the booked user gets in again", is_kept)
        else:
            assert is_kept(), f"alice was promised: {promise.booked}"

    def run(self, promise: Promise, failure: Failure) -> None:
        """Let it fail, compare, mend it, and see that all is as before."""
        if not self._is_proven:
            assert self.who_gets_in() == {"alice", "ops"}
        self._is_proven = False
        with self.lab.session("alice") as session:
            with failure(self):
                self.expect(promise)
                assert session.is_open()
            wait_for("all is as before", lambda: self.who_gets_in() == {"alice", "ops"})
            # Nothing of the failure comes to light later, when all works again.
            assert is_alive(session)
        self._is_proven = True

    @contextlib.contextmanager
    def agent_stopped(self) -> Iterator[None]:
        """Have no agent for as long as it lasts."""
        self.node.stop_agent()
        try:
            yield
        finally:
            self.node.start_agent()

    def has_logged(self, text: str, start: int) -> bool:
        """Say whether the agent's log has the text behind its first `start` characters."""
        return text in self.node.log("agent")[start:]


def is_alive(session: Session) -> bool:
    """Say whether the session still answers what is typed."""
    if not session.is_open():
        return False
    assert session.process.stdin is not None
    # The terminal and `cat` both say it.
    wanted = session.text().count("still-here") + 2
    session.process.stdin.write(b"still-here\n")
    session.process.stdin.flush()
    return bool(wait_for("it answers", lambda: session.text().count("still-here") >= wanted))


@contextlib.contextmanager
def matrix_in(folder: Path) -> Iterator[Matrix]:
    """A node with the four users, sshd and the agent in the steady state."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    with Node("gpu-01", folder) as node, BookingServer(node.host_address) as server:
        node.install_lock()
        keys = {name: node.make_key(name) for name in USERS}
        for name, key in keys.items():
            node.add_user(name)
            node.write(f"{KEYS_INSIDE}/{name}", key.read_text(), mode=0o600)
        node.add_breakglass("ops", keys["ops"])
        node.start_sshd()
        matrix = Matrix(Lab(node, server, keys))
        matrix.settle()
        yield matrix
