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

# sshd, and since OpenSSH 9.8 its sessions; before, those of the break-glass sshd have the name
# of the link that it is started by (breakglass_sshd.PROGRAM); the kernel keeps 15 bytes of it.
SSHD_NAMES = (b"sshd", b"sshd-session", b"sentinel-breakg")
# Since OpenSSH 10.0: what talks to somebody who is not logged in yet.
SSHD_AUTH = b"sshd-auth"
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
    whose they are is not known. Some are sessions of root's.
    """

    usage: Mapping[int, Usage]
    logins_under_way: frozenset[int]


def scan(proc: Path = Path("/proc")) -> Scan:
    """Look at every process once: about 16 µs each, most of it the kernel's."""
    pids: dict[int, list[int]] = {}
    sshds: dict[int, tuple[int, int]] = {}
    parents: set[int] = set()
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
            parents.add(parent)
        elif name == SSHD_AUTH:
            parents.add(parent)
    connections: dict[int, int] = {}
    servers: set[int] = set()
    for pid, (parent, uid) in sshds.items():
        if parent not in sshds or sshds[parent][1] != 0:
            continue
        # Each connection has a server of root's, whose parent is the listener.
        if uid == 0:
            servers.add(pid)
        else:
            connections[uid] = connections.get(uid, 0) + 1
    usage = {uid: Usage(connections.get(uid, 0), tuple(them)) for uid, them in pids.items()}
    # Before its user is known a server has a child without rights, and in the session one of
    # the user's. Those of root's own sessions have neither; they cannot be told from logins.
    return Scan(usage, frozenset(servers - parents))


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
    if text[state : state + 1] in ENDED_STATES and not _has_threads(path):
        return None
    parent = text.index(b"\nPPid:\t", state) + 7
    uid = text.index(b"\nUid:\t", parent) + 6
    return (
        text[6 : text.index(b"\n")],
        int(text[parent : text.index(b"\n", parent)]),
        int(text[uid : text.index(b"\t", uid)]),
    )


def _has_threads(path: str) -> bool:
    """Say whether others than the first thread are left.

    Where only the first has ended, the kernel calls the process a zombie, and it runs on.
    """
    try:
        return len(os.listdir(f"{path.removesuffix('status')}task")) > 1  # noqa: PTH208  names only
    except OSError:  # it ended meanwhile
        return False
