"""Which processes have devices open, or mapped into their memory. It ends none.

A device is known by its number (st_rdev), so that it does not matter under which path, in which
mount namespace, a process has opened it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import stat
import struct
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

# How long one process may keep whoever looks at it waiting, before it is passed over: reading
# its maps waits for a lock, which a process keeps for as long as a driver hangs.
STALL_S = 1.0
# So many of them in one search, which leaves the rest to the next.
STALLS_MAX = 5
# A process is believed to hang for so long.
STUCK_S = 300.0
# Threads with open files of their own are compared with so many others.
TABLES_MAX = 8

LIBC = ctypes.CDLL(None, use_errno=True)
# statx(2), include/uapi/linux/stat.h: the flag asks for what the kernel knows by itself. A file
# server or a user's FUSE program could keep the agent waiting for ever.
AT_FDCWD, AT_STATX_DONT_SYNC, STATX_TYPE = -100, 0x4000, 1
STATX_BYTES, STATX_MODE, STATX_RDEV = 256, 28, 128
# proc_pid_maps(5): an area's start and end, and file system and inode of what is mapped there.
MAPPED = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+) \S+ \S+ (\S+ [1-9]\d*)", re.MULTILINE)
# kcmp(2); its number by architecture, 272 in the generic table that newer ones share.
SYS_KCMP = {"x86_64": 312, "ppc64le": 354, "s390x": 343}.get(os.uname().machine, 272)
KCMP_FILES = 2


@dataclass(frozen=True)
class Holder:
    """A process and what it holds: its real uid, and the numbers of the devices."""

    pid: int
    uid: int
    devices: frozenset[int]


class Finder:
    """Finds holders; remembers which processes could not be looked at."""

    def __init__(self, stall_s: float = STALL_S) -> None:
        self._stall_s = stall_s
        # Those whose maps are not read for a while, and since when; their open files still are.
        self._stuck: dict[int, float] = {}

    @property
    def stuck(self) -> frozenset[int]:
        """The processes that kept a search waiting."""
        return frozenset(self._stuck)

    def find(
        self,
        devices: Collection[int],
        is_of_interest: Callable[[int], bool],
        pids: Collection[int] | None = None,
    ) -> list[Holder]:
        """Return the processes that hold any of the devices.

        `is_of_interest` says by uid whose processes are looked at; `pids` are those to look at,
        None for all. A process that keeps the search waiting is passed over and kept in
        `stuck`; what it has open was found before that.
        """
        if pids is None:
            pids = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]  # noqa: PTH208
            forgotten = time.monotonic() - STUCK_S
            self._stuck = {
                pid: since
                for pid, since in self._stuck.items()
                if pid in set(pids) and since > forgotten
            }
        found: list[Holder] = []
        left = list(pids) if devices else []
        for _ in range(STALLS_MAX):
            search = _Search(frozenset(devices), is_of_interest, left, self.stuck)
            is_done = search.run(self._stall_s)
            # Of one that is stuck too, what was seen before its maps were asked for.
            found += [holder for holder in search.found.values() if holder.devices]
            if is_done:
                break
            self._stuck[left[search.done]] = time.monotonic()
            left = left[search.done + 1 :]
        return found


@dataclass
class _Search:
    """One look through some processes, in a thread of its own."""

    devices: frozenset[int]
    is_of_interest: Callable[[int], bool]
    pids: Sequence[int]
    stuck: frozenset[int]
    # How many of the pids are done; the next one is under way.
    done: int = 0
    found: dict[int, Holder] = field(default_factory=dict)
    _is_abandoned: bool = False
    _error: Exception | None = None
    _interesting: dict[int, bool] = field(default_factory=dict)
    # File system and inode of what is mapped, to the device's number or 0.
    _mapped: dict[bytes, int] = field(default_factory=dict)

    def run(self, stall_s: float) -> bool:
        """Return whether all were looked at: not when one took so long. Raises its errors."""
        thread = threading.Thread(target=self._look, name="holders", daemon=True)
        thread.start()
        before = -1
        while thread.is_alive() and self.done != before:
            before = self.done
            thread.join(stall_s)
        if self._error is not None:
            raise self._error
        if thread.is_alive():
            # It waits on; once it comes back it has nothing more to do.
            self._is_abandoned = True
            self.found = dict(self.found)
        return not self._is_abandoned

    def _look(self) -> None:
        try:
            for pid in self.pids:
                self._look_at(pid)
                if self._is_abandoned:
                    return
                self.done += 1
        except Exception as error:  # raised again where somebody waits for it
            self._error = error

    def _look_at(self, pid: int) -> None:
        uid = _real_uid(pid)
        if uid is None:
            return
        if uid not in self._interesting:
            self._interesting[uid] = self.is_of_interest(uid)
        if not self._interesting[uid]:
            return
        try:
            threads = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208  names only, for each pid
        except OSError:  # it has ended
            threads = []
        if not threads:
            return
        devices: set[int] = set()
        for thread in _with_own_files(threads):
            devices |= self._open_in(f"/proc/{pid}/task/{thread}/fd")
        self.found[pid] = Holder(pid, uid, frozenset(devices))
        if pid not in self.stuck and devices != self.devices:
            # A first thread that has ended before the others has no memory to look at.
            for thread in dict.fromkeys((threads[0], threads[-1])):
                devices |= self._mapped_in(f"/proc/{thread}")
            if not self._is_abandoned:
                self.found[pid] = Holder(pid, uid, frozenset(devices))

    def _open_in(self, folder: str) -> set[int]:
        with contextlib.suppress(OSError), os.scandir(folder) as entries:  # it has ended
            return {_device_number(entry.path) for entry in entries} & self.devices
        return set()

    def _mapped_in(self, process: str) -> set[int]:
        """Format: proc_pid_maps(5). map_files leads to what is mapped, whatever its path."""
        try:
            with open(f"{process}/maps", "rb") as maps:  # noqa: PTH123  for each process
                text = maps.read()
        except OSError:  # it has ended
            return set()
        devices = set()
        for start, end, key in MAPPED.findall(text):
            if key not in self._mapped:
                area = f"{int(start, 16):x}-{int(end, 16):x}"
                self._mapped[key] = _device_number(f"{process}/map_files/{area}")
            devices.add(self._mapped[key])
        return devices & self.devices


def pids_of(uids: Collection[int]) -> dict[int, frozenset[int]]:
    """Return the processes of each of these real uids.

    One that has ended before it was looked at may have been anybody's, and counts as each
    one's: who is another process every millisecond is seen in no other way.
    """
    found: dict[int, set[int]] = {uid: set() for uid in uids}
    for entry in os.listdir("/proc") if found else ():  # noqa: PTH208  names only
        if not entry.isdigit():
            continue
        uid = _real_uid(int(entry))
        if uid is None:
            for pids in found.values():
                pids.add(int(entry))
        elif uid in found:
            found[uid].add(int(entry))
    return {uid: frozenset(pids) for uid, pids in found.items()}


def _real_uid(pid: int) -> int | None:
    """Format: proc_pid_status(5); the name is escaped in it, so that it is always one line."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:  # noqa: PTH123  for each process
            text = file.read()
    except OSError:  # it has ended
        return None
    return int(text.partition(b"\nUid:\t")[2].split(None, 1)[0])


def _with_own_files(threads: Sequence[str]) -> list[str]:
    """Return one of the threads for each table of open files: nearly always there is one."""
    chosen: list[str] = []
    for thread in threads:
        compared = chosen[:TABLES_MAX]
        if not any(_share_files(int(thread), int(other)) for other in compared):
            chosen.append(thread)
    return chosen


def _share_files(one: int, other: int) -> bool:
    # Anything but 0 is a difference, or an answer that the kernel refuses.
    return bool(LIBC.syscall(SYS_KCMP, one, other, KCMP_FILES, 0, 0) == 0)


def _device_number(path: str) -> int:
    """Return the number of the character device that the path leads to, 0 if it is none."""
    answer = ctypes.create_string_buffer(STATX_BYTES)
    if LIBC.statx(AT_FDCWD, path.encode(), AT_STATX_DONT_SYNC, STATX_TYPE, answer) != 0:
        return 0
    (mode,) = struct.unpack_from("=H", answer, STATX_MODE)
    return (
        os.makedev(*struct.unpack_from("=II", answer, STATX_RDEV)) if stat.S_ISCHR(mode) else 0
    )
