"""Does what a plan says: writes to terminals and ends processes. It decides nothing."""

from __future__ import annotations

import logging
import os
import signal
import stat
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

log = logging.getLogger(__name__)

# Linux' major numbers of Unix98 terminals: Documentation/admin-guide/devices.txt.
PTY_MAJORS = range(136, 144)
# The greatest uid that there is: no account has it and no process runs with it.
UNUSED_UID = 2**32 - 2
POLL_S = 0.1
KILL_WAIT_S = 1.0

# Returns how many live processes each of the uids has.
Count = Callable[[Collection[int]], Mapping[int, int]]


def write_to_terminals(uid: int, text: str, folder: Path = Path("/dev/pts")) -> int:
    """Write a line to each terminal that the uid owns; return how many took it.

    It reaches tmux and those who said `mesg n`. A terminal that is stopped (Ctrl-S) takes
    nothing and does not hold us up.
    """
    line = f"\r\n\a*** ServerSentinel: {text} ***\r\n".encode()
    written = 0
    try:
        terminals = [path for path in folder.iterdir() if path.name.isdigit()]
    except OSError as error:
        # Who cannot be warned is ended all the same.
        log.error("terminals not found folder=%s reason=%s", folder, error.strerror)
        return 0
    for path in terminals:
        try:
            opened = os.open(
                path,
                os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW | os.O_CLOEXEC,
            )
        except OSError:  # it was closed meanwhile
            continue
        try:
            found = os.fstat(opened)
            is_pty = stat.S_ISCHR(found.st_mode) and os.major(found.st_rdev) in PTY_MAJORS
            if is_pty and found.st_uid == uid:
                written += os.write(opened, line) > 0
        except OSError as error:
            log.info("terminal took no warning terminal=%s reason=%s", path, error.strerror)
        finally:
            os.close(opened)
    return written


def end_users(firsts: Mapping[int, bool], count: Count, term_s: float) -> dict[int, int]:
    """End every process of these uids; return how many each has left, by `count`.

    `firsts` says for each uid whether it is asked before it is killed: HUP and TERM, and up to
    `term_s` seconds for all of them together. The kernel signals all processes of a user at
    once when the user's own credentials ask for -1, which a process that keeps forking cannot
    outrun; a list of pids it can.
    """
    asked = [uid for uid, is_first in firsts.items() if is_first]
    for number in (signal.SIGHUP, signal.SIGTERM):
        for uid in asked:
            _try_to_signal(uid, number)
        _wait_for_end(asked, count, term_s / 2)
    for uid in firsts:
        _try_to_signal(uid, signal.SIGKILL)
    _wait_for_end(firsts, count, KILL_WAIT_S)
    return {uid: left for uid, left in count(firsts).items() if left}


def signal_all(uid: int, number: signal.Signals) -> None:
    """Send the signal to every process of the uid.

    Raises ValueError for root, PermissionError when it could not be done.
    """
    if uid <= 0:
        raise ValueError("root's processes are not ended")
    pid = os.fork()
    if pid == 0:
        _become_and_signal(uid, number)
    _, status = os.waitpid(pid, 0)
    if status != 0:
        raise PermissionError(f"cannot signal as uid {uid}: wait status {status}")


def _try_to_signal(uid: int, number: signal.Signals) -> None:
    try:
        signal_all(uid, number)
    except OSError as error:
        # One user who cannot be ended must not keep the others.
        log.error("cannot signal uid=%d signal=%s reason=%s", uid, number.name, error)


def _become_and_signal(uid: int, number: signal.Signals) -> None:
    """Be the forked child: never return, and touch nothing another thread may have locked."""
    status = 1
    try:
        # kill(2): the sender counts by its real and effective uid, the target by its real and
        # saved one. So this reaches all that is the user's, and nothing of the user's reaches
        # it: one that shares the uid would be killed by a process that kills all it can.
        os.setresuid(UNUSED_UID, uid, UNUSED_UID)
        # As root, -1 would be every process of the machine.
        if os.getresuid() == (UNUSED_UID, uid, UNUSED_UID):
            status = 0
            os.kill(-1, number)
    finally:
        # kill(2) fails when nobody is there any more, and that is what was wanted.
        os._exit(status)


def _wait_for_end(uids: Collection[int], count: Count, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while uids and any(count(uids).values()) and time.monotonic() < deadline:
        time.sleep(POLL_S)
