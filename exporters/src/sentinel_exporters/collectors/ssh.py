"""Count SSH sessions by user and type from the process table. Only read() looks at /proc.

utmp knows terminals alone, and a process' title can be made up by its owner, so the processes'
descent is what counts. sshd leaves a process that runs as the user below one that runs as root
(the monitor of privilege separation), both called `sshd`, since OpenSSH 9.8 `sshd-session`:
that is one connection, and its children are the channels. For root there is no such pair, and
the title has to tell; nobody but root can make that up.
"""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..core import CollectorSettings, Metric, Scrape
from ..errors import CollectorError
from ..owners import PROC, read_real_uid, user_name

SESSIONS = Metric(
    "ssh_sessions",
    "gauge",
    "Open SSH sessions: pty with a terminal, exec without (commands, sftp), forward for a "
    "connection that has neither.",
    ("user", "type"),
)
CONNECTIONS = Metric("ssh_connections", "gauge", "Open SSH connections that are logged in.")
METRICS = (SESSIONS, CONNECTIONS)

# sshd, since OpenSSH 9.8 its sessions, and a node's second sshd for break-glass accounts, whose
# name the kernel cuts at 15 characters.
_COMMANDS = frozenset({"sshd", "sshd-session", "sentinel-breakg"})
# What runs as this user is a connection that is not logged in yet.
_SEPARATION_USER = "sshd"
# `sshd: root@pts/0`, `sshd: root@notty`, or `sshd: root` where there is no channel; a login
# that is not done yet is `sshd: root [priv]` or has no name.
_ROOT_SESSION = re.compile(r"(sshd(-session)?|sentinel-breakglass): root(@|\s*$)")


@dataclass(frozen=True)
class Process:
    """A process as far as it matters here; `uid` and `title` are only read of sshd's own."""

    pid: int
    parent: int
    command: str
    has_terminal: bool
    uid: int | None = None
    title: str = ""


@dataclass(frozen=True)
class Reading:
    """All live processes at one time, and the names of the users that sshd runs as."""

    processes: tuple[Process, ...]
    users: Mapping[int, str]


def is_present(_settings: CollectorSettings) -> bool:
    """Whether an SSH server is installed."""
    path = os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin"
    return shutil.which("sshd", path=path) is not None


def read(_settings: CollectorSettings, proc: Path = PROC) -> Reading:
    """Read the process table.

    Raises CollectorError when other users' processes are hidden.
    """
    if not (proc / "1" / "stat").exists():
        raise CollectorError("process 1 is not visible: /proc is mounted with hidepid")
    processes = []
    for entry in os.scandir(proc):
        if entry.name.isdecimal():
            process = _read_process(Path(entry.path))
            if process is not None:
                processes.append(process)
    uids = {process.uid for process in processes if process.uid is not None}
    return Reading(tuple(processes), {uid: user_name(uid) for uid in uids})


def _read_process(folder: Path) -> Process | None:
    """Return the process, or None for one that has ended meanwhile."""
    try:
        # proc(5): pid (comm) state ppid pgrp session tty_nr …; comm may hold any character.
        head, _, tail = (folder / "stat").read_bytes().rpartition(b")")
    except OSError:
        return None
    fields = tail.split()
    if len(fields) < 5 or fields[0] in {b"Z", b"X"}:
        return None
    pid, command = int(folder.name), head.partition(b"(")[2].decode(errors="replace")
    process = Process(pid, int(fields[1]), command, fields[4] != b"0")
    if command not in _COMMANDS:
        return process
    uid = read_real_uid(pid, folder.parent)
    if uid is None:
        return None
    title = ""
    if uid == 0:
        try:
            title = (
                (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            )
        except OSError:
            return None
    return Process(pid, process.parent, command, process.has_terminal, uid, title)


def parse(reading: Reading) -> Scrape:
    """Return the sessions of who is there; who is not has no series."""
    sessions, connections = count_sessions(reading.processes, reading.users)
    samples = [SESSIONS.sample(n, *key) for key, n in sorted(sessions.items())]
    return Scrape([*samples, CONNECTIONS.sample(connections)])


def count_sessions(
    processes: Iterable[Process], users: Mapping[int, str]
) -> tuple[Counter[tuple[str, str]], int]:
    """Return {(user, type): sessions} and the number of connections."""
    by_pid = {process.pid: process for process in processes}
    children: dict[int, list[Process]] = {}
    for process in by_pid.values():
        children.setdefault(process.parent, []).append(process)
    sessions: Counter[tuple[str, str]] = Counter()
    connections = 0
    for process in by_pid.values():
        channels = children.get(process.pid, [])
        if process.command not in _COMMANDS or process.uid is None:
            continue
        user = users.get(process.uid, str(process.uid))
        parent = by_pid.get(process.parent)
        if process.uid == 0:
            # Its own child, such as internal-sftp, has a title of that form as well.
            is_connection = _is_root_session(process) and not _is_root_session(parent)
        else:
            is_connection = user != _SEPARATION_USER and _is_monitor(parent)
        if not is_connection:
            continue
        connections += 1
        for channel in channels:
            sessions[user, "pty" if channel.has_terminal else "exec"] += 1
        if not channels:
            sessions[user, "forward"] += 1
    return sessions, connections


def _is_monitor(parent: Process | None) -> bool:
    return parent is not None and parent.command in _COMMANDS and parent.uid == 0


def _is_root_session(process: Process | None) -> bool:
    return process is not None and bool(_ROOT_SESSION.match(process.title))
