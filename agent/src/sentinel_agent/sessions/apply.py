"""Does what a plan says: writes to terminals and ends processes. It decides nothing."""

from __future__ import annotations

import logging
import os
import signal
import stat
from pathlib import Path

log = logging.getLogger(__name__)

# Linux' major numbers of Unix98 terminals: Documentation/admin-guide/devices.txt.
PTY_MAJORS = range(136, 144)
# The greatest uid that there is: no account has it and no process runs with it.
UNUSED_UID = 2**32 - 2


def write_to_terminals(uid: int, *texts: str, folder: Path = Path("/dev/pts")) -> int:
    """Write a line for each text to each terminal that the uid owns; return how many took it.

    It reaches tmux and those who said `mesg n`. A terminal that is stopped (Ctrl-S) takes
    nothing and does not hold us up.
    """
    lines = "".join(f"\r\n*** ServerSentinel: {text} ***" for text in texts)
    content = f"\a{lines}\r\n".encode()
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
                written += os.write(opened, content) > 0
        except OSError as error:
            log.info("terminal took no warning terminal=%s reason=%s", path, error.strerror)
        finally:
            os.close(opened)
    return written


def signal_all(uid: int, number: signal.Signals) -> None:
    """Send the signal to every process of the uid.

    The kernel signals all processes of a user at once when the user's own credentials ask for
    -1, which a process that keeps forking cannot outrun; a list of pids it can. Raises
    ValueError for root, PermissionError when it could not be done.
    """
    if uid <= 0:
        raise ValueError("root's processes are not ended")
    pid = os.fork()
    if pid == 0:
        _become_and_signal(uid, number)
    _, status = os.waitpid(pid, 0)
    if status != 0:
        raise PermissionError(f"cannot signal as uid {uid}: wait status {status}")


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
