"""Read from and write to a client who has so much time and no more. Knows no protocol.

A socket's own timeout begins anew with each piece, so that a client could hold a thread.
"""

from __future__ import annotations

import io
import socket
import time
from typing import Any

# How long a client may take to send its request, and to take the answer; then it is dropped.
CLIENT_TIMEOUT_S = 10.0


class DeadlineReader(io.RawIOBase):
    """A request, all of which must arrive before the deadline (monotonic).

    Raises OSError when it does not, when it is longer than `max_bytes`, and at its end: who is
    read from asks for more only while something is missing.
    """

    def __init__(self, connection: socket.socket, deadline: float, max_bytes: int) -> None:
        self._connection = connection
        self._deadline = deadline
        self._left = max_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # Any: the base class wants its private Buffer type
        _grant(self._connection, self._deadline)
        count = self._connection.recv_into(buffer)
        if count == 0:
            raise ConnectionError("the request was cut short")
        self._left -= count
        if self._left < 0:
            raise ConnectionError("the request is too long")
        return count


class DeadlineWriter(io.RawIOBase):
    """What is sent to the client, all of which it must take within `limit_s` of the first."""

    def __init__(self, connection: socket.socket, limit_s: float) -> None:
        self._connection = connection
        self._limit_s = limit_s
        self._deadline: float | None = None

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:  # Any: as above
        if self._deadline is None:
            self._deadline = time.monotonic() + self._limit_s
        left = memoryview(data)
        while left:
            _grant(self._connection, self._deadline)
            left = left[self._connection.send(left) :]
        return len(data)


def _grant(connection: socket.socket, deadline: float) -> None:
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        raise TimeoutError("the client took too long")
    connection.settimeout(left_s)
