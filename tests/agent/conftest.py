"""A node with the lock on it, and the booking server that its agent talks to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.agent.booking_server import CODE, BookingServer
from tests.lab.node import Node, wait_until, why_not


@dataclass
class Lab:
    """Alice and Bob have keys and accounts; ops is break-glass. No reservation yet."""

    node: Node
    server: BookingServer
    keys: dict[str, Path]

    def start_agent(self, **settings: str | float | bool) -> None:
        """Register and start the agent; returns when the policy is in the cache."""
        usual: dict[str, str | float | bool] = {"reconcile_s": 0.3, "grace_s": 1}
        self.node.register_agent(self.server.url, CODE, **(usual | settings))
        self.node.start_agent()
        self.wait_for_policy()

    def wait_for_policy(self) -> None:
        """Wait until the agent has written the version that the server has."""
        version = self.server.policy["version"]
        wait_until(
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
