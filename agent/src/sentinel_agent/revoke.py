"""Ends the processes that hold a device they must not. It does not decide which those are."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import time
from collections.abc import Collection, Iterator, Sequence
from typing import Protocol

from .apply import signal_all
from .holders import Holder

log = logging.getLogger(__name__)

KILL_WAIT_S = 1.0


class FindIntruders(Protocol):
    """Finds those who hold what they must not, at the time of the call."""

    def __call__(
        self, pids: Sequence[int] | None = None, uid: int | None = None
    ) -> list[Holder]:
        """Return them: of these pids, or of all; of this uid, or of all."""


def end_holders(found: Sequence[Holder], find: FindIntruders, term_s: float) -> list[Holder]:
    """End these processes, and those of the same kind that they start; return who is left.

    They are asked first and have `term_s` seconds; who has let go of the device by then goes
    on. All else of the same users goes on too.
    """
    with _signalled(found, find, signal.SIGTERM) as ending:
        _wait(ending, term_s)
    left = find()
    with _signalled(left, find, signal.SIGKILL) as ending:
        _wait(ending, KILL_WAIT_S)
    left = find()
    for uid in {holder.uid for holder in left}:
        end_frozen(uid, find)
    return find() if left else []


def end_frozen(uid: int, find: FindIntruders) -> int:
    """Kill the user's processes that hold a device while all the user's processes stand still.

    Returns how many there were.

    One that forks faster than we look is never where we look. A shell may tell its user that a
    job was stopped: that is why this is the last thing tried.
    """
    stopped = _stopped(uid)
    ending: list[int] = []
    with contextlib.ExitStack() as stack:
        try:
            signal_all(uid, signal.SIGSTOP)
            left = find(uid=uid)
            ending = stack.enter_context(_signalled(left, find, signal.SIGKILL))
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
        _wait(ending, KILL_WAIT_S)
    return len(ending)


@contextlib.contextmanager
def _signalled(
    holders: Sequence[Holder], find: FindIntruders, number: signal.Signals
) -> Iterator[list[int]]:
    """Signal the holders; yield pidfds, which can be read once the process has ended."""
    opened: dict[int, int] = {}
    try:
        for holder in holders:
            with contextlib.suppress(OSError):  # it has ended
                opened[holder.pid] = os.pidfd_open(holder.pid)
        # Who is a holder now is the process that the pidfd stands for, or that one has ended
        # and the pidfd reaches nobody: a pid that was given anew is never hit.
        ending = []
        for holder in find(list(opened)):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(opened[holder.pid], number)
                ending.append(opened[holder.pid])
        yield ending
    finally:
        for descriptor in opened.values():
            os.close(descriptor)


def _wait(pidfds: Collection[int], seconds: float) -> None:
    """Wait until all these processes have ended, or the time is up."""
    deadline = time.monotonic() + seconds
    poll = select.poll()
    left = set(pidfds)
    for descriptor in left:
        poll.register(descriptor, select.POLLIN)
    while left and (wait_s := deadline - time.monotonic()) > 0:
        for descriptor, _ in poll.poll(wait_s * 1000):
            poll.unregister(descriptor)
            left.discard(descriptor)


def _stopped(uid: int) -> list[int]:
    """Return pidfds of the user's processes that are stopped. Format: proc_pid_status(5)."""
    found = []
    for entry in os.listdir("/proc"):  # noqa: PTH208  names only, for each process
        if not entry.isdigit():
            continue
        with contextlib.suppress(OSError):
            with open(f"/proc/{entry}/status", "rb") as file:  # noqa: PTH123  as above
                text = file.read()
            state = text.partition(b"\nState:\t")[2][:1]
            if state == b"T" and int(text.partition(b"\nUid:\t")[2].split(None, 1)[0]) == uid:
                found.append(os.pidfd_open(int(entry)))
    return found
