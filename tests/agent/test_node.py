"""The lab node itself: what the other tests trust it to do."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.node import REPOSITORY, Node, why_not
from tests.lab.wait import wait_for

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))


def test_nothing_that_a_node_changes_reaches_the_host(tmp_path: Path) -> None:
    users = Path("/etc/passwd").read_bytes()
    with Node("one", tmp_path) as node:
        node.add_user("lab-only")
        node.write("/usr/lib/sentinel-lab/file", "x")
        node.write("/tmp/sentinel-lab", "x")
        assert "lab-only" in (node.root / "etc/passwd").read_text()
    assert Path("/etc/passwd").read_bytes() == users
    assert not Path("/usr/lib/sentinel-lab").exists()
    assert not Path("/tmp/sentinel-lab").exists()


def test_two_nodes_run_side_by_side_and_reach_the_host(tmp_path: Path) -> None:
    with Node("one", tmp_path) as one, Node("two", tmp_path) as two:
        assert one.address != two.address
        for node in (one, two):
            assert node.run(["hostname"]).stdout == f"{node.name}\n"
            with socket.create_server((node.host_address, 0)) as server:
                port = server.getsockname()[1]
                connect = (
                    f"import socket; socket.create_connection(('{node.host_address}', {port}))"
                )
                node.run([sys.executable, "-c", connect])
                peer = server.accept()[1]
            assert peer[0] == node.address


def test_a_node_sees_the_tests_own_python_and_sources(tmp_path: Path) -> None:
    with Node("one", tmp_path) as node:
        done = node.run([sys.executable, "-c", "import sentinel_agent as a; print(a.__file__)"])
        assert Path(done.stdout.strip()).is_relative_to(REPOSITORY)


def test_a_node_ends_when_the_test_process_is_killed(tmp_path: Path) -> None:
    script = (
        "import pathlib, sys, time\n"
        f"sys.path.insert(0, {str(REPOSITORY)!r})\n"
        "from tests.lab.node import Node\n"
        f"node = Node('one', pathlib.Path({str(tmp_path)!r}))\n"
        "node.start()\n"
        "sleeper = node.popen(['sleep', '1000'])\n"
        "print(sleeper.pid, flush=True)\n"
        "time.sleep(1000)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as test:
        assert test.stdout is not None
        sleeper = int(test.stdout.readline())
        os.kill(test.pid, signal.SIGKILL)
    wait_for("the node's command is gone", lambda: not is_running(sleeper))


def test_a_node_that_cannot_be_entered_is_refused_and_the_machine_stays_as_it_is(
    tmp_path: Path,
) -> None:
    """Inside a chroot nsenter would reach the machine around it."""
    script = (
        f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})\n"
        "from pathlib import Path\n"
        "from tests.lab.node import Node\n"
        f"with Node('n1', Path({str(tmp_path)!r})) as node:\n"
        "    node.run(['touch', '/etc/trace-of-a-node'])\n"
    )
    root = tmp_path / "root"
    root.mkdir()
    inside = 'mount --rbind / "$1" && exec chroot "$1" "$2" -c "$3"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", inside, "sh", str(root), sys.executable, script],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "the node cannot be entered" in done.stderr
    assert not Path("/etc/trace-of-a-node").exists()


def is_running(pid: int) -> bool:
    """Say whether the process lives; one that nobody has reaped yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
