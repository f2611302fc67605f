"""A node on which things are made to fail, and the comparison with what was promised.

The promises are in failure_table.py; what makes things fail is in test_failures_*.py.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.agent.booking_server import BookingServer, make_grant
from tests.agent.conftest import Lab, Session
from tests.agent.failure_table import Promise
from tests.lab.node import Node, why_not
from tests.lab.wait import wait_for

# alice holds a reservation, bob's was released, carol never had one, ops is break-glass.
USERS = ("alice", "bob", "carol", "ops")
STATE = "/var/lib/sentinel"
KEYS_INSIDE = "/etc/lab-keys"
# Longer than get-keys gives itself, and than a login takes on a busy machine.
LOGIN_LIMIT_S = 6.0
# Rows wait more than they work: with two nodes they take half the time.
NODES = 2

Failure = Callable[["Matrix"], AbstractContextManager[None]]
# What is done with a node, and leaves it as it was.
Row = Callable[["Matrix"], None]


class Matrix:
    """The lab in its steady state, which every failure starts from and comes back to."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.node = lab.node
        self.server = lab.server
        self._grants = {
            user: make_grant(user, lab.keys[user], end_s=7200, reservation=number)
            for number, user in enumerate(USERS, start=1)
        }
        # Whether the row before left all as it was.
        self._is_proven = False

    def grants_for(self, *users: str) -> list[dict[str, object]]:
        """Return a grant for each of the users, the same at each call."""
        return [self._grants[user] for user in users]

    def settle(self) -> None:
        """Start the agent with bob's reservation, release it, and leave alice hers."""
        self.server.grant(*self.grants_for("alice", "bob"))
        self.lab.start_agent()
        granted = self.node.root / STATE.lstrip("/") / "granted.json"
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
        deadline = time.monotonic() + LOGIN_LIMIT_S
        entered = set()
        for user, knock in knocks.items():
            try:
                status = knock.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                knock.kill()
                status = knock.wait()
            if status == 0:
                entered.add(user)
        return entered

    def check(self, *, is_booked_in: bool, inside: bool = False) -> None:
        """Fail unless break-glass gets in, and of the others the booked user or nobody."""
        entered = self.who_gets_in(inside=inside)
        assert entered == ({"ops", "alice"} if is_booked_in else {"ops"})

    def is_booked_in(self) -> bool:
        """Say whether the booked user gets in; fail when anybody does who must not."""
        entered = self.who_gets_in()
        assert "ops" in entered
        assert not entered & {"bob", "carol"}
        return "alice" in entered

    def compare(self, promise: Promise, failure: Failure) -> None:
        """Let it fail, compare, mend it, and see that all is as before."""
        if not self._is_proven:
            self.check(is_booked_in=True)
        self._is_proven = False
        with self.lab.session("alice") as session, contextlib.ExitStack() as failing:
            if promise.booked == "in again":
                # The agent mends it at once: without it, the failure can be looked at.
                with self.agent_hung():
                    failing.enter_context(failure(self))
                    self.check(is_booked_in=False)
            else:
                failing.enter_context(failure(self))
                self.check(is_booked_in=promise.booked == "in")
                assert session.is_open()
                failing.close()
            wait_for("all is as before", self.is_booked_in)
            assert session.is_open()
            # Nothing of the failure comes to light later, when all works again.
            assert is_alive(session)
        self._is_proven = True

    @contextlib.contextmanager
    def agent_hung(self) -> Iterator[None]:
        """Have an agent that does nothing for as long as it lasts."""
        assert self.node.agent is not None
        self.node.send_signal(self.node.agent, signal.SIGSTOP)
        try:
            yield
        finally:
            # nsenter stops itself with its command, and goes on with it.
            self.node.agent.send_signal(signal.SIGCONT)
            self.node.send_signal(self.node.agent, signal.SIGCONT)

    def restart_agent(self) -> None:
        """Start an agent in the place of one that has ended, and wait until it reports."""
        self.node.start_agent()
        self.wait_for_agent()

    def wait_for_agent(self) -> None:
        """Wait until the agent reports, with the policy that the server has."""
        beats, version = len(self.server.heartbeats), self.server.policy["version"]
        wait_for(
            "the agent reports",
            lambda: any(b["policy_version"] == version for b in self.server.heartbeats[beats:]),
        )

    def is_reported(self, text: str) -> bool:
        """Say whether the last heartbeat has a problem with this text in it."""
        return any(text in problem for problem in self.lab.agent_problems())

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
    with Node("gpu-01", folder) as node, BookingServer(node.host_address) as server:
        node.install_lock()
        keys = {name: node.make_key(name) for name in USERS}
        for name, key in keys.items():
            node.add_user(name)
            node.write(f"{KEYS_INSIDE}/{name}", key.read_text(), mode=0o600)
        node.add_breakglass("ops", keys["ops"])
        # A disk of its own for what the agent keeps, which can be filled up.
        node.run(["mount", "-t", "tmpfs", "-o", "size=256k,mode=0750", "state", STATE])
        node.run(["chgrp", "sentinel-akc", STATE])
        # As `sentinel-agent install` leaves it: the gates are the agent's to put back.
        node.write(f"{STATE}/install.json", "{}", mode=0o600)
        node.start_sshd()
        matrix = Matrix(Lab(node, server, keys))
        matrix.settle()
        yield matrix


def row(promise: Promise, failure: Failure) -> tuple[str, Row]:
    """Return the row's name, and what compares the failure with its promise."""
    return promise.failure, lambda matrix: matrix.compare(promise, failure)


@contextlib.contextmanager
def outcomes(folder: Path, rows: Mapping[str, Row]) -> Iterator[dict[str, Future[None]]]:
    """Run the rows, by name, on a few nodes side by side.

    Each row leaves its node as it found it, for the next; after one that fails the next row
    has a new node.
    """
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    found: dict[str, Future[None]] = {name: Future() for name in rows}
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    for name in rows:
        waiting.put(name)

    def run_rows(own: Path) -> None:
        for number in itertools.count():
            name = None
            try:
                (own / f"{number}").mkdir(parents=True)
                with matrix_in(own / f"{number}") as matrix:
                    while (name := _next(waiting)) is not None:
                        rows[name](matrix)
                        found[name].set_result(None)
                return
            except BaseException as error:  # also pytest's own: the row's test raises it
                # Without a node none of the others can run either.
                lost = [name] if name is not None else list(iter(lambda: _next(waiting), None))
                for one in lost:
                    found[one].set_exception(error)

    threads = [
        threading.Thread(target=run_rows, args=(folder / f"{number}",))
        for number in range(min(NODES, len(rows)))
    ]
    for thread in threads:
        thread.start()
    try:
        yield found
    finally:
        # A test that was given up leaves rows that nobody asks for.
        while _next(waiting) is not None:
            pass
        for thread in threads:
            thread.join()


def _next(waiting: queue.SimpleQueue[str]) -> str | None:
    try:
        return waiting.get_nowait()
    except queue.Empty:
        return None
