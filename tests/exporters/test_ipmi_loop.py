"""The loop: what it learns of how long a BMC takes, and when it gives one up."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

import pytest

from sentinel_exporters.ipmi.errors import NoAnswerError
from sentinel_exporters.ipmi.framing import Outside, make_request
from sentinel_exporters.ipmi.loop import Job, Line, Loop, ask_all
from sentinel_exporters.ipmi.patience import RETRY_S, Patience
from tests.exporters.rakp_bmc import answer_outside

QUESTION, OTHER = make_request(0x06, 0x38, b"\x8e\x02"), make_request(0x06, 0x38, b"\x8e\x03")


class Peer:
    """The other end of a line, and how many packets have come there."""

    def __init__(self) -> None:
        self.ours, self._theirs = (socket.socket(type=socket.SOCK_DGRAM) for _ in range(2))
        for one in (self.ours, self._theirs):
            one.bind(("127.0.0.1", 0))
        self.ours.connect(self._theirs.getsockname())
        self._theirs.connect(self.ours.getsockname())
        self.ours.setblocking(False)
        self._theirs.settimeout(10)

    def hear(self) -> bytes:
        """Return the next packet."""
        return self._theirs.recv(1024)

    def say(self, *packets: bytes) -> None:
        """Send them."""
        for packet in packets:
            self._theirs.send(packet)

    def close(self) -> None:
        """Close both ends."""
        self.ours.close()
        self._theirs.close()


@pytest.fixture
def peer() -> Iterator[Peer]:
    with contextlib.closing(Peer()) as peer:
        yield peer


def ask(peer: Peer, patience: Patience, first_silence_s: float = 5.0) -> Job[list[bytes]]:
    """Begin to ask two things."""
    line = Line(peer.ours, Outside(), patience)
    talk = ask_all([QUESTION, OTHER])
    job = Job(line, talk, time.monotonic() + 10, first_silence_s)
    Loop().start(job)
    return job


def test_a_bmc_that_takes_its_time_is_given_it(peer: Peer) -> None:
    patience = Patience(2.0)
    job = ask(peer, patience)
    for _ in range(2):
        packet = peer.hear()
        time.sleep(1.0)
        peer.say(answer_outside(packet))
    job.wait()

    # Twice what it took, and not what was waited before.
    assert patience.wait_s(0) == 2.0
    quick = Patience(2.0)
    job = ask(peer, quick)
    for _ in range(2):
        peer.say(answer_outside(peer.hear()))
    job.wait()
    assert quick.wait_s(0) == pytest.approx(2.0 * 0.7**2)


def test_an_answer_that_came_twice_makes_the_next_repetition_later(peer: Peer) -> None:
    patience = Patience()
    job = ask(peer, patience)
    asked = [peer.hear(), peer.hear()]  # the second is a repetition
    peer.say(*map(answer_outside, asked))
    peer.say(answer_outside(peer.hear()))
    job.wait()

    assert patience.wait_s(0) > RETRY_S


def test_only_the_first_answer_has_the_first_ones_time(peer: Peer) -> None:
    job = ask(peer, Patience(), first_silence_s=0.5)
    peer.say(answer_outside(peer.hear()))
    packet = peer.hear()
    time.sleep(1.0)
    peer.say(answer_outside(packet))

    assert len(job.wait()) == 2


def test_who_says_nothing_for_so_long_at_first_is_given_up(peer: Peer) -> None:
    began = time.monotonic()
    with pytest.raises(NoAnswerError, match="given up"):
        ask(peer, Patience(), first_silence_s=0.5).wait()

    assert time.monotonic() - began < 2


def test_an_answer_behind_many_other_packets_is_heard(peer: Peer) -> None:
    # All have come before the loop looks; nothing comes later that would make it look again.
    first = Outside().ask(QUESTION)
    peer.say(*[b"rubbish"] * 100, answer_outside(first))
    job = ask(peer, Patience(9.0))
    assert peer.hear() == first
    peer.say(answer_outside(peer.hear()))

    assert len(job.wait()) == 2
