"""Counts, from /proc, what each uid has running and connected by SSH. It changes nothing.

utmp and process titles do not serve: utmp knows only terminals, and a title is what its process
says. An sshd that runs as a user under an sshd that runs as root is one connection; the kernel
says both, and a user can feign neither.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

# sshd, and since OpenSSH 9.8 its sessions.
SSHD_NAMES = (b"sshd", b"sshd-session")
ENDED_STATES = (b"Z", b"X")
# Up to and with the line Uid; the kernel writes the lines in this order.
STATUS_BYTES = 512


@dataclass(frozen=True)
class Usage:
    """One uid's SSH connections, with or without a terminal, and its live processes."""

    connections: int
    pids: tuple[int, ...]

    @property
    def processes(self) -> int:
        """How many processes there are."""
        return len(self.pids)


@dataclass(frozen=True)
class Scan:
    """What runs: the usage of every real uid that has a process.

    `logins_under_way` are sshds that have let somebody in and have not started the session yet;
    whose they are is not known.
    """

    usage: Mapping[int, Usage]
    logins_under_way: frozenset[int]


def scan(proc: Path = Path("/proc")) -> Scan:
    """Look at every process once: about 16 µs each, most of it the kernel's."""
    pids: dict[int, list[int]] = {}
    sshds: dict[int, tuple[int, int]] = {}
    for entry in os.listdir(proc):  # noqa: PTH208  names only: this runs every few seconds
        if not entry.isdigit():
            continue
        found = _read(f"{proc}/{entry}/status")
        if found is None:
            continue
        name, parent, uid = found
        pids.setdefault(uid, []).append(int(entry))
        if name in SSHD_NAMES:
            sshds[int(entry)] = (parent, uid)
    connections: dict[int, int] = {}
    # A root sshd's parent is the listener, or the one that the operator started it from.
    servers = {pid for pid, (parent, uid) in sshds.items() if uid == 0 and parent in sshds}
    busy: set[int] = set()
    for parent, uid in sshds.values():
        if uid != 0 and parent in sshds and sshds[parent][1] == 0:
            connections[uid] = connections.get(uid, 0) + 1
        busy.add(parent)
    usage = {uid: Usage(connections.get(uid, 0), tuple(them)) for uid, them in pids.items()}
    return Scan(usage, _childless(servers - busy, proc))


def _childless(servers: set[int], proc: Path) -> frozenset[int]:
    """Return those without any child: root's own sessions have one that is no sshd."""
    found = set()
    for pid in servers:
        try:
            children = Path(f"{proc}/{pid}/task/{pid}/children").read_bytes()
        except OSError:  # it ended meanwhile, or the kernel does not tell
            continue
        if not children.strip():
            found.add(pid)
    return frozenset(found)


def _read(path: str) -> tuple[bytes, int, int] | None:
    """Return name, parent and real uid; None for one that has ended.

    Format: proc_pid_status(5). The kernel escapes a line end in a process's name.
    """
    try:
        opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # it ended meanwhile
        return None
    try:
        text = os.read(opened, STATUS_BYTES)
    except OSError:
        return None
    finally:
        os.close(opened)
    state = text.index(b"\nState:\t") + 8
    if text[state : state + 1] in ENDED_STATES:
        return None
    parent = text.index(b"\nPPid:\t", state) + 7
    uid = text.index(b"\nUid:\t", parent) + 6
    return (
        text[6 : text.index(b"\n")],
        int(text[parent : text.index(b"\n", parent)]),
        int(text[uid : text.index(b"\t", uid)]),
    )
