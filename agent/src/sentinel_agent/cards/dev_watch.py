"""Notices that something in /dev was changed, and says so. It changes nothing itself.

inotify, not the kernel's uevents: those tell of devices that drivers add, but neither of a
chmod nor of nvidia-modprobe's mknod.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import select
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

from .rules import is_card

log = logging.getLogger(__name__)

# include/uapi/linux/inotify.h. IN_ATTRIB comes for chmod, chown and setxattr (ACLs); it comes
# to the folder also when the file is reached by another name of it, or in another mount
# namespace that shows the same file system.
IN_ATTRIB, IN_MOVED_FROM, IN_MOVED_TO = 0x4, 0x40, 0x80
IN_CREATE, IN_DELETE, IN_Q_OVERFLOW, IN_ONLYDIR = 0x100, 0x200, 0x4000, 0x01000000
CHANGES = IN_ATTRIB | IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE
EVENT = struct.Struct("=iIII")
BUFFER_BYTES = 65536
LIBC = ctypes.CDLL(None, use_errno=True)

# A driver that is loaded anew makes and changes hundreds of files: so long after one call of
# `changed` the next is held back, twice as long each time, until it has been quiet.
PAUSE_MIN_S = 0.1
PAUSE_MAX_S = 1.0
QUIET_S = 3.0
# How often it is looked whether another file system was mounted at /dev.
CHECK_S = 2.0


class DevWatch:
    """Calls `changed`, in a thread of its own, when a card's file was changed in some way."""

    def __init__(
        self,
        changed: Callable[[], None],
        dev: Path = Path("/dev"),
        pauses_s: tuple[float, float] = (PAUSE_MIN_S, PAUSE_MAX_S),
    ) -> None:
        self._changed = changed
        self._dev = dev
        self._pause_min_s, self._pause_max_s = pauses_s
        self._thread = threading.Thread(target=self._run, name="dev-watch", daemon=True)

    def start(self) -> None:
        """Start the thread. Without inotify the rounds of enforcement do what they can."""
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                self._watch()
            except OSError as error:
                log.error("cannot watch folder=%s reason=%s", self._dev, error.strerror)
                time.sleep(CHECK_S)

    def _watch(self) -> None:
        """Watch until the folder is another one. Raises OSError."""
        watched = _identity(self._dev)
        opened = LIBC.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        _check(opened)
        try:
            path = os.fsencode(self._dev)
            _check(LIBC.inotify_add_watch(opened, path, CHANGES | IN_ONLYDIR))
            # What was changed before the watch began was seen by nobody.
            self._changed()
            pause_s, called = self._pause_min_s, time.monotonic()
            poll = select.poll()
            poll.register(opened, select.POLLIN)
            while _identity(self._dev) == watched:
                if not poll.poll(CHECK_S * 1000) or not _has_card(_read(opened)):
                    continue
                now = time.monotonic()
                pause_s = self._pause_min_s if now - called > QUIET_S else pause_s
                if now - called < pause_s:
                    time.sleep(pause_s - (now - called))
                    pause_s = min(2 * pause_s, self._pause_max_s)
                    _read(opened)
                called = time.monotonic()
                self._changed()
        finally:
            os.close(opened)


def _read(opened: int) -> bytes:
    """Return all events that are there; whole ones, as the kernel gives them."""
    events = b""
    with contextlib.suppress(BlockingIOError):
        while len(events) < 16 * BUFFER_BYTES:
            events += os.read(opened, BUFFER_BYTES)
    return events


def _has_card(events: bytes) -> bool:
    """Say whether one of the events is about a card's file, or about events that were lost."""
    at = 0
    while at < len(events):
        _, mask, _, length = EVENT.unpack_from(events, at)
        name = events[at + EVENT.size : at + EVENT.size + length].rstrip(b"\0")
        if mask & IN_Q_OVERFLOW or is_card(os.fsdecode(name)):
            return True
        at += EVENT.size + length
    return False


def _identity(folder: Path) -> tuple[int, int]:
    found = folder.stat()
    return found.st_dev, found.st_ino


def _check(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
