"""Counts, from /proc, what each uid has running and connected by SSH. It changes nothing.

utmp and process titles do not serve: utmp knows only terminals, and a title is what its process
says. An sshd that runs as a user under an sshd that runs as root is one connection; the kernel
says both, and a user can feign neither.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

# sshd, and since OpenSSH 9.8 its sessions.
SSHD_NAMES = (b"sshd", b"sshd-session")
ENDED_STATES = (b"Z", b"X")


@dataclass(frozen=True)
class Usage:
    """One uid's live processes, and its SSH connections with or without a terminal."""

    connections: int
    processes: int


@dataclass(frozen=True)
class _Process:
    name: bytes
    parent: int
    uid: int


def scan(proc: Path = Path("/proc")) -> dict[int, Usage]:
    """Return the usage of every real uid that has a process."""
    table: dict[int, _Process] = {}
    for entry in os.listdir(proc):  # noqa: PTH208  names only: this runs every two seconds
        if entry.isdigit() and (process := _read(f"{proc}/{entry}/status")) is not None:
            table[int(entry)] = process
    connections: dict[int, int] = {}
    processes: dict[int, int] = {}
    for process in table.values():
        processes[process.uid] = processes.get(process.uid, 0) + 1
        parent = table.get(process.parent)
        is_connection = (
            process.uid != 0
            and process.name in SSHD_NAMES
            and parent is not None
            and parent.uid == 0
            and parent.name in SSHD_NAMES
        )
        if is_connection:
            connections[process.uid] = connections.get(process.uid, 0) + 1
    return {uid: Usage(connections.get(uid, 0), count) for uid, count in processes.items()}


def _read(path: str) -> _Process | None:
    """Return the process, None for one that has ended. Format: proc_pid_status(5)."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123  see scan
            # Not splitlines: a process may have a carriage return in its name.
            lines = file.read().split(b"\n")
    except OSError:  # it ended meanwhile
        return None
    fields = dict(line.split(b":\t", 1) for line in lines[:12] if b":\t" in line)
    if fields[b"State"][:1] in ENDED_STATES:
        return None
    return _Process(fields[b"Name"], int(fields[b"PPid"]), int(fields[b"Uid"].split()[0]))
