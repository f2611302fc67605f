"""The last resort against who keeps a card open: what it leaves behind in the agent."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Collection
from pathlib import Path

import pytest

from sentinel_agent.cards.holders import Holder
from sentinel_agent.cards.revoke import end_frozen
from tests.lab.node import why_not
from tests.lab.wait import wait_for

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

# Nobody's: all processes of the uid are signalled.
UID = 64321


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
