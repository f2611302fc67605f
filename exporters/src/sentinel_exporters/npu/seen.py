"""Know a process again that was told some time ago. Reads /proc, and drops nothing itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from ..owners import PROC, find_owners
from .reading import Seen

# In what follows the name in /proc/<pid>/stat: the fields 3 and 22 of proc(5).
_STATE, _START = 0, 19
_ENDED = (b"Z", b"X")


def look_at(pids: Iterable[int], proc: Path = PROC) -> dict[int, Seen]:
    """Return whose the processes are and when they began.

    The start is read before the owner: of a process that comes between the two it is never
    said that it is the one that was told.
    """
    started = {pid: read_start(pid, proc) for pid in pids}
    owners = find_owners((pid for pid, start in started.items() if start is not None), proc)
    return {pid: Seen(owners.get(pid), start) for pid, start in started.items()}


def find_same(seen: Mapping[int, Seen], proc: Path = PROC) -> set[int]:
    """Return the processes that have neither ended nor started anew under their number."""
    return {pid for pid, one in seen.items() if read_start(pid, proc) == one.started}


def read_start(pid: int, proc: Path = PROC) -> int | None:
    """Return when the process began, in clock ticks since the boot; None: it is not there."""
    try:
        stat = (proc / str(pid) / "stat").read_bytes()
    except OSError:
        return None
    # The name is in parentheses, and may have some of its own.
    words = stat.rpartition(b")")[2].split()
    if len(words) <= _START or words[_STATE] in _ENDED:
        return None
    return int(words[_START])
