"""The ssh collector beside a real sshd, real clients and real users, in a lab node."""

from __future__ import annotations

import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.exporters.running import parse_series, values
from tests.lab.node import SSHD_CONFIG, Node, why_not
from tests.lab.wait import wait_for

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

# The interpreter itself may lie where only root can read.
AS_NOBODY = """
import os
from sentinel_exporters import cli
from sentinel_exporters.catalog import find_collectors
from sentinel_exporters.config import load_config
# All that is read is read before: nobody may not be able to reach the source tree.
collectors = find_collectors()
config = load_config(None, collectors, {"collectors": "ssh"})
os.setgroups([])
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

    def log_in(self, user: str, *command: str, options: Sequence[str] = ()) -> None:
        """Start a client; its session stays open as long as its standard input."""
        self.clients.append(
            subprocess.Popen(
                [*self.node.ssh_argv(user, self.key, *options), *command],
                stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
        )  # fmt: skip

    def start_exporter(self) -> None:
        """Start the exporter in the node."""
        argv = [sys.executable, "-m", "sentinel_exporters", "--collectors", "ssh"]
        self.node.popen(argv, log="exporter")
        wait_for("the exporter listens", lambda: "listening" in self.node.log("exporter"))

    def scrape(self) -> tuple[Counts, float]:
        """Return what the exporter in the node says now; see read_counts()."""
        url = f"http://{self.node.address}:9641/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return read_counts(answer.read().decode())

    def wait_for(self, expected: Counts, connections: float) -> None:
        """Wait until exactly this is told: a login takes a moment."""
        try:
            wait_for(
                "the sessions are counted", lambda: self.scrape() == (expected, connections)
            )
        except AssertionError as error:
            table = self.node.run(["ps", "-eo", "pid,ppid,ruser,tty,comm,args"]).stdout
            raise AssertionError(f"{self.scrape()} is told of\n{table}") from error

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


@pytest.fixture(scope="module")
def node_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Node("ssh-01", tmp_path_factory.mktemp("ssh")) as node:
        lab = Lab(node)
        for user in ("alice", "bob"):
            node.add_user(user)
        for user in ("alice", "bob", "root"):
            node.write(f"/etc/ssh/lab_keys/{user}", lab.key.with_suffix(".pub").read_text())
        node.start_sshd(SSHD_CONFIG.replace(".ssh/authorized_keys", "/etc/ssh/lab_keys/%u"))
        lab.start_exporter()
        yield lab
        lab.end()


@pytest.fixture
def lab(node_lab: Lab) -> Iterator[Lab]:
    node_lab.wait_for({}, 0)
    yield node_lab
    node_lab.end()


def test_each_kind_of_session_of_each_user_is_counted(lab: Lab) -> None:
    lab.log_in("alice", options=["-tt"])
    lab.log_in("alice", "cat")
    lab.log_in("alice", options=["-N"])
    lab.log_in("bob", "cat")
    lab.log_in("bob", "cat")
    lab.wait_for(
        {
            ("alice", "pty"): 1,
            ("alice", "exec"): 1,
            ("alice", "forward-only"): 1,
            ("bob", "exec"): 2,
        },
        5,
    )
    lab.end()
    # Who has gone has no series, and not a zero.
    lab.wait_for({}, 0)


@pytest.mark.parametrize("user", ["alice", "root"])
def test_a_file_transfer_is_a_command(lab: Lab, user: str) -> None:
    lab.log_in(user, "sftp", options=["-s"])
    lab.wait_for({(user, "exec"): 1}, 1)


def test_roots_sessions_are_counted_too(lab: Lab) -> None:
    lab.log_in("root", options=["-tt"])
    lab.log_in("root", "cat")
    lab.log_in("root", options=["-N"])
    lab.wait_for({("root", "pty"): 1, ("root", "exec"): 1, ("root", "forward-only"): 1}, 3)


def test_sessions_that_share_a_connection_are_counted_each(lab: Lab, tmp_path: Path) -> None:
    shared = ["-S", str(tmp_path / "master")]
    lab.log_in("alice", options=["-M", "-N", *shared])
    lab.wait_for({("alice", "forward-only"): 1}, 1)
    lab.log_in("alice", "cat", options=shared)
    lab.log_in("alice", "cat", options=shared)
    lab.log_in("alice", options=["-tt", *shared])
    lab.wait_for({("alice", "exec"): 2, ("alice", "pty"): 1}, 1)


def test_a_client_that_has_not_logged_in_is_not_counted(lab: Lab) -> None:
    with socket.create_connection((lab.node.address, 22)) as stranger:
        stranger.sendall(b"SSH-2.0-stranger\r\n")
        assert stranger.recv(100).startswith(b"SSH-2.0-OpenSSH")
        lab.log_in("alice", "cat")
        lab.wait_for({("alice", "exec"): 1}, 1)


def test_a_user_can_neither_invent_sessions_nor_leave_them_behind(lab: Lab) -> None:
    # A program of his called sshd, with another's title, in his session and beyond its end.
    lies = "cp /bin/sleep /tmp/sshd; exec -a 'sshd: bob@pts/9' setsid /tmp/sshd 300"
    lab.log_in("alice", f'bash -c "({lies}) >/dev/null 2>&1 </dev/null & cat"')
    lab.wait_for({("alice", "exec"): 1}, 1)
    wait_for("the liar runs", lambda: "sshd 300" in str(lab.node.processes("alice")))
    assert lab.scrape() == ({("alice", "exec"): 1}, 1)
    lab.end()
    lab.wait_for({}, 0)
    assert "sshd 300" in str(lab.node.processes("alice"))


def test_an_unprivileged_exporter_counts_the_same(lab: Lab) -> None:
    lab.log_in("alice", "cat")
    lab.log_in("root", "cat")
    expected = {("alice", "exec"): 1, ("root", "exec"): 1}
    lab.wait_for(expected, 2)
    page = lab.node.run([sys.executable, "-c", AS_NOBODY]).stdout
    assert read_counts(page) == (expected, 2)
