"""Bound what clients can hold: the threads that wait for them. Knows no protocol.

A client that says nothing, says it slowly or does not read costs a thread for as long as it is
borne with. When there are many of them the one that has kept us waiting longest is dropped for
the next that comes, so that they shut nobody out.
"""

from __future__ import annotations

import contextlib
import math
import socket
import threading
import time
from collections.abc import Iterator


class Connections:
    """The open connections. Safe to use from several threads."""

    def __init__(self, max_waiting: int, patience_s: float) -> None:
        """Clients are waited for at the same time, each for so long at least."""
        self._max_waiting = max_waiting
        self._patience_s = patience_s
        self._changed = threading.Condition()
        # Since when we wait for the client; the oldest is the first.
        self._waiting: dict[socket.socket, float] = {}
        # Its request has come in full, and is not answered yet.
        self._asked: set[socket.socket] = set()
        self._count = 0

    def admit(self, connection: socket.socket) -> bool:
        """Take one more, and drop another for it where needed; False: there is no room."""
        now = time.monotonic()
        with self._changed:
            if len(self._waiting) >= self._max_waiting:
                oldest, since = next(iter(self._waiting.items()))
                # A dropped one's thread takes a moment to end: not any number of those either.
                if now - since < self._patience_s or self._count >= 2 * self._max_waiting:
                    return False
                del self._waiting[oldest]
                _hang_up(oldest)
            self._waiting[connection] = now
            self._count += 1
            return True

    def drop_oldest(self) -> None:
        """Drop the client that has kept us waiting longest, if it has had its time."""
        with self._changed:
            oldest, since = next(iter(self._waiting.items()), (None, math.inf))
            if oldest is not None and time.monotonic() - since >= self._patience_s:
                del self._waiting[oldest]
                _hang_up(oldest)

    def replace(self, connection: socket.socket, other: socket.socket) -> None:
        """Go on with another object for the same client, in whose turn nothing changes."""
        with self._changed:
            if connection not in self._waiting:  # it was dropped meanwhile
                _hang_up(other)
            self._waiting = {
                other if one is connection else one: since
                for one, since in self._waiting.items()
            }

    @contextlib.contextmanager
    def working(self, connection: socket.socket) -> Iterator[None]:
        """While the block runs it is not the client that we wait for."""
        self.note_request(connection)
        try:
            yield
        finally:
            self.note_wait(connection)

    def note_request(self, connection: socket.socket) -> None:
        """The request has come: from now on it is not the client that we wait for."""
        with self._changed:
            self._waiting.pop(connection, None)
            self._asked.add(connection)

    def note_wait(self, connection: socket.socket) -> None:
        """From now on it is the client that we wait for."""
        with self._changed:
            self._waiting[connection] = time.monotonic()

    def leave(self, connection: socket.socket) -> None:
        """The connection is closed."""
        with self._changed:
            self._waiting.pop(connection, None)
            self._asked.discard(connection)
            self._count -= 1
            self._changed.notify_all()

    def wait_until_answered(self, timeout_s: float) -> bool:
        """Wait until each request that has come is answered; False: not within the time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._asked, timeout_s)


def _hang_up(connection: socket.socket) -> None:
    # Its thread wakes up and closes it. Not the method of a TLS connection, which would take
    # away the encryption under that thread's feet.
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
