"""Find out whose a process is and its name, from /proc. Decides nothing by it."""

from __future__ import annotations

import pwd
from collections.abc import Iterable
from pathlib import Path

PROC = Path("/proc")
SUBUID = Path("/etc/subuid")


def find_owners(pids: Iterable[int], proc: Path = PROC) -> dict[int, str]:
    """Return the owner's name for each process; one that is gone or hidden is left out."""
    names: dict[int, str] = {}
    owners: dict[int, str] = {}
    for pid in set(pids):
        uid = read_real_uid(pid, proc)
        if uid is None:
            continue
        if uid not in names:
            names[uid] = user_name(uid)
        owners[pid] = names[uid]
    return owners


def read_real_uid(pid: int, proc: Path = PROC) -> int | None:
    """Return the real user id, or None for a process that is gone or hidden.

    From `status`, not from the owner of the folder: that is root for a process that may not
    be dumped (proc(5)).
    """
    try:
        status = (proc / str(pid) / "status").read_bytes()
    except OSError:
        return None
    for line in status.splitlines():
        if line.startswith(b"Uid:"):
            return int(line.split()[1])
    return None


def user_name(uid: int, subuid: Path = SUBUID) -> str:
    """Return the user's name, or the number where nobody is known by it.

    What runs in a container without root has a uid that was lent to the container's user, and
    counts as that user's.
    """
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return _borrower(uid, subuid) or str(uid)


def _borrower(uid: int, subuid: Path) -> str:
    """Return to whom the uid is lent, or "". Format: subuid(5), name or uid:first:count."""
    try:
        lines = subuid.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        name, _, numbers = line.strip().partition(":")
        first, _, count = numbers.partition(":")
        if not (_is_number(first) and _is_number(count)):
            continue
        if 0 <= uid - int(first) < int(count):
            try:
                return pwd.getpwuid(int(name)).pw_name if _is_number(name) else name
            except (KeyError, OverflowError):
                return name
    return ""


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 10


def find_names(pids: Iterable[int], proc: Path = PROC) -> dict[int, str]:
    """Return each process's name as the kernel has it; one that is gone has "".

    A process sets its name itself: what it is not allowed to be in a label is replaced.
    """
    names: dict[int, str] = {}
    for pid in pids:
        try:
            text = (proc / str(pid) / "comm").read_bytes().decode(errors="replace")
        except OSError:
            text = ""
        names[pid] = "".join(one if one.isprintable() else "?" for one in text.rstrip("\n"))
    return names
