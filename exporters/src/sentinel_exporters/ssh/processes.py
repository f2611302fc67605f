"""Read from /proc the sshds of this machine, their children and their ancestors.

It judges none of them: sessions.py does. What it needs can be read by any user. `stat` is read
of all processes, about 10 µs each and most of it the kernel's, and more only of sshds.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import CollectorError
from ..owners import PROC
from .sessions import SSHD_COMMANDS, Process

_COMMANDS = frozenset(command.encode() for command in SSHD_COMMANDS)
_ENDED = (b"Z", b"X")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
# More than any `stat` has; `status` up to and with NSpid; a title.
_STAT_BYTES, _STATUS_BYTES, _TITLE_BYTES = 1024, 4096, 4096
# A login of nobody's: (uid_t) -1, proc_pid_loginuid(5).
_UNSET = 2**32 - 1
# systemd's slice of a user's sessions: systemd.special(7), user-1000.slice.
_USER_SLICE = re.compile(rb"/user-(\d+)\.slice(?:/|$)", re.MULTILINE)


def read_processes(proc: Path = PROC) -> tuple[Process, ...]:
    """Return the sshds, their children, and the ancestors of the sshds.

    A process that ends meanwhile is left out. Raises CollectorError when other users'
    processes are hidden.
    """
    folder = os.open(proc, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return _Reader(folder).read()
    finally:
        os.close(folder)


class _Stat(NamedTuple):
    """What `stat` says of a process: `rest` is what stands behind its parent's pid."""

    parent: int
    command: bytes
    rest: bytes


class _Reader:
    """One look at the processes; `folder` is /proc, held open."""

    def __init__(self, folder: int) -> None:
        self._folder = folder
        self._booted = 0.0
        self._stats: dict[int, _Stat] = {}

    def read(self) -> tuple[Process, ...]:
        if self._read("1/stat", _STAT_BYTES) is None:
            raise CollectorError("process 1 cannot be read: /proc is mounted with hidepid")
        self._booted = self._read_boot_time()
        for name in os.listdir(self._folder):  # noqa: PTH208  pathlib takes no descriptor
            if name.isdecimal():
                self._read_stat(name)
        sshds = [pid for pid, stat in self._stats.items() if stat.command in _COMMANDS]
        statuses = {pid: status for pid in sshds if (status := self._read_status(pid))}
        # A user's session is told by what is below its monitor, whose title is not needed.
        monitors = {self._stats[pid].parent for pid, (uid, _) in statuses.items() if uid != 0}
        found: dict[int, Process] = {}
        for pid, (uid, is_contained) in statuses.items():
            title = "" if pid in monitors else self._read_title(pid)
            if title is not None:
                login = self._read_login(pid) if uid == 0 else None
                found[pid] = self._process(pid, uid, title, is_contained, login)
        self._add_children(sshds, found)
        for pid in sshds:
            self._add_ancestors(pid, found)
        return tuple(found.values())

    def _read_boot_time(self) -> float:
        """Return the Unix time that `starttime` counts from, in whole seconds as ps does."""
        for line in (self._read("stat", 1 << 20) or b"").splitlines():
            if line.startswith(b"btime "):
                return float(line.split()[1])
        raise CollectorError("/proc/stat has no btime")

    def _read_stat(self, name: str) -> None:
        """Keep what `stat` says of a process that has not ended."""
        text = self._read(f"{name}/stat", _STAT_BYTES)
        if not text:
            return
        # proc_pid_stat(5): pid (comm) state ppid pgrp session tty_nr …; comm may hold any
        # character.
        head, _, tail = text.rpartition(b") ")
        state, parent, rest = tail.split(b" ", 2)
        # Where only the first thread has ended the kernel says Z too, and the process runs on.
        if state in _ENDED and int(rest.split(None, 16)[15]) <= 1:
            return
        self._stats[int(name)] = _Stat(int(parent), head[head.index(b"(") + 1 :], rest)

    def _process(
        self,
        pid: int,
        uid: int | None = None,
        title: str = "",
        is_contained: bool = False,
        login_uid: int | None = None,
    ) -> Process:
        """Return what is known of a process, most of it by its `stat`."""
        stat = self._stats[pid]
        # Behind the parent's pid the terminal is the third, and starttime the 18th.
        fields = stat.rest.split(None, 18)
        return Process(
            pid,
            stat.parent,
            stat.command.decode(errors="replace"),
            fields[2] != b"0",
            self._booted + int(fields[17]) / _TICKS_PER_S,
            uid,
            title,
            is_contained,
            login_uid,
        )

    def _read_status(self, pid: int) -> tuple[int, bool] | None:
        """Return the real uid, and whether it is in a PID namespace below ours.

        None for a process that has ended, also where another has its number now. From `status`,
        not from the owner of the folder: that is root for a process that may not be dumped.
        """
        text = self._read(f"{pid}/status", _STATUS_BYTES)
        if not text:
            return None
        # proc_pid_status(5). Name is first; NSpid has a number for each namespace that the
        # process is in. In Name the kernel escapes what `stat` has as it is, but sshds' have
        # nothing to escape.
        stat = self._stats[pid]
        if stat.command in _COMMANDS and not text.startswith(b"Name:\t%b\n" % stat.command):
            return None
        if int(_field(text, b"\nPPid:\t")) != stat.parent:
            return None
        return int(_field(text, b"\nUid:\t").split()[0]), b"\t" in _field(text, b"\nNSpid:\t")

    def _read_title(self, pid: int) -> str | None:
        """Return what an sshd calls itself, or None where it has ended."""
        title = self._read(f"{pid}/cmdline", _TITLE_BYTES)
        if title is None:
            return None
        return title.rstrip(b"\0 ").replace(b"\0", b" ").decode(errors="replace")

    def _add_children(self, sshds: Sequence[int], found: dict[int, Process]) -> None:
        parents = frozenset(sshds)
        for pid, stat in self._stats.items():
            if stat.parent in parents and pid not in parents:
                found[pid] = self._process(pid)

    def _add_ancestors(self, pid: int, found: dict[int, Process]) -> None:
        """Add with their uid those above the sshd that are not there yet."""
        at = self._stats[pid].parent
        while at in self._stats and (at not in found or found[at].uid is None):
            status = self._read_status(at)
            if status is None:
                return
            found[at] = self._process(at, status[0])
            at = self._stats[at].parent

    def _read_login(self, pid: int) -> int | None:
        """Return the uid in whose login the process is, or None: in nobody's.

        pam_loginuid sets it, and what the user starts has it too. Where that is not in use,
        systemd's slice tells.
        """
        login = self._read(f"{pid}/loginuid", _STAT_BYTES)
        if login and login.isdigit() and int(login) != _UNSET:
            return int(login)
        found = _USER_SLICE.search(self._read(f"{pid}/cgroup", _TITLE_BYTES) or b"")
        return int(found[1]) if found else None

    def _read(self, path: str, size: int) -> bytes | None:
        """Return a file's beginning; None where the process has ended or is hidden."""
        try:
            opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._folder)
        except OSError:
            return None
        try:
            return os.read(opened, size)
        except OSError:
            return None
        finally:
            os.close(opened)


def _field(text: bytes, name: bytes) -> bytes:
    """Return a line of a `status` without its name; b"0" where it is missing."""
    at = text.find(name)
    if at < 0:
        return b"0"
    at += len(name)
    end = text.find(b"\n", at)
    return text[at:end] if end >= 0 else text[at:]
