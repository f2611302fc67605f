"""The last resort against who keeps a card open: what it leaves behind in the agent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection
from pathlib import Path

import pytest

from sentinel_agent.cards import revoke
from sentinel_agent.cards.holders import Holder
from sentinel_agent.cards.revoke import end_frozen, end_holders
from sentinel_agent.sessions.apply import signal_all
from tests.lab.node import why_not
from tests.lab.wait import wait_for

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

# All processes of the uid are signalled.
UID = 64321


@pytest.fixture(autouse=True)
def _nobodys_uid() -> None:
    if os.system(f"pgrep -U {UID} >/dev/null") == 0:
        pytest.skip(f"uid {UID} is somebody's here")


def nobody(
    pids: Collection[int] | None = None, uids: Collection[int] | None = None
) -> list[Holder]:
    return []


def test_a_process_that_ends_while_it_is_looked_at_leaves_no_descriptor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with subprocess.Popen(["sleep", "1000"], user=UID) as child:
        child.send_signal(signal.SIGSTOP)
        status = Path(f"/proc/{child.pid}/status")
        wait_for("it is stopped", lambda: "T (stopped)" in status.read_text())
        open_pidfd = os.pidfd_open

        def open_and_end(pid: int) -> int:
            opened = open_pidfd(pid)
            child.kill()
            child.wait()
            return opened

        monkeypatch.setattr(os, "pidfd_open", open_and_end)
        before = sorted(Path("/proc/self/fd").iterdir())
        assert end_frozen(UID, nobody) == 0
    assert child.returncode == -signal.SIGKILL
    assert sorted(Path("/proc/self/fd").iterdir()) == before


@pytest.mark.parametrize(
    ("before", "after", "may_stop", "is_frozen"),
    [
        ({7}, {7}, True, False),
        ({7}, {8}, True, True),
        ({7}, {7, 8}, True, True),
        ({7, 8}, {7}, True, True),
        ({7}, {8}, False, False),
    ],
)
def test_who_changes_processes_while_the_last_look_is_taken_is_looked_at_standing_still(
    monkeypatch: pytest.MonkeyPatch,
    before: set[int],
    after: set[int],
    may_stop: bool,
    is_frozen: bool,
) -> None:
    looks = iter([before, after])
    frozen: list[int] = []
    monkeypatch.setattr(revoke, "pids_of", lambda _: {UID: frozenset(next(looks))})
    monkeypatch.setattr(revoke, "end_frozen", lambda uid, _: frozen.append(uid))
    end_holders([Holder(0, UID, frozenset({1}))], nobody, lambda _: may_stop, 0.1)
    assert frozen == [UID] * is_frozen


# In a namespace of its own, where it says which pid comes next: each process starts the next.
CHAIN = """
import os, sys, time
from pathlib import Path
from sentinel_agent.cards.revoke import _open_all
uid = int(sys.argv[1])
ready, begun = os.pipe()
def start(last, *more):
    Path("/proc/sys/kernel/ns_last_pid").write_text(str(last))
    if os.fork() == 0:
        if more:
            start(*more)
        os.setresuid(uid, uid, uid)
        os.write(begun, b".")
        time.sleep(600)
start(20000, 400, 30000)
for _ in range(3):
    os.read(ready, 1)
stopped, running = _open_all(uid)
print(*(pid for pid, _ in running))
"""


def test_who_has_started_others_is_stopped_before_them_whatever_the_pids() -> None:
    namespace = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    argv = [*namespace, sys.executable, "-c", CHAIN, str(UID + 9)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("20001 401 30001\n", "")


def test_a_shell_does_not_take_it_for_its_users_wish(tmp_path: Path) -> None:
    log = tmp_path / "log"
    # `script` gives it a terminal, without which it has no jobs.
    shell = ["script", "--quiet", "--command", "PS1= exec bash --norc -i", "/dev/null"]
    with log.open("wb") as output, subprocess.Popen(
        shell, stdin=subprocess.PIPE, stdout=output, stderr=output, user=UID, cwd="/"
    ) as process:  # fmt: skip
        try:
            assert process.stdin is not None
            process.stdin.write(b"sleep 1000; echo the job is over\n")
            process.stdin.flush()
            wait_for("the job runs", lambda: "sleep" in _commands())
            for _ in range(30):
                assert end_frozen(UID, nobody) == 0
                time.sleep(0.02)
            assert "sleep" in _commands()
        finally:
            signal_all(UID, signal.SIGKILL)
    assert "sleep 1000" in log.read_text()
    assert "Stopped" not in log.read_text()
    assert "over" not in log.read_text().replace("echo the job is over", "")


def _commands() -> list[str]:
    """Return the names of the uid's processes."""
    argv = ["ps", "-U", str(UID), "-o", "comm="]
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.split()
