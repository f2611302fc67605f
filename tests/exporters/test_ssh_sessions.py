"""The ssh collector beside a real sshd, real clients and real users, in a lab node."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.exporters.ssh_lab import CHECK_AS_NOBODY, Lab, make_lab, read_counts
from tests.lab.node import why_not
from tests.lab.wait import wait_for

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))


@pytest.fixture(scope="module")
def node_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with make_lab("ssh-01", tmp_path_factory.mktemp("ssh"), ["alice", "bob"]) as lab:
        yield lab


@pytest.fixture
def lab(node_lab: Lab) -> Iterator[Lab]:
    node_lab.wait_until({}, 0)
    yield node_lab
    node_lab.end()


def test_each_kind_of_session_of_each_user_is_counted(lab: Lab) -> None:
    lab.log_in("alice", options=["-tt"])
    lab.log_in("alice", "cat")
    lab.log_in("alice", options=["-N"])
    lab.log_in("bob", "cat")
    lab.log_in("bob", "cat")
    lab.wait_until(
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
    lab.wait_until({}, 0)


@pytest.mark.parametrize("user", ["alice", "root"])
def test_a_file_transfer_is_a_command(lab: Lab, user: str) -> None:
    lab.log_in(user, "sftp", options=["-s"])
    lab.wait_until({(user, "exec"): 1}, 1)


def test_roots_sessions_are_counted_too(lab: Lab) -> None:
    lab.log_in("root", options=["-tt"])
    lab.log_in("root", "cat")
    lab.log_in("root", options=["-N"])
    lab.wait_until({("root", "pty"): 1, ("root", "exec"): 1, ("root", "forward-only"): 1}, 3)


def test_sessions_that_share_a_connection_are_counted_each(lab: Lab, tmp_path: Path) -> None:
    shared = ["-S", str(tmp_path / "master")]
    lab.log_in("alice", options=["-M", "-N", *shared])
    lab.wait_until({("alice", "forward-only"): 1}, 1)
    lab.log_in("alice", "cat", options=shared)
    lab.log_in("alice", "cat", options=shared)
    lab.log_in("alice", options=["-tt", *shared])
    lab.wait_until({("alice", "exec"): 2, ("alice", "pty"): 1}, 1)


def test_a_client_that_has_not_logged_in_is_not_counted(lab: Lab) -> None:
    with socket.create_connection((lab.node.address, 22)) as stranger:
        stranger.sendall(b"SSH-2.0-stranger\r\n")
        assert stranger.recv(100).startswith(b"SSH-2.0-OpenSSH")
        lab.log_in("alice", "cat")
        lab.wait_until({("alice", "exec"): 1}, 1)


def test_a_user_can_neither_invent_sessions_nor_leave_them_behind(lab: Lab) -> None:
    # A program of his called sshd, with another's title, in his session and beyond its end.
    lies = "cp /bin/sleep /tmp/sshd; exec -a 'sshd: bob@pts/9' setsid /tmp/sshd 300"
    lab.log_in("alice", f'bash -c "({lies}) >/dev/null 2>&1 </dev/null & cat"')
    lab.wait_until({("alice", "exec"): 1}, 1)
    wait_for("the liar runs", lambda: "sshd 300" in str(lab.node.processes("alice")))
    assert lab.scrape() == ({("alice", "exec"): 1}, 1)
    lab.end()
    lab.wait_until({}, 0)
    assert "sshd 300" in str(lab.node.processes("alice"))


def test_an_unprivileged_exporter_counts_the_same(lab: Lab) -> None:
    lab.log_in("alice", "cat")
    lab.log_in("root", "cat")
    expected = {("alice", "exec"): 1, ("root", "exec"): 1}
    lab.wait_until(expected, 2)
    page = lab.node.run([sys.executable, "-c", CHECK_AS_NOBODY]).stdout
    assert read_counts(page) == (expected, 2)
