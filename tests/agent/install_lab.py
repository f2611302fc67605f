"""A node before the lock is installed on it, and the commands that do it."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.agent.booking_server import CODE, BookingServer
from tests.agent.lock_lab import LockLab
from tests.lab.node import Node

# All that an installation may touch.
SYSTEM = ("etc", "usr/lib/sentinel", "usr/lib/systemd", "usr/lib/sysusers.d",
          "var/lib/sentinel")  # fmt: skip
# Backups and locks of the tools that change accounts.
NOISE = ("etc/passwd-", "etc/group-", "etc/shadow-", "etc/gshadow-", "etc/.pwd.lock",
         "etc/subuid-", "etc/subgid-")  # fmt: skip


@dataclass
class InstallLab(LockLab):
    """A node as its distribution left it, and a booking server whose mode is `observe`."""

    server: BookingServer

    def install(
        self, *more: str, code: str = CODE, breakglass: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run `sentinel-agent install`."""
        operators = ["--breakglass", "ops=/var/keys/ops.pub"] if breakglass else []
        argv = ["install", "--server", self.server.url, "--plain-http", *operators, *more]
        env = {"SENTINEL_AGENT_CODE": code} if code else {}
        return self.node.run(self.node.agent_argv(*argv), env=env, check=False)

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run another command of the agent."""
        return self.node.run(self.node.agent_argv(command), check=False)

    def system(self) -> dict[str, tuple[object, ...]]:
        """Return `tree` of everything that an installation may touch."""
        found = self.tree(*SYSTEM)
        return {path: what for path, what in found.items() if path not in NOISE}

    def registrations(self) -> int:
        """Return how often the invite code was presented."""
        return sum(request.endswith("/register") for request in self.server.requests)

    def lock(self) -> str:
        """Return what the last heartbeat said of the lock."""
        return str(self.server.heartbeats[-1].get("lock")) if self.server.heartbeats else ""

    def problems(self) -> str:
        """Return the problems of the last heartbeat."""
        return str(self.server.heartbeats[-1]["problems"]) if self.server.heartbeats else ""

    def start_agent(self) -> None:
        """Start the agent with the settings of these tests."""
        config = (self.node.root / "etc/sentinel/agent.toml").read_text()
        quick = "heartbeat_s = 0.3\nreconcile_s = 0.3\ninventory_command = ['true']\n"
        self.node.write("/etc/sentinel/agent.toml", quick + config)
        self.node.start_agent()


@contextlib.contextmanager
def install_lab(folder: Path) -> Iterator[InstallLab]:
    """Yield it with the accounts and keys of Alice and of ops."""
    with Node("gpu-01", folder) as node, BookingServer(node.host_address) as server:
        server.policy["mode"] = "observe"
        keys = {name: node.make_key(name) for name in ("alice", "ops")}
        node.run(["mkdir", "-p", "/etc/systemd/system"])
        for name, key in keys.items():
            node.add_user(name)
            node.run(["install", "-d", "-o", name, "-m", "0700", f"/home/{name}/.ssh"])
            public = key.with_suffix(".pub").read_text()
            node.write(f"/home/{name}/.ssh/authorized_keys", public, mode=0o600, owner=name)
            node.write(f"/var/keys/{name}.pub", public)
        node.start_sshd()
        made = InstallLab(node, keys, server=server)
        yield made
        made.close()
