"""UDP links to many servers, with a weather that changes while they run. Knows no protocol."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import random
import select
import socket
import threading
import time
from collections import OrderedDict, deque
from dataclasses import dataclass

_MAX_PACKET = 4096
# A client that opens one socket after the other is heard on its newest ones.
_MAX_CLIENTS = 16
_HISTORY = 8


@dataclass(frozen=True)
class Weather:
    """What happens to packets on their way. The numbers are chances, from 0 to 1."""

    # Requests and answers alike.
    lost: float = 0.0
    # The rest befalls answers only. Each takes this long, at least and at most.
    delay_s: tuple[float, float] = (0.0, 0.0)
    twice: float = 0.0
    # Comes so much later that the client has asked again.
    late: float = 0.0
    late_s: float = 0.5
    # Packets that nobody has sent, or sent long ago, come before it.
    rubbish: float = 0.0
    # One of its bytes is another.
    damaged: float = 0.0


CLEAR = Weather()
CUT = Weather(lost=1.0)


class Link:
    """The way to one server. Clients send to `port` of 127.0.0.1."""

    def __init__(self, server: tuple[str, int], links: Links) -> None:
        self.server = server
        self.weather = CLEAR
        self.front = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.front.setblocking(False)
        self.front.bind(("127.0.0.1", 0))
        self.port: int = self.front.getsockname()[1]
        # Where the server's answers to each client come in; the newest is last.
        self.backs: OrderedDict[tuple[str, int], socket.socket] = OrderedDict()
        self._links = links

    def close(self) -> None:
        """Let the host refuse what comes, until `open`."""
        self._links.drop(self)
        self.front.close()

    def open(self) -> None:
        """Listen again, on the same port."""
        self.front = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.front.setblocking(False)
        self.front.bind(("127.0.0.1", self.port))
        self._links.watch(self)


class Links:
    """One thread that carries the packets of all links."""

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)
        self._epoll = select.epoll()
        self._lock = threading.Lock()
        self._links: list[Link] = []
        # By descriptor: the link, and the client whose answers come in there.
        self._watched: dict[int, tuple[Link, tuple[str, int] | None]] = {}
        self._history: deque[bytes] = deque(maxlen=_HISTORY)
        self._due: list[tuple[float, int, Link, tuple[str, int], bytes]] = []
        self._numbers = itertools.count()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="links")

    def __enter__(self) -> Links:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()
        for link in self._links:
            link.close()
        self._epoll.close()

    def add(self, server: tuple[str, int]) -> Link:
        """Return a new link to the server."""
        link = Link(server, self)
        self._links.append(link)
        self.watch(link)
        return link

    def watch(self, link: Link) -> None:
        """Carry what comes in at its front."""
        with self._lock:
            self._watched[link.front.fileno()] = link, None
            self._epoll.register(link.front.fileno(), select.EPOLLIN)

    def drop(self, link: Link) -> None:
        """Carry nothing more of what the link has open."""
        with self._lock:
            # Closing takes them off the epoll; the front is closed by the link.
            self._watched.pop(link.front.fileno(), None)
            while link.backs:
                self._forget(link.backs.popitem()[1])

    def _forget(self, back: socket.socket) -> None:
        self._watched.pop(back.fileno(), None)
        back.close()

    def _run(self) -> None:
        while not self._is_over.is_set():
            wait_s = 0.05
            if self._due:
                wait_s = min(wait_s, max(0.0, self._due[0][0] - time.monotonic()))
            ready = self._epoll.poll(wait_s)
            with self._lock:
                for number, _ in ready:
                    if number in self._watched:
                        self._carry(*self._watched[number])
                self._deliver()

    def _carry(self, link: Link, client: tuple[str, int] | None) -> None:
        if client is not None:
            with contextlib.suppress(OSError):  # the server is not there
                self._answer(link, client, link.backs[client].recv(_MAX_PACKET))
            return
        with contextlib.suppress(OSError):
            packet, client = link.front.recvfrom(_MAX_PACKET)
            if self._random.random() >= link.weather.lost:
                self._back(link, client).send(packet)

    def _back(self, link: Link, client: tuple[str, int]) -> socket.socket:
        back = link.backs.get(client)
        if back is None:
            back = link.backs[client] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            back.setblocking(False)
            back.connect(link.server)
            self._watched[back.fileno()] = link, client
            self._epoll.register(back.fileno(), select.EPOLLIN)
            while len(link.backs) > _MAX_CLIENTS:
                self._forget(link.backs.popitem(last=False)[1])
        link.backs.move_to_end(client)
        return back

    def _answer(self, link: Link, client: tuple[str, int], packet: bytes) -> None:
        weather, chance = link.weather, self._random.random
        if chance() < weather.lost:
            return
        at = time.monotonic() + self._random.uniform(*weather.delay_s)
        packets = [packet]
        if chance() < weather.rubbish:
            packets = [*self._rubbish(packet), packet]
        self._history.append(packet)
        if chance() < weather.damaged:
            where = self._random.randrange(len(packet))
            other = packet[where] ^ self._random.randrange(1, 256)
            packets[-1] = packet[:where] + bytes([other]) + packet[where + 1 :]
        if chance() < weather.late:
            at += weather.late_s
        if chance() < weather.twice:
            packets += packets[-1:]
        for one in packets:
            heapq.heappush(self._due, (at, next(self._numbers), link, client, one))

    def _rubbish(self, packet: bytes) -> list[bytes]:
        some = self._random.randbytes
        return [
            some(self._random.randrange(1, 80)),
            b"\x06\x00\xff\x07" + some(40),  # begins as IPMI does
            packet[: self._random.randrange(len(packet))],
            packet[:16] + some(len(packet) - 16) if len(packet) > 16 else b"",
            *self._history,  # of other sessions and other servers
        ]

    def _deliver(self) -> None:
        now = time.monotonic()
        while self._due and self._due[0][0] <= now:
            _, _, link, client, packet = heapq.heappop(self._due)
            with contextlib.suppress(OSError):  # the link or the client has gone
                link.front.sendto(packet, client)
