"""Ends the processes that hold a device they must not. It does not decide which those are."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Collection, Sequence
from typing import Protocol

from ..sessions.apply import signal_all
from .holders import Holder

log = logging.getLogger(__name__)

KILL_WAIT_S = 1.0
POLL_S = 0.05
# So many processes are signalled in one go: each takes a file descriptor of the agent's.
BATCH = 128


class FindIntruders(Protocol):
    """Finds those who hold what they must not, at the time of the call."""

    def __call__(
        self, pids: Collection[int] | None = None, uids: Collection[int] | None = None
    ) -> list[Holder]:
        """Return them: of these pids, or of all; of these uids, or of all."""


def end_holders(found: Sequence[Holder], find: FindIntruders, term_s: float) -> None:
    """End these processes, and those that they start and that hold the same.

    They are asked first and have `term_s` seconds; who has let go of the device by then goes
    on. All else of the same users goes on too.
    """
    uids = {holder.uid for holder in found}
    _signal(found, find, signal.SIGTERM)
    _wait(find, {holder.pid for holder in found}, term_s)
    left = find(uids=uids)
    _signal(left, find, signal.SIGKILL)
    _wait(find, {holder.pid for holder in left}, KILL_WAIT_S)
    for uid in {holder.uid for holder in find(uids=uids)}:
        end_frozen(uid, find)


def end_frozen(uid: int, find: FindIntruders) -> int:
    """Kill the user's processes that hold a device while all the user's processes stand still.

    Returns how many there were. One that forks faster than we look is never where we look. A
    shell may tell its user that a job was stopped: that is why this is the last thing tried.
    """
    stopped = _stopped(uid)
    left: list[Holder] = []
    try:
        signal_all(uid, signal.SIGSTOP)
        left = find(uids=[uid])
        _signal(left, find, signal.SIGKILL)
    except OSError as error:
        log.error("cannot stop processes uid=%d reason=%s", uid, error)
    finally:
        # Nothing that was killed runs on, so that the others need not wait for its end.
        with contextlib.suppress(OSError):
            signal_all(uid, signal.SIGCONT)
        # What the user had stopped before stays so.
        for opened in stopped:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(opened, signal.SIGSTOP)
            os.close(opened)
    _wait(find, {holder.pid for holder in left}, KILL_WAIT_S)
    return len(left)


def _signal(holders: Sequence[Holder], find: FindIntruders, number: signal.Signals) -> None:
    """Signal those of the processes that are holders still."""
    for start in range(0, len(holders), BATCH):
        opened: dict[int, int] = {}
        try:
            for holder in holders[start : start + BATCH]:
                with contextlib.suppress(OSError):  # it has ended
                    opened[holder.pid] = os.pidfd_open(holder.pid)
            # Who is a holder now is the process that the pidfd stands for, or that one has
            # ended and the pidfd reaches nobody: a pid that was given anew is never hit.
            for holder in find(pids=opened):
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(opened[holder.pid], number)
        finally:
            for descriptor in opened.values():
                os.close(descriptor)


def _wait(find: FindIntruders, pids: Collection[int], seconds: float) -> None:
    """Wait until none of these holds anything any more, or the time is up."""
    deadline = time.monotonic() + seconds
    while pids and time.monotonic() < deadline and find(pids=pids):
        time.sleep(POLL_S)


def _stopped(uid: int) -> list[int]:
    """Return pidfds of the user's processes that are stopped."""
    found: list[int] = []
    for entry in os.listdir("/proc"):  # noqa: PTH208  names only, for each process
        if len(found) == BATCH:
            break  # who has stopped so many of his own has other worries
        if not entry.isdigit() or not _is_stopped(entry, uid):
            continue
        with contextlib.suppress(OSError):  # it has ended
            opened = os.pidfd_open(int(entry))
            # Looked at again: the pid may have been given anew before it was opened, and it is
            # root's perhaps. What is so now is either this process or no longer there.
            if _is_stopped(entry, uid):
                found.append(opened)
            else:
                os.close(opened)
    return found


def _is_stopped(pid: str, uid: int) -> bool:
    """Say whether it is the user's and stopped; one that has ended is not.

    Format: proc_pid_status(5).
    """
    try:
        with open(f"/proc/{pid}/status", "rb") as file:  # noqa: PTH123  for each process
            text = file.read()
    except OSError:
        return False
    state = text.partition(b"\nState:\t")[2][:1]
    return state == b"T" and int(text.partition(b"\nUid:\t")[2].split(None, 1)[0]) == uid
