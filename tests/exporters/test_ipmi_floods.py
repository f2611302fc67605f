"""BMCs that send without end, or never, in numbers: they keep neither the others nor us."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from ipaddress import ip_address

import pytest

from sentinel_exporters.ipmi.errors import NoAnswerError
from sentinel_exporters.ipmi.framing import Outside, Request, make_request
from sentinel_exporters.ipmi.loop import Job, Line, Loop, ask_all
from sentinel_exporters.ipmi.patience import Patience
from sentinel_exporters.ipmi.session import Credentials
from sentinel_exporters.ipmi.silent import SilentBmcs
from sentinel_exporters.ipmi.target import Address
from sentinel_exporters.ipmi.wire import log_in
from tests.exporters.bmc import free_udp_port
from tests.exporters.rakp_bmc import answer_outside, answer_to
from tests.lab.wait import wait_for

LOOPBACK = ip_address("127.0.0.1")
QUESTION = make_request(0x06, 0x38, b"\x8e\x02")
# RMCP of class IPMI, and nothing that anybody has asked for.
RUBBISH = b"\x06\x00\xff\x07" + bytes(30)
# Longer than any test waits; then it ends, so that a failure does not take a CPU for ever.
FLOOD_S = 10.0


class FloodedSocket(socket.socket):
    """A socket in which there is another packet whenever one was taken."""

    def __init__(self) -> None:
        ours, self.peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        super().__init__(fileno=ours.detach())
        self.setblocking(False)
        self.peer.send(RUBBISH)
        self.ends_at = time.monotonic() + FLOOD_S

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self.ends_at

    def recv(self, size: int, flags: int = 0) -> bytes:
        packet = super().recv(size, flags)
        if not self.is_over:
            self.peer.send(RUBBISH)
        return packet

    def close(self) -> None:
        self.peer.close()
        super().close()


class Echo(Outside):
    """A line on which the question comes back as its answer."""

    def repeat(self, request: Request) -> bytes:
        return request.message(0)

    def hear(self, packet: bytes) -> bytes | None:
        return packet


def test_a_flood_of_packets_takes_nobody_elses_turn() -> None:
    loop = Loop()
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with contextlib.closing(FloodedSocket()) as flooded, near, far:
        near.setblocking(False)
        flood = Job(
            Line(flooded, Outside(), Patience()), ask_all([QUESTION]), time.monotonic() + 0.5
        )
        loop.start(flood)
        other = Job(Line(near, Echo(), Patience()), ask_all([QUESTION] * 3), flooded.ends_at)
        loop.start(other)
        for _ in range(3):
            far.settimeout(FLOOD_S)
            far.send(far.recv(1024))
        assert other.wait() == [QUESTION.message(0)] * 3
        with pytest.raises(NoAnswerError, match="no answer for"):
            flood.wait()
        assert not flooded.is_over


def test_a_flood_of_packets_lengthens_no_login() -> None:
    with contextlib.closing(FloodedSocket()) as flooded:
        with pytest.raises(NoAnswerError, match="the time for it is over"):
            log_in(
                flooded, Address(LOOPBACK), Credentials("monitor", "x"), time.monotonic() + 0.3
            )
        assert not flooded.is_over


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  it is done often


def test_the_silent_are_asked_by_turns_and_remembered_in_bounds() -> None:
    with contextlib.ExitStack() as held:
        bmcs = [held.enter_context(socket.socket(type=socket.SOCK_DGRAM)) for _ in range(5)]
        for bmc in bmcs:
            bmc.bind(("127.0.0.1", free_udp_port("127.0.0.1")))
            bmc.setblocking(False)
        silent = SilentBmcs(Loop(), max_silent=4, max_asked=2)
        held.callback(silent.clear)

        def greet(bmc: socket.socket) -> None:
            address = Address(LOOPBACK, bmc.getsockname()[1])
            with pytest.raises(NoAnswerError):
                silent.greet(address, time.monotonic() + 1.1)

        threads = [threading.Thread(target=greet, args=(bmc,)) for bmc in bmcs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        for bmc in bmcs:
            with contextlib.suppress(BlockingIOError):
                while bmc.recv(1024):
                    pass
        before, most = open_files(), 0
        heard: set[socket.socket] = set()

        def have_four_been_asked() -> bool:
            nonlocal most
            for bmc in bmcs:
                with contextlib.suppress(BlockingIOError):
                    while bmc.recv(1024):
                        heard.add(bmc)
            most = max(most, open_files() - before)
            return len(heard) >= 4

        wait_for("four have been asked again", have_four_been_asked)
        # The fifth is asked by scrapes alone.
        assert len(heard) == 4
        assert most <= 2


def test_a_scrape_finds_a_silent_bmc_back_at_once() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as bmc:
        bmc.bind(("127.0.0.1", 0))
        bmc.setblocking(False)
        address = Address(LOOPBACK, bmc.getsockname()[1])
        silent = SilentBmcs(Loop(), max_asked=0)  # by nobody but scrapes
        with pytest.raises(NoAnswerError):
            silent.greet(address, time.monotonic() + 1.1)
        with contextlib.suppress(BlockingIOError):
            while bmc.recv(1024):
                pass
        bmc.settimeout(5)
        told: list[NoAnswerError | None] = []
        assert silent.begin_check(address, told.append)
        question, client = bmc.recvfrom(1024)
        message = answer_to(question[14:], 0, b"\x01")
        bmc.sendto(question[:13] + bytes([len(message)]) + message, client)

        wait_for("it is told", lambda: told, 5)
        assert told == [None]
        assert address not in silent


def test_a_silent_bmc_that_nobody_wants_to_read_is_forgotten() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as bmc:
        bmc.bind(("127.0.0.1", 0))
        address = Address(LOOPBACK, bmc.getsockname()[1])
        silent = SilentBmcs(Loop(), forget_s=1.0)
        with pytest.raises(NoAnswerError):
            silent.greet(address, time.monotonic() + 1.1)

        assert address in silent
        wait_for("it is forgotten", lambda: address not in silent, 10)


def test_a_loss_of_long_ago_shortens_nobodys_time_to_answer() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as bmc:
        bmc.bind(("127.0.0.1", 0))
        address = Address(LOOPBACK, bmc.getsockname()[1])
        silent = SilentBmcs(Loop())
        silent.note_loss(address, 3600.0)

        def answer_late() -> None:
            packet, asker = bmc.recvfrom(1024)
            time.sleep(1.5)
            bmc.sendto(answer_outside(packet), asker)

        answering = threading.Thread(target=answer_late)
        answering.start()
        silent.greet(address, time.monotonic() + 10).close()
        answering.join()

    assert address not in silent


def test_a_host_that_refuses_in_the_end_is_not_one_that_is_silent() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as bmc:
        bmc.bind(("127.0.0.1", 0))
        address = Address(LOOPBACK, bmc.getsockname()[1])
        silent = SilentBmcs(Loop())
        closing = threading.Timer(1.2, bmc.close)
        closing.start()
        with pytest.raises(NoAnswerError) as refused:
            silent.greet(address, time.monotonic() + 10)
        closing.join()

    assert refused.value.is_refusal
    assert address not in silent
