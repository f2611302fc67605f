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
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

# How long whoever looks at a process may get no further, before it is passed over: reading its
# maps waits for a lock, which a process keeps for as long as a driver hangs.
STALL_S = 1.0
# How long the look at one process may take in all: it may have millions of descriptors.
SLOW_S = 10.0
# So many are waited for in one search, which leaves the rest to the next.
STALLS_MAX = 5
# Threads with open files of their own are compared with so many others.
TABLES_MAX = 8

LIBC = ctypes.CDLL(None, use_errno=True)
# statx(2), include/uapi/linux/stat.h: the flag asks for what the kernel knows by itself. A file
# server or a user's FUSE program could keep the agent waiting for ever.
AT_FDCWD, AT_STATX_DONT_SYNC, STATX_TYPE = -100, 0x4000, 1
STATX_BYTES, STATX_MODE, STATX_RDEV = 256, 28, 128
# proc_pid_maps(5): an area's start and end, and file system and inode of what is mapped there.
MAPPED = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+) \S+ \S+ (\S+ [1-9]\d*)", re.MULTILINE)
# So much of the maps is asked for at once; the kernel gives a page.
MAPS_BYTES = 1 << 16
# kcmp(2); its number by architecture, 272 in the generic table that newer ones share.
SYS_KCMP = {"x86_64": 312, "ppc64le": 354, "s390x": 343}.get(os.uname().machine, 272)
KCMP_FILES = 2


@dataclass(frozen=True)
class Holder:
    """A process and what it holds: its real uid, and the numbers of the devices.

    `may_hold_more`: not all of it was to be seen.
    """

    pid: int
    uid: int
    devices: frozenset[int]
    may_hold_more: bool = False


class Finder:
    """Finds holders; remembers which processes could not be looked at."""

    def __init__(self, stall_s: float = STALL_S, slow_s: float = SLOW_S) -> None:
        self._stall_s = stall_s
        self._slow_s = slow_s
        # The searches that a process kept waiting, by the process.
        self._waiting: dict[int, _Search] = {}

    @property
    def stuck(self) -> frozenset[int]:
        """The processes that a search waits for still: it is not asked again what keeps it."""
        return frozenset(
            pid for pid, search in list(self._waiting.items()) if search.is_running()
        )

    def find(
        self,
        devices: Collection[int],
        is_of_interest: Callable[[int], bool],
        pids: Collection[int] | None = None,
    ) -> list[Holder]:
        """Return the processes that hold any of the devices, and those that may.

        `is_of_interest` says by uid whose processes are looked at; `pids` are those to look at,
        None for all. A process that keeps the search waiting is passed over: it is in the
        answer with what was seen of it, and as one that may hold more. So are those that the
        search has left to the next one.
        """
        if pids is None:
            pids = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]  # noqa: PTH208
        stuck = {}
        for pid, search in list(self._waiting.items()):
            if search.is_running():
                stuck[pid] = search.is_at_maps
            else:
                self._waiting.pop(pid, None)
        found: dict[int, Holder] = {}
        left = list(pids) if devices else []
        for _ in range(STALLS_MAX):
            search = _Search(frozenset(devices), is_of_interest, left, stuck)
            seen, done = search.run(self._stall_s, self._slow_s)
            found |= seen
            if done < len(left):
                self._waiting[left[done]] = search
            left = left[done + 1 :]
            if not left:
                break
        found |= _unseen(left, is_of_interest)
        return [holder for holder in found.values() if holder.devices or holder.may_hold_more]


@dataclass
class _Search:
    """One look through some processes, in a thread of its own."""

    devices: frozenset[int]
    is_of_interest: Callable[[int], bool]
    pids: Sequence[int]
    # Those that other searches wait for: whether for their maps, with the open files seen.
    stuck: Mapping[int, bool]
    # Whether the process that is under way is asked for its maps.
    is_at_maps: bool = False
    # How many of the pids are done; the next one is under way.
    _done: int = 0
    # Grows with all that is looked at: with each descriptor, and each piece of the maps.
    _steps: int = 0
    # What was seen so far, of the one that is under way too.
    _found: dict[int, Holder] = field(default_factory=dict)
    _is_abandoned: bool = False
    _error: Exception | None = None
    _thread: threading.Thread | None = None
    _interesting: dict[int, bool] = field(default_factory=dict)
    # File system and inode of what is mapped, to the device's number or 0.
    _mapped: dict[bytes, int] = field(default_factory=dict)

    def run(self, stall_s: float, slow_s: float) -> tuple[dict[int, Holder], int]:
        """Return what was seen, by pid, and how many of the pids are done: all, or the next
        one got no further for `stall_s`, or was not done in `slow_s`. Raises its errors.
        """
        self._thread = threading.Thread(target=self._look, name="holders", daemon=True)
        self._thread.start()
        done, steps, began = 0, 0, time.monotonic()
        while True:
            self._thread.join(stall_s)
            if self._error is not None:
                raise self._error
            if not self._thread.is_alive():
                return self._found, len(self.pids)
            before, done = done, self._done
            if done != before:
                began = time.monotonic()
            elif steps == self._steps or time.monotonic() - began > slow_s:
                # It has nothing more to do once it gets any further.
                self._is_abandoned = True
                return dict(self._found), done
            steps = self._steps

    def is_running(self) -> bool:
        """Say whether it goes on, or waits."""
        return self._thread is not None and self._thread.is_alive()

    def _look(self) -> None:
        try:
            for pid in self.pids:
                self._look_at(pid)
                if self._is_abandoned:
                    return
                self._done += 1
        except Exception as error:  # raised again where somebody waits for it
            self._error = error

    def _look_at(self, pid: int) -> None:
        uid = _real_uid(pid)
        if uid is None:
            return
        devices: set[int] = set()
        self.is_at_maps = False
        self._found[pid] = Holder(pid, uid, frozenset(), may_hold_more=True)
        if uid not in self._interesting:
            self._interesting[uid] = self.is_of_interest(uid)
        if not self._interesting[uid]:
            del self._found[pid]
            return
        for number in self._numbers_in(pid):
            self._steps += 1
            if self._is_abandoned:
                return
            if number not in self.devices or number in devices:
                continue
            devices.add(number)
            self._found[pid] = Holder(pid, uid, frozenset(devices), may_hold_more=True)
            if devices == self.devices:
                break
        may_hold_more = pid in self.stuck and devices != self.devices
        self._found[pid] = Holder(pid, uid, frozenset(devices), may_hold_more)

    def _numbers_in(self, pid: int) -> Iterator[int]:
        """Yield the numbers of what the process has open or mapped; 0 for what is no device."""
        if not self.stuck.get(pid, True):
            return
        try:
            threads = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208  names only, for each pid
        except OSError:  # it has ended
            return
        for thread in self._with_own_files(threads):
            yield from _open_in(f"/proc/{pid}/task/{thread}/fd")
        if pid not in self.stuck:
            self.is_at_maps = True
            # A first thread that has ended before the others has no memory to look at.
            for thread in dict.fromkeys((*threads[:1], *threads[-1:])):
                yield from self._mapped_in(f"/proc/{thread}")

    def _with_own_files(self, threads: Sequence[str]) -> Iterator[str]:
        """Yield one of the threads for each table of open files: nearly always there is one."""
        chosen: list[int] = []
        for thread in threads:
            self._steps += 1
            if not any(_share_files(int(thread), other) for other in chosen):
                if len(chosen) < TABLES_MAX:
                    chosen.append(int(thread))
                yield thread

    def _mapped_in(self, process: str) -> Iterator[int]:
        """Format: proc_pid_maps(5). map_files leads to what is mapped, whatever its path."""
        pieces: list[bytes] = []
        try:
            with open(f"{process}/maps", "rb", buffering=0) as maps:  # noqa: PTH123  for each
                while piece := maps.read(MAPS_BYTES):
                    pieces.append(piece)
                    self._steps += 1
        except OSError:  # it has ended
            return
        for area in MAPPED.finditer(b"".join(pieces)):
            start, end, key = area.groups()
            if key not in self._mapped:
                name = f"{int(start, 16):x}-{int(end, 16):x}"
                self._mapped[key] = _device_number(f"{process}/map_files/{name}")
            yield self._mapped[key]


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


def _unseen(pids: Iterable[int], is_of_interest: Callable[[int], bool]) -> dict[int, Holder]:
    """Return those of interest of these processes, which nobody has looked at."""
    found: dict[int, Holder] = {}
    interesting: dict[int, bool] = {}
    for pid in pids:
        uid = _real_uid(pid)
        if uid is not None and uid not in interesting:
            interesting[uid] = is_of_interest(uid)
        if uid is not None and interesting[uid]:
            found[pid] = Holder(pid, uid, frozenset(), may_hold_more=True)
    return found


def _open_in(folder: str) -> Iterator[int]:
    with contextlib.suppress(OSError), os.scandir(folder) as entries:  # it has ended
        for entry in entries:
            yield _device_number(entry.path)


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
