"""A node with the lock on it, and the booking server that its agent talks to."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sentinel_agent.server.registration import Registration, store_registration
from sentinel_agent.sessions.plan import utc
from tests.agent.booking_server import TOKEN, BookingServer
from tests.lab.node import Node, Setting, why_not
from tests.lab.wait import wait_for


@dataclass
class Session:
    """One SSH client that stays connected."""

    process: subprocess.Popen[bytes]
    log: Path

    def text(self) -> str:
        """Return what the user has seen."""
        return self.log.read_text(errors="replace")

    def is_open(self) -> bool:
        """Say whether the client is still connected."""
        return self.process.poll() is None


@dataclass
class Lab:
    """Alice and Bob have keys and accounts; ops is break-glass. No reservation yet."""

    node: Node
    server: BookingServer
    keys: dict[str, Path]
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def start_agent(self, **settings: Setting) -> None:
        """Register and start the agent; returns when the policy is in the cache."""
        usual: dict[str, Setting] = {
            "reconcile_s": 0.3,
            "heartbeat_s": 0.5,
            "grace_s": 1,
            "term_s": 0.5,
            "inventory_command": ["cat", "/etc/sentinel/inventory.json"],
        }
        self.node.write("/etc/sentinel/inventory.json", '{"devices": [], "problems": []}')
        self.node.write_agent_config(self.server.url, **(usual | settings))
        # As `register` leaves it; test_daemon.py runs that.
        registration = Registration("gpu-01", TOKEN, self.server.url, utc(time.time()))
        store_registration(self.node.root / "var/lib/sentinel", registration)
        self.node.start_agent()
        self.wait_for_policy()

    def wait_for_policy(self) -> None:
        """Wait until the agent has written the version that the server has."""
        version = self.server.policy["version"]
        wait_for(
            f"version {version} is in the cache",
            lambda: f'"version":{version},' in self.cache(),
        )

    def cache(self) -> str:
        """Return the cache's text, empty without one."""
        path = self.node.root / "var/lib/sentinel/policy.json"
        return path.read_text() if path.exists() else ""

    def is_let_in(self, user: str, key: str | None = None) -> bool:
        """Say whether the user gets in now, with the named key or the user's own."""
        done = self.node.ssh(user, self.keys[key or user], "true")
        assert done.returncode in (0, 255), done.stderr
        return done.returncode == 0

    @contextlib.contextmanager
    def session(
        self, user: str, command: str = "cat", *, options: Sequence[str] = ("-tt",)
    ) -> Iterator[Session]:
        """Open an SSH session that has a terminal, unless told; ends it at the latest."""
        log = self.node.folder / f"session-{next(self._numbers)}.log"
        argv = self.node.ssh_argv(user, self.keys[user], *options)
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*argv, f"echo it-is-open; {command}"],
                stdin=subprocess.PIPE, stdout=output, stderr=output,
            )  # fmt: skip
        session = Session(process, log)
        try:
            wait_for("the session is open", lambda: "it-is-open" in session.text())
            yield session
        finally:
            process.kill()
            process.communicate()

    def agent_problems(self) -> list[str]:
        """Return the problems of the agent's last heartbeat."""
        beats = self.server.heartbeats
        found = beats[-1]["problems"] if beats else []
        assert isinstance(found, list)
        return found


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A node with sshd and the lock; the agent is not started."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    with Node("gpu-01", tmp_path) as node, BookingServer(node.host_address) as server:
        node.install_lock()
        keys = {name: node.make_key(name) for name in ("alice", "bob", "ops")}
        for name in keys:
            node.add_user(name, password=f"{name}-password")
        node.add_breakglass("ops", keys["ops"])
        node.start_sshd()
        yield Lab(node, server, keys)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node with both gates and Alice's account; no sshd, no agent."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    with Node("gpu-01", tmp_path_factory.mktemp("gates")) as node:
        node.install_lock()
        node.add_user("alice")
        yield node
