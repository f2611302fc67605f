"""A user's process that looks like root's sshd: nothing of it is believed, or run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent.lock_lab import LockLab, Refused, make_lock_lab
from tests.lab.node import Node, why_not
from tests.lab.wait import wait_for

# A setuid program that waits for input is root's in /proc, and keeps name, arguments and open
# sockets of whoever starts it.
FEIGNED = """\
import os, socket
os.symlink("/usr/bin/passwd", "/home/alice/sshd")
listener = socket.create_server(("127.0.0.1", 2345))
listener.set_inheritable(True)
waiting, held = os.pipe()
os.set_inheritable(held, True)
os.dup2(waiting, 0)
os.execv("/home/alice/sshd", ["/home/alice/hers"])
"""


@pytest.fixture
def lock(tmp_path: Path) -> Iterator[LockLab]:
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    with Node("gpu-01", tmp_path) as node:
        lab = make_lock_lab(node)
        try:
            yield lab
        finally:
            lab.close()


def test_a_setuid_program_is_no_sshd(lock: LockLab) -> None:
    """Else its first argument would be run by root: so sshd's own arguments are tried."""
    assert lock.call("engage") == []
    lock.stop_sshd()
    lock.node.write(
        "/home/alice/hers", "#!/bin/sh\nid -u >>/home/alice/ran\n", mode=0o755, owner="alice"
    )
    lock.node.popen(["python3", "-c", FEIGNED], user="alice", log="feigned")
    comms = "cat /proc/[0-9]*/comm"
    wait_for("it has the name", lambda: "sshd\n" in lock.node.run(["sh", "-c", comms]).stdout)
    answer = lock.call("release")
    assert not (lock.node.root / "home/alice/ran").exists()
    assert not isinstance(answer, Refused)
    assert lock.state() == "open"
