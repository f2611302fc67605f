"""Booking servers that fail: they listen, and answer by no contract.

Each takes the port of the booking server that was stopped; what goes wrong is one function of
the connection and the path that was asked for.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator

# Takes the connection and the path that was asked for; the connection is closed after it.
Reply = Callable[[socket.socket, str], None]


class BadServer:
    """Replies to each request as told; counts the requests for the policy."""

    def __init__(self, address: str, port: int, reply: Reply) -> None:
        self._reply = reply
        self.policies_asked = 0
        self.is_stopping = threading.Event()
        self._listener = socket.create_server((address, port))
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> BadServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.is_stopping.set()
        # Closing alone would leave the thread in accept(2), and the port taken.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while not self.is_stopping.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            request = b""
            while b"\r\n\r\n" not in request:
                received = connection.recv(65536)
                if not received:
                    return
                request += received
            path = request.split(b" ", 2)[1].decode()
            if path.startswith("/api/agent/policy"):
                self.policies_asked += 1
            self._reply(connection, path)
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_WR)
                # What was not read would make the kernel take back what was sent.
                connection.settimeout(2)
                while connection.recv(65536):
                    pass
        self._open.discard(connection)


def answering(status: str, content: bytes, *headers: str) -> Reply:
    """Return a reply of this status line, headers and body."""
    head = "\r\n".join([f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(content)}"])
    whole = f"{head}\r\nConnection: close\r\n\r\n".encode() + content
    return lambda connection, _: connection.sendall(whole)


def answering_json(document: object, status: str = "200 OK") -> Reply:
    """Return a reply with the document, as a policy would come."""
    return answering(status, json.dumps(document).encode(), 'ETag: "bad"')


def saying_nothing(connection: socket.socket, _: str) -> None:
    """Take the request and keep quiet until the client or the server goes."""
    with contextlib.suppress(OSError):
        while connection.recv(65536):
            pass


def dripping(connection: socket.socket, _: str) -> None:
    """Send a policy's beginning, a byte now and then, for ever."""
    connection.sendall(b'HTTP/1.1 200 OK\r\nETag: "x"\r\nContent-Length: 100000\r\n\r\n')
    while True:
        connection.sendall(b" ")
        time.sleep(0.1)


def endless(connection: socket.socket, _: str) -> None:
    """Send zeros without end."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
    while True:
        connection.sendall(bytes(1 << 20))


def redirecting(document: object) -> Reply:
    """Return a reply that sends the client on to a place where the document is."""
    there = answering_json(document)
    away = answering("302 Found", b"", "Location: /elsewhere")

    def reply(connection: socket.socket, path: str) -> None:
        (there if path == "/elsewhere" else away)(connection, path)

    return reply


def bombing(layers: int) -> Reply:
    """Return a reply of a few KiB that is gigabytes once it is unpacked `layers` times."""
    content = b"".join(_zeros(1 << 30))
    for _ in range(layers - 1):
        content = gzip.compress(content)
    return answering("200 OK", content, f"Content-Encoding: {', '.join(['gzip'] * layers)}")


def _zeros(count: int) -> Iterator[bytes]:
    """Yield `count` zeros as members of a gzip file, which are unpacked one after the other."""
    member = gzip.compress(bytes(1 << 24))
    for _ in range(count >> 24):
        yield member
