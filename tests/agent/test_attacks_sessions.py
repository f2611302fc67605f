"""Ways to stay, or to hide, once a session is open: all end with the reservation."""

from __future__ import annotations

import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator

import pytest

from tests.agent.booking_server import make_grant
from tests.agent.conftest import Lab
from tests.lab.wait import wait_for

# argv[0], the name in /proc (prctl(2), PR_SET_NAME), and both of an sshd of somebody else's.
SPOOFED = """\
(exec -a 'sshd: ops [priv]' sleep 1001) &
(exec -a 'sshd: bob@pts/0' sleep 1002) &
python3 -c 'import ctypes, time; ctypes.CDLL(None).prctl(15, b"sshd"); time.sleep(99)' &
python3 -c 'import ctypes, time; ctypes.CDLL(None).prctl(15, b"tmux: s"); time.sleep(99)' &
cp /bin/sleep ~/sshd && (exec -a sshd ~/sshd 1005) &
cp /bin/sleep ~/sshd-session && ~/sshd-session 1006 &
"""


@pytest.fixture
def control_path() -> Iterator[str]:
    """Where a master listens: a socket's path has 108 bytes, and a test's own folder more."""
    with tempfile.TemporaryDirectory(prefix="sn") as folder:
        yield f"ControlPath={folder}/master"


def by_master(lab: Lab, control_path: str, *command: str) -> subprocess.CompletedProcess[str]:
    """Open a session in the connection that Alice's master keeps."""
    argv = lab.node.ssh_argv("alice", None, "-o", control_path, "-o", "ControlMaster=no")
    return subprocess.run(
        [*argv, *command], stdin=subprocess.DEVNULL, capture_output=True, text=True,
        check=False, timeout=60,
    )  # fmt: skip


def test_an_old_control_master_opens_nothing_after_the_end(lab: Lab, control_path: str) -> None:
    """sshd asks neither gate for a further session in a connection that is open."""
    lab.server.grant(make_grant("alice", lab.keys["alice"]))
    lab.start_agent()
    master = ("-N", "-o", "ControlMaster=yes", "-o", control_path)
    argv = lab.node.ssh_argv("alice", lab.keys["alice"], *master)
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as connection:
        try:
            wait_for(
                "the master is there",
                lambda: by_master(lab, control_path, "true").returncode == 0,
            )
            # Without the agent both gates are shut, and the master opens sessions all the same.
            lab.node.stop_agent()
            lab.node.write_policy(lab.server.policy | {"version": 9, "grants": []})
            assert not lab.is_let_in("alice")
            assert by_master(lab, control_path, "echo in").stdout == "in\n"
            lab.server.grant(version=10)
            lab.node.start_agent()
            assert connection.wait(30) != 0
        finally:
            connection.kill()
    assert by_master(lab, control_path, "echo in").stdout == ""
    wait_for("nothing of hers is left", lambda: not lab.node.processes("alice"))


def test_names_of_processes_hide_nobody_and_feign_nobody(lab: Lab) -> None:
    lab.server.grant(
        make_grant("alice", lab.keys["alice"]),
        make_grant("bob", lab.keys["bob"], reservation=2),
    )
    lab.start_agent()
    with lab.session("alice", f"{SPOOFED} cat"), lab.session("bob") as bob:
        wait_for("all of them run", lambda: len(lab.node.processes("alice")) >= 8)
        beats = len(lab.server.heartbeats)
        wait_for("two more heartbeats", lambda: len(lab.server.heartbeats) >= beats + 2)
        assert lab.server.heartbeats[-1]["sessions"] == {"alice": 1, "bob": 1}
        lab.server.grant(make_grant("bob", lab.keys["bob"], reservation=2))
        wait_for("nothing of hers is left", lambda: not lab.node.processes("alice"))
        assert bob.is_open()
        assert lab.node.agent is not None
        assert lab.node.agent.poll() is None


def test_what_the_gates_answered_is_counted(lab: Lab) -> None:
    lab.server.grant(make_grant("alice", lab.keys["alice"]))
    lab.start_agent(metrics_listen=f"{lab.node.address}:9642")

    def count(result: str, gate: str) -> float:
        url = f"http://{lab.node.address}:9642/metrics"
        with urllib.request.urlopen(url, timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        name = f'sentinel_agent_logins_total{{gate="{gate}",result="{result}"}} '
        (value,) = (line.removeprefix(name) for line in lines if line.startswith(name))
        return float(value)

    wait_for("the agent listens", lambda: lab.node.run(
        ["test", "-S", "/run/sentinel/logins.sock"], check=False).returncode == 0)  # fmt: skip
    assert lab.is_let_in("alice")
    assert not lab.is_let_in("bob")
    assert lab.is_let_in("ops")
    wait_for("the login is counted", lambda: count("granted", "pam") == 1)
    wait_for("the refusal is counted", lambda: count("refused", "keys") == 1)
    assert count("refused", "pam") == 0
