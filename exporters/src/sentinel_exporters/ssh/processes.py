"""Read from /proc the sshds of this machine, their children and their ancestors.

It judges none of them: sessions.py does. What it needs can be read by any user. All processes'
`stat` is read, which costs 10 µs each, and more only of sshds.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

from ..errors import CollectorError
from ..owners import PROC
from .sessions import SSHD_COMMANDS, Process

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
# More than any `stat` has; `status` up to and with NSpid; a title.
_STAT_BYTES, _STATUS_BYTES, _TITLE_BYTES = 1024, 4096, 4096
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


class _Reader:
    """One look at the processes; `folder` is /proc, held open."""

    def __init__(self, folder: int) -> None:
        self._folder = folder
        self._booted = 0.0

    def read(self) -> tuple[Process, ...]:
        if self._read("1/stat", _STAT_BYTES) is None:
            raise CollectorError("process 1 cannot be read: /proc is mounted with hidepid")
        self._booted = self._read_boot_time()
        found: dict[int, Process] = {}
        for name in os.listdir(self._folder):  # noqa: PTH208  pathlib takes no descriptor
            if name.isdecimal() and (process := self._read_process(name)) is not None:
                found[process.pid] = process
        sshds = [process for process in found.values() if process.command in SSHD_COMMANDS]
        known = {process.pid: self._describe(process, found) for process in sshds}
        wanted = {pid: process for pid, process in known.items() if process is not None}
        for process in list(wanted.values()):
            self._add_ancestors(process, found, wanted)
        for process in found.values():
            if process.parent in known and process.pid not in known:
                wanted.setdefault(process.pid, process)
        return tuple(wanted.values())

    def _read_boot_time(self) -> float:
        """Return the Unix time that `starttime` counts from, in whole seconds as ps does."""
        for line in (self._read("stat", 1 << 20) or b"").splitlines():
            if line.startswith(b"btime "):
                return float(line.split()[1])
        raise CollectorError("/proc/stat has no btime")

    def _read_process(self, name: str) -> Process | None:
        """Return what `stat` says, or None for a process that has ended."""
        text = self._read(f"{name}/stat", _STAT_BYTES)
        if text is None:
            return None
        # proc_pid_stat(5): pid (comm) state ppid pgrp session tty_nr …; comm may hold any
        # character. The 20th field is the number of threads, the 22nd starttime.
        head, _, tail = text.rpartition(b")")
        fields = tail.split(None, 20)
        if len(fields) < 20:
            return None
        # Where only the first thread has ended the kernel says Z too, and the process runs on.
        if fields[0] in (b"Z", b"X") and int(fields[17]) <= 1:
            return None
        return Process(
            pid=int(name),
            parent=int(fields[1]),
            command=head.partition(b"(")[2].decode(errors="replace"),
            has_terminal=fields[4] != b"0",
            started=self._booted + int(fields[19]) / _TICKS_PER_S,
        )

    def _describe(self, process: Process, found: dict[int, Process]) -> Process | None:
        """Return the sshd with all that is known of it, or None for one that has ended."""
        status = self._read_status(process)
        title = self._read(f"{process.pid}/cmdline", _TITLE_BYTES)
        if status is None or title is None:
            return None
        parent = found.get(process.parent)
        is_eldest = parent is None or parent.command not in SSHD_COMMANDS
        return replace(
            process,
            uid=status[0],
            is_contained=status[1],
            title=title.replace(b"\0", b" ").decode(errors="replace").rstrip(),
            slice_uid=self._read_slice(process.pid) if is_eldest else None,
        )

    def _read_status(self, process: Process) -> tuple[int, bool] | None:
        """Return the real uid, and whether it is in a PID namespace below ours.

        None for a process that has ended, also where another has its number now. From `status`,
        not from the owner of the folder: that is root for a process that may not be dumped.
        """
        text = self._read(f"{process.pid}/status", _STATUS_BYTES)
        if text is None:
            return None
        # proc_pid_status(5). NSpid has a number for each namespace that the process is in.
        fields = dict(line.partition(b":\t")[::2] for line in text.split(b"\n"))
        # In Name the kernel escapes what `stat` has as it is: only sshds' are compared.
        is_same = process.command not in SSHD_COMMANDS or (
            fields[b"Name"].decode(errors="replace") == process.command
        )
        if not is_same or int(fields[b"PPid"]) != process.parent:
            return None
        return int(fields[b"Uid"].split()[0]), len(fields.get(b"NSpid", b"").split()) > 1

    def _add_ancestors(
        self, process: Process, found: dict[int, Process], wanted: dict[int, Process]
    ) -> None:
        """Add with their uid those above the sshd that are not there yet."""
        at = found.get(process.parent)
        while at is not None and at.pid not in wanted:
            status = self._read_status(at)
            if status is None:
                return
            wanted[at.pid] = replace(at, uid=status[0])
            at = found.get(at.parent)

    def _read_slice(self, pid: int) -> int | None:
        """Return the uid whose login session the process is in; None: in nobody's."""
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
