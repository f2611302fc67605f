"""A UDP path between a client and a server that delays, drops or damages. Knows no protocol."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

# What becomes of an answer: the packets to deliver, each with its delay in seconds.
Path = Callable[[bytes], list[tuple[float, bytes]]]


@dataclass
class UdpRelay:
    """Relays one client's packets to `server`; `path` says what becomes of each answer."""

    server: tuple[str, int]
    path: Path
    host: str = "127.0.0.1"
    port: int = 0
    requests: list[bytes] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> UdpRelay:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        self._front = socket.socket(family, socket.SOCK_DGRAM)
        self._front.bind((self.host, 0))
        self.port = self._front.getsockname()[1]
        self._back = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._back.connect(self.server)
        self._thread = threading.Thread(target=self._run, name="udp-relay")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._front.close()
        self._back.close()

    def _run(self) -> None:
        client: tuple[str, int] | None = None
        due: list[tuple[float, bytes]] = []
        while not self._stop.is_set():
            ready, _, _ = select.select([self._front, self._back], [], [], 0.01)
            now = time.monotonic()
            if self._front in ready:
                packet, client = self._front.recvfrom(4096)
                self.requests.append(packet)
                self._back.send(packet)
            if self._back in ready:
                due += [
                    (now + delay, answer) for delay, answer in self.path(self._back.recv(4096))
                ]
            for at, answer in [item for item in due if item[0] <= now]:
                due.remove((at, answer))
                assert client is not None
                self._front.sendto(answer, client)
