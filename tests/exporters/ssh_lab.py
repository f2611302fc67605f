"""A node in which the ssh collector runs beside sshd, and clients that stay. Judges nothing."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.exporters.running import parse_series, values
from tests.lab.node import SSHD_CONFIG, Node
from tests.lab.wait import wait_for

CONFIG = SSHD_CONFIG.replace(".ssh/authorized_keys", "/etc/ssh/lab_keys/%u")
# The interpreter itself may lie where only root can read.
CHECK_AS_NOBODY = """
import os
import secrets
import signal
from sentinel_exporters import cli
from sentinel_exporters.catalog import find_collectors
from sentinel_exporters.config import load_config
# All that is read is read before: nobody may not be able to reach the source tree.
collectors = find_collectors()
config = load_config(None, collectors, {"collectors": "ssh"})
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
raise SystemExit(cli.check(config, collectors))
"""

Counts = Mapping[tuple[str, str], float]


class Lab:
    """A node with alice and bob, and clients that stay until end()."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.key = node.make_key("login")
        self.clients: list[subprocess.Popen[bytes]] = []

    def add_key(self, user: str) -> None:
        """Let the lab's key open the account."""
        public = self.key.with_suffix(".pub").read_text()
        self.node.write(f"/etc/ssh/lab_keys/{user}", public)

    def log_in(
        self,
        user: str,
        *command: str,
        options: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a client; its session stays open as long as its standard input."""
        client = subprocess.Popen(
            [*self.node.ssh_argv(user, self.key, *options), *command],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, **(env or {})},
        )  # fmt: skip
        self.clients.append(client)
        return client

    def start_exporter(self) -> None:
        """Start the exporter in the node."""
        argv = [sys.executable, "-m", "sentinel_exporters", "--collectors", "ssh"]
        self.node.popen(argv, log="exporter")
        wait_for("the exporter listens", lambda: "listening" in self.node.log("exporter"))

    def page(self) -> str:
        """Return what the exporter in the node says now."""
        url = f"http://{self.node.address}:9641/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return str(answer.read().decode())

    def scrape(self) -> tuple[Counts, float]:
        """Return the same as counts; see read_counts()."""
        return read_counts(self.page())

    def wait_until(self, expected: Counts, connections: float) -> None:
        """Wait until exactly this is told: a login takes a moment."""
        try:
            wait_for(
                "the sessions are counted", lambda: self.scrape() == (expected, connections)
            )
        except AssertionError as error:
            table = self.node.run(["ps", "-eo", "pid,ppid,ruser,tty,comm,args"]).stdout
            raise AssertionError(f"{self.scrape()} is told of\n{table}") from error

    @contextlib.contextmanager
    def another_sshd(self, config: str, *inside: str) -> Iterator[None]:
        """Run a second sshd on port 2200, `inside` a command; only the listener is ended."""
        self.node.write("/etc/ssh/another", config)
        argv = [*inside, "/usr/sbin/sshd", "-D", "-e", "-p", "2200", "-f", "/etc/ssh/another"]
        name = f"sshd-{secrets.token_hex(4)}"
        process = self.node.popen(argv, log=name)
        wait_for("it listens", lambda: "Server listening" in self.node.log(name))
        try:
            yield
        finally:
            self.node.send_signal(process, signal.SIGKILL)
            process.wait(10)

    def end(self) -> None:
        """End every client, as a lost network does."""
        for client in self.clients:
            client.kill()
            client.wait()
            assert client.stdin is not None
            client.stdin.close()
        self.clients.clear()


def read_counts(page: str) -> tuple[Counts, float]:
    """Return {(user, type): sessions} and the number of connections."""
    series = parse_series(page)
    sessions = {
        (dict(labels)["user"], dict(labels)["type"]): value
        for (name, labels), value in series.items()
        if name == "ssh_sessions"
    }
    return sessions, values(series, "ssh_connections")[""]


@contextlib.contextmanager
def make_lab(name: str, folder: Path, users: Sequence[str]) -> Iterator[Lab]:
    """Start a node with these users and root, sshd and the exporter."""
    with Node(name, folder) as node:
        lab = Lab(node)
        for user in users:
            node.add_user(user, password="secret")
        for user in (*users, "root"):
            lab.add_key(user)
        node.start_sshd(CONFIG)
        lab.start_exporter()
        yield lab
        lab.end()
