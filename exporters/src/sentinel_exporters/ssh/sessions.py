"""Find the SSH connections and their sessions among processes. Reads nothing.

utmp knows terminals alone, and a title is what its process says, so the processes' descent is
what counts. sshd leaves a process that runs as the user below one that runs as root (the
monitor of privilege separation): that is one connection, and its children are the sessions in
it. For root there is no such pair before OpenSSH 9.8, and the title has to tell.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

SessionType = Literal["pty", "exec", "forward-only"]

# sshd, since OpenSSH 9.8 its sessions, and a node's second sshd for break-glass accounts, whose
# name the kernel cuts at 15 characters. (Since 10.0 sshd-auth talks to who is not logged in.)
SSHD_COMMANDS = frozenset({"sshd", "sshd-session", "sentinel-breakg"})
# What runs as this user is a connection that is not logged in yet.
_SEPARATION_USER = "sshd"
# What sshd calls a connection that is logged in: `sshd: alice`, `sshd: alice@notty`,
# `sshd: alice@pts/0,pts/3`, and its child `sshd: alice@internal-sftp`. The name may hold an @.
_TITLE = re.compile(r"[\w.-]+: (.+?)(?:@(notty|internal-sftp|pts/\d+(?:,pts/\d+)*))?")
# More ancestors than this are a mistake in the table.
_GENERATIONS = 64


@dataclass(frozen=True, slots=True)
class Process:
    """A process as far as it matters here; `started` is Unix time.

    `uid` (real) is known of sshds and of their ancestors; `title` and `is_contained` (in a PID
    namespace below ours) of sshds; `login_uid` (in whose login it was started) of root's.
    """

    pid: int
    parent: int
    command: str
    has_terminal: bool = False
    started: float = 0.0
    uid: int | None = None
    title: str = ""
    is_contained: bool = False
    login_uid: int | None = None

    @property
    def is_sshd(self) -> bool:
        """Whether it has the name of an sshd of this machine; anybody may take that name."""
        return self.command in SSHD_COMMANDS and not self.is_contained


@dataclass(frozen=True)
class Session:
    """One session; `started` is Unix time."""

    type: SessionType
    started: float


@dataclass(frozen=True)
class Connection:
    """One connection that is logged in, with at least one session."""

    user: str
    sessions: Sequence[Session] = ()

    @property
    def channels(self) -> int:
        """How many terminals and commands it carries."""
        return sum(session.type != "forward-only" for session in self.sessions)


def find_connections(
    processes: Iterable[Process], users: Mapping[int, str]
) -> list[Connection]:
    """Return who is connected; `users` are the names of the uids, as far as they have one."""
    by_pid = {process.pid: process for process in processes}
    children: dict[int, list[Process]] = {}
    for process in by_pid.values():
        children.setdefault(process.parent, []).append(process)
    root = users.get(0, "root")
    return [
        Connection(
            users.get(process.uid, str(process.uid)),
            _find_sessions(process, children.get(process.pid, [])),
        )
        for process in by_pid.values()
        if process.uid is not None and _is_connection(process, by_pid, users, root)
    ]


def _is_connection(
    process: Process, by_pid: Mapping[int, Process], users: Mapping[int, str], root: str
) -> bool:
    if not process.is_sshd:
        return False
    parent = by_pid.get(process.parent)
    if process.uid == 0:
        # Its own child, such as internal-sftp, has a title of that form as well.
        if not _is_root_session(process, root) or _is_root_session(parent, root):
            return False
    elif parent is None or not parent.is_sshd or parent.uid != 0:
        return False
    elif process.title.endswith("]") or users.get(process.uid or 0) == _SEPARATION_USER:
        # `sshd: alice [net]`: not logged in yet.
        return False
    return _is_genuine(process, process if process.uid == 0 else parent, by_pid)


def _is_root_session(process: Process | None, root: str) -> bool:
    if process is None or process.uid != 0 or not process.is_sshd:
        return False
    title = _TITLE.fullmatch(process.title)
    return title is not None and title[1] == root


def _is_genuine(process: Process, roots: Process | None, by_pid: Mapping[int, Process]) -> bool:
    """Whether `roots`, the connection's process of root's, was started by root.

    A user can give a setuid program the name and the title of an sshd. It is the child of a
    process of the user's then; where that has ended, it is still in the user's login. sshd's
    own process is in the login of whom it let in.
    """
    if roots is None or roots.login_uid not in {None, 0, process.uid}:
        return False
    at = by_pid.get(roots.parent)
    for _ in range(_GENERATIONS):
        if at is None:
            return True
        if at.uid != 0:
            return False
        at = by_pid.get(at.parent)
    return False


def _find_sessions(process: Process, children: Sequence[Process]) -> tuple[Session, ...]:
    if not children:
        return (Session("forward-only", process.started),)
    terminals = _count_terminals(process, children)
    # The children with a terminal first, and each kind by age, so that one and the same child
    # is the terminal in every reading.
    ordered = sorted(children, key=lambda child: (not child.has_terminal, child.pid))
    return tuple(
        Session("pty" if number < terminals else "exec", child.started)
        for number, child in enumerate(ordered)
    )


def _count_terminals(process: Process, children: Sequence[Process]) -> int:
    """Return in how many of the sessions sshd has made a terminal.

    By the title, which is sshd's own: a child can let go of its terminal, or take another one.
    sshd cuts a title that is too long, so the children count too where it names terminals.
    """
    with_terminal = sum(child.has_terminal for child in children)
    title = _TITLE.fullmatch(process.title)
    where = None if title is None else title[2]
    if where == "notty":
        return 0
    if where is None or where == "internal-sftp":
        return with_terminal
    return min(len(children), max(with_terminal, where.count(",") + 1))
