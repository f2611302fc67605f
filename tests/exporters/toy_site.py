"""A server of toy collectors and probes in this process. Asserts nothing."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from sentinel_exporters.pages import Pages
from sentinel_exporters.prober import Prober
from sentinel_exporters.server import Server
from tests.exporters.toy import Source, make_prober, make_runner

SCRAPE = b"GET /metrics HTTP/1.0\r\n\r\n"


@dataclass
class ToySite:
    """A server that answers, and what it reads: one collector, or one probe."""

    server: Server
    source: Source

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.server.port), timeout=30)

    def ask(self, request: bytes = SCRAPE) -> bytes:
        """Send a request and return all that comes back."""
        with self.connect() as connection:
            connection.sendall(request)
            return read_all(connection)


@contextlib.contextmanager
def serving_toy(source: Source, max_requests: int = 2) -> Iterator[ToySite]:
    """Serve until the block ends, and let the source go then."""
    prober = make_prober(source) if source.is_probe else Prober([], {}, 1)
    server = Server("127.0.0.1:0", Pages(make_runner(source), prober, max_requests))
    with in_background(server):
        yield ToySite(server, source)
        source.gate.set()


@contextlib.contextmanager
def in_background(server: Server) -> Iterator[None]:
    """Serve until the block ends."""
    is_over = threading.Event()
    thread = threading.Thread(target=server.serve_until, args=(is_over.wait,))
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        # The accepting thread looks up twice a second, or when somebody comes.
        while thread.is_alive():
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", server.port), timeout=5).close()
            thread.join(0.01)


def read_all(connection: socket.socket) -> bytes:
    """Return what comes until the connection ends, in whatever way."""
    answer = b""
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(1 << 20):
            answer += part
    return answer
