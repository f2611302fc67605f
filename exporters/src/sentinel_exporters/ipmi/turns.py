"""A number of places, given away in the order in which they are asked for. Does no IO."""

from __future__ import annotations

import threading
import time
from collections import deque


class Turns:
    """First come, first served; a semaphore of the standard library is not fair."""

    def __init__(self, places: int) -> None:
        self._lock = threading.Lock()
        self._free = places
        # Each waits for its own lock, which is released when a place is its own.
        self._waiting: deque[threading.Lock] = deque()

    @property
    def waiting(self) -> int:
        """How many wait for a place."""
        return len(self._waiting)

    def try_take(self) -> bool:
        """Take a place if there is one at once."""
        with self._lock:
            if not self._free:
                return False
            self._free -= 1
            return True

    def take(self, deadline: float) -> bool:
        """Wait for a place until `deadline` (monotonic seconds); whether there was one."""
        if self.try_take():
            return True
        mine = threading.Lock()
        mine.acquire()
        with self._lock:
            if self._free:
                self._free -= 1
                return True
            self._waiting.append(mine)
        if mine.acquire(timeout=max(0.0, deadline - time.monotonic())):
            return True
        with self._lock:
            if mine in self._waiting:
                self._waiting.remove(mine)
                return False
        return True  # it was given away in the last moment

    def give_back(self) -> None:
        """Give a place back, to whoever has waited longest."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._free += 1
