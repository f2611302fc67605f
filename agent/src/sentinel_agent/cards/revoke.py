"""Ends the processes that hold a device they must not. It does not decide which those are."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from ..sessions.apply import signal_all
from .holders import Holder, pids_of

log = logging.getLogger(__name__)

KILL_WAIT_S = 1.0
POLL_S = 0.05
# So many processes are signalled in one go: each takes a file descriptor of the agent's.
BATCH = 128
# How long one process may take to stand still before the next is asked to.
STOP_WAIT_S = 0.005
STOP_POLL_S = 0.0002
# The states of a process that will run on.
RUNNING = (b"R", b"S", b"D")


class FindIntruders(Protocol):
    """Finds those who hold what they must not, at the time of the call."""

    def __call__(
        self, pids: Collection[int] | None = None, uids: Collection[int] | None = None
    ) -> list[Holder]:
        """Return them: of these pids, or of all; of these uids, or of all."""


def end_holders(
    found: Sequence[Holder],
    find: FindIntruders,
    may_stop: Callable[[int], bool],
    term_s: float,
) -> None:
    """End these processes, and those that they start and that hold the same.

    They are asked first and have `term_s` seconds; who has let go of the device by then goes
    on. All else of the same users goes on too. `may_stop` says by uid, when it comes to that,
    whose processes may all be made to stand still for a moment.
    """
    uids = {holder.uid for holder in found}
    _signal(found, find, signal.SIGTERM)
    _wait(find, {holder.pid for holder in found}, term_s)
    left = find(uids=uids)
    _signal(left, find, signal.SIGKILL)
    _wait(find, {holder.pid for holder in left}, KILL_WAIT_S)
    for uid in _elusive(find, uids):
        # Some seconds have passed: the user may be exempt by now, or the mode be another.
        if may_stop(uid):
            end_frozen(uid, find)


def _elusive(find: FindIntruders, uids: Collection[int]) -> set[int]:
    """Return the users who hold it still, or of whom the look may have missed a process."""
    before = pids_of(uids)
    left = find(uids=uids)
    after = pids_of(uids)
    return {holder.uid for holder in left} | {uid for uid in uids if before[uid] != after[uid]}


def end_frozen(uid: int, find: FindIntruders) -> int:
    """Kill the user's processes that hold a device while all the user's processes stand still.

    Returns how many there were. One that forks faster than we look is never where we look.
    """
    stopped, running = _open_all(uid)
    left: list[Holder] = []
    try:
        _stop_one_by_one(running)
        signal_all(uid, signal.SIGSTOP)
        left = find(uids=[uid])
        _signal(left, find, signal.SIGKILL)
    except OSError as error:
        log.error("cannot stop processes uid=%d reason=%s", uid, error)
    finally:
        # Nothing that was killed runs on, so that the others need not wait for its end.
        for _, opened in reversed(running):
            with contextlib.suppress(OSError):  # it has ended
                signal.pidfd_send_signal(opened, signal.SIGCONT)
        with contextlib.suppress(OSError):
            signal_all(uid, signal.SIGCONT)
        # What the user had stopped before stays so.
        for _, opened in stopped:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(opened, signal.SIGSTOP)
        for _, opened in (*stopped, *running):
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


def _stop_one_by_one(running: Sequence[tuple[int, int]]) -> None:
    """Stop these processes, given as by `_open_all`, each before the next is asked to.

    A shell that sees its job stop takes it for the user's wish, and says so; one that stands
    still already does not, and its job goes on before it does.
    """
    for pid, opened in running:
        with contextlib.suppress(OSError):  # it has ended
            signal.pidfd_send_signal(opened, signal.SIGSTOP)
        deadline = time.monotonic() + STOP_WAIT_S
        while _state(pid)[0] in RUNNING and time.monotonic() < deadline:
            time.sleep(STOP_POLL_S)


def _open_all(uid: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Return pids and pidfds of the user's processes that are stopped, and of the others.

    Those that started others are before them. Ended ones are not among them.
    """
    states: dict[int, bytes] = {}
    parents: dict[int, int] = {}
    for pid in (int(entry) for entry in os.listdir("/proc") if entry.isdigit()):  # noqa: PTH208  names only
        state, owner, parent = _state(pid)
        if owner == uid and state in (b"T", *RUNNING):
            states[pid], parents[pid] = state, parent
    stopped: list[tuple[int, int]] = []
    running: list[tuple[int, int]] = []
    for pid in _parents_first(parents):
        kept = stopped if states[pid] == b"T" else running
        # Who has started so many, or stopped so many, hears of it.
        if len(kept) == BATCH:
            continue
        with contextlib.suppress(OSError):  # it has ended
            opened = os.pidfd_open(pid)
            # Looked at again: the pid may have been given anew before it was opened, and it is
            # root's perhaps. What is so now is either this process or no longer there.
            if _state(pid)[1] == uid:
                kept.append((pid, opened))
            else:
                os.close(opened)
    return stopped, running


def _parents_first(parents: Mapping[int, int]) -> list[int]:
    """Return these processes, given with their parents, each parent before its children.

    The pids do not say it: after the greatest the kernel begins anew. When they were started
    says it too, but /proc tells that of no process that hangs.
    """
    children: dict[int, list[int]] = {}
    for pid in sorted(parents):
        children.setdefault(parents[pid], []).append(pid)
    order = [pid for pid in sorted(parents) if parents[pid] not in parents]
    for pid in order:
        order += children.get(pid, ())
    return order


def _state(pid: int) -> tuple[bytes, int, int]:
    """Return the letter of the process' state, its real uid and its parent's pid.

    b"", -1 and -1 when it is gone. Format: proc_pid_status(5).
    """
    try:
        with open(f"/proc/{pid}/status", "rb") as file:  # noqa: PTH123  for each process
            text = file.read()
    except OSError:
        return b"", -1, -1
    state = text.partition(b"\nState:\t")[2][:1]
    uid, parent = (
        int(text.partition(key)[2].split(None, 1)[0]) for key in (b"\nUid:\t", b"\nPPid:\t")
    )
    return state, uid, parent
