"""Sessions over bad networks, and with strangers: what is lost, late, damaged or false."""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Callable, Container

import pytest

from sentinel_exporters.ipmi.commands import read_chassis, read_device
from sentinel_exporters.ipmi.errors import IpmiError, LoginError, NoAnswerError
from sentinel_exporters.ipmi.patience import RETRY_S
from sentinel_exporters.ipmi.session import Credentials, Session
from sentinel_exporters.ipmi.target import Address
from sentinel_exporters.ipmi.wire import LOGIN_RETRY_S
from tests.exporters.bmc import USER, Bmc
from tests.exporters.bmc_sessions import LOGIN, LOOPBACK, READABLE, at, read_all, soon
from tests.exporters.ipmi_peers import count_sessions
from tests.exporters.udp_relay import UdpRelay
from tests.lab.wait import wait_for

# Where a packet of IPMI 2.0 says what it carries (IPMI 2.0, table 13-8), and what that may be.
_PAYLOAD_TYPE, _AUTHENTICATED = 5, 0x40
_OUTSIDE = b"\x06\x00\xff\x07" + bytes(9)
_RAKP_1, _RAKP_2, _RAKP_3, _RAKP_4 = 0x12, 0x13, 0x14, 0x15


def is_rakp_2(packet: bytes) -> bool:
    """Whether it is the answer by which the BMC proves that it knows the password."""
    return packet[_PAYLOAD_TYPE] & 0x3F == _RAKP_2


def is_rakp_4(packet: bytes) -> bool:
    """Whether it is the answer that ends the agreement on a session's keys."""
    return packet[_PAYLOAD_TYPE] & 0x3F == _RAKP_4


def is_in_session(packet: bytes) -> bool:
    """Whether it is an answer in a session that is open."""
    return bool(packet[_PAYLOAD_TYPE] & _AUTHENTICATED)


def drop(lost: Container[int]) -> Callable[[bytes], list[tuple[float, bytes]]]:
    """A path on which the answers with these numbers, from 0 on, are lost."""
    numbers = itertools.count()
    return lambda packet: [] if next(numbers) in lost else [(0.0, packet)]


def deliver(packet: bytes) -> list[tuple[float, bytes]]:
    """A path that does nothing."""
    return [(0.0, packet)]


def damage(packet: bytes) -> list[tuple[float, bytes]]:
    """Before each answer come rubbish, and the answer in part or damaged; it comes twice."""
    rubbish = [b"x", b"\x06\x00\xff\x07", b"\xff" * 64]
    if packet[_PAYLOAD_TYPE] & _AUTHENTICATED:
        rubbish.append(packet[:-1] + bytes([packet[-1] ^ 0xFF]))
    else:
        rubbish += [packet[:size] for size in range(len(packet))]
    return [(0.0, one) for one in (*rubbish, packet, packet)]


@pytest.mark.parametrize("lost", range(6))
def test_a_login_survives_the_loss_of_any_of_its_answers(bmc: Bmc, lost: int) -> None:
    with UdpRelay((bmc.host, bmc.port), drop({lost})) as relay:
        session = Session(at(relay), LOGIN, soon())
        assert read_chassis(session).is_on
        session.close()


def test_lost_answers_are_asked_for_again(bmc: Bmc) -> None:
    with UdpRelay((bmc.host, bmc.port), drop({7, 9, 10})) as relay:
        session = Session(at(relay), LOGIN, soon())
        readings = read_all(session)
        session.close()

    assert len(readings) == READABLE


def test_a_slow_bmc_is_waited_for(bmc: Bmc) -> None:
    numbers = itertools.count()

    def path(packet: bytes) -> list[tuple[float, bytes]]:
        # Each answer after the login comes when it has been asked for again.
        return [(RETRY_S * 1.5 if next(numbers) > 5 else 0.0, packet)]

    with UdpRelay((bmc.host, bmc.port), path) as relay:
        session = Session(at(relay), LOGIN, soon())
        assert read_chassis(session).is_on
        assert read_device(session).manufacturer == bmc.manufacturer
        assert read_chassis(session).is_on
        session.close()


def test_damaged_packets_and_rubbish_are_ignored(bmc: Bmc) -> None:
    with UdpRelay((bmc.host, bmc.port), damage) as relay:
        session = Session(at(relay), LOGIN, soon())
        assert len(read_all(session)) == READABLE
        session.close()


@pytest.mark.parametrize("sequence", [5, 0x7FFFFFFF])
def test_a_strangers_sequence_number_is_of_no_effect(bmc: Bmc, sequence: int) -> None:
    # A packet outside of a session proves nothing: anybody can send it.
    stray = _OUTSIDE[:5] + sequence.to_bytes(4, "little") + bytes(4) + b"\x08" + bytes(8)
    with UdpRelay(
        (bmc.host, bmc.port), lambda packet: [(0.0, one) for one in (stray, packet, stray)]
    ) as relay:
        session = Session(at(relay), LOGIN, soon(3))
        assert read_chassis(session).is_on
        session.close()


def test_a_bmc_that_tells_too_little_is_said_to_do_so(bmc: Bmc) -> None:
    def path(packet: bytes) -> list[tuple[float, bytes]]:
        # The message is whole, and ends behind the channel's number.
        body = packet[17:22]
        message = packet[14:17] + body + bytes([-sum(body) & 0xFF])
        return [(0.0, _OUTSIDE + bytes([len(message)]) + message)]

    with (
        UdpRelay((bmc.host, bmc.port), path) as relay,
        pytest.raises(LoginError, match="cut short"),
    ):
        Session(at(relay), LOGIN, soon(3))


def test_a_late_answer_to_a_login_is_not_taken_for_a_wrong_password(bmc: Bmc) -> None:
    proofs = 0

    def path(packet: bytes) -> list[tuple[float, bytes]]:
        # The first RAKP 2 comes when the second login has got as far, but before its own.
        nonlocal proofs
        if not is_rakp_2(packet):
            return [(0.0, packet)]
        proofs += 1
        return [({1: LOGIN_RETRY_S + 0.1, 2: 0.3}.get(proofs, 0.0), packet)]

    with UdpRelay((bmc.host, bmc.port), path) as relay:
        session = Session(at(relay), LOGIN, soon())
        assert read_chassis(session).is_on
        session.close()
    assert proofs == 2


@pytest.mark.parametrize("is_lost", [is_rakp_2, is_rakp_4, is_in_session])
def test_a_login_that_is_given_up_leaves_no_session(
    bmc: Bmc, is_lost: Callable[[bytes], bool]
) -> None:
    # The BMC has begun or opened one with each try, and would keep it for half a minute.
    with UdpRelay(
        (bmc.host, bmc.port), lambda packet: [] if is_lost(packet) else [(0.0, packet)]
    ) as relay:
        with pytest.raises(NoAnswerError):
            Session(at(relay), LOGIN, soon(LOGIN_RETRY_S * 2.5))
        wait_for("all are closed", lambda: count_sessions(bmc) == 0, 5)


@pytest.mark.parametrize(
    "credentials", [Credentials(USER, "wrong"), Credentials("nobody", LOGIN.password)]
)
def test_a_login_that_is_refused_leaves_no_session(bmc: Bmc, credentials: Credentials) -> None:
    with pytest.raises(LoginError):
        Session(at(bmc), credentials, soon())

    wait_for("none is left", lambda: count_sessions(bmc) == 0, 5)


def test_a_peer_that_offers_ipmi_1_5_only_learns_nothing_of_the_password() -> None:
    # In IPMI 1.5 the client would send an MD5 digest of the password to whoever answers.
    heard: list[bytes] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as rogue:
        rogue.bind(("127.0.0.1", 0))
        rogue.settimeout(5)

        def answer() -> None:
            request, client = rogue.recvfrom(1024)
            heard.append(request)
            # Channel 1, MD5 and straight passwords, no IPMI 2.0 (IPMI 2.0, 22.13).
            body = bytes([0x20, 0, 0x38, 0, 1, 0x14, 0, 0, 0, 0, 0, 0])
            checksum = -sum(body) & 0xFF
            message = bytes([0x81, 0x1C, 0x63]) + body + bytes([checksum])
            rogue.sendto(_OUTSIDE + bytes([len(message)]) + message, client)
            rogue.settimeout(0.3)
            try:
                heard.append(rogue.recv(1024))
            except TimeoutError:
                return

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(IpmiError, match=r"1\.5"):
            Session(Address(LOOPBACK, rogue.getsockname()[1]), LOGIN, soon(3))
        thread.join()

    assert len(heard) == 1
    assert USER.encode() not in heard[0]


def test_a_bmc_that_does_not_know_the_password_gets_no_proof_of_it(bmc: Bmc) -> None:
    with UdpRelay((bmc.host, bmc.port), deliver) as relay:
        with pytest.raises(LoginError):
            Session(at(relay), Credentials(USER, "another password"), soon())
        wait_for("the last packet", lambda: relay.requests[-1][_PAYLOAD_TYPE] == _RAKP_3, 5)
        sent = relay.requests

    assert [packet[_PAYLOAD_TYPE] & 0x3F for packet in sent[-2:]] == [_RAKP_1, _RAKP_3]
    # Behind status and session a digest could come, which can be tried against guesses.
    assert len(sent[-1]) == 16 + 8


def test_a_bmc_is_asked_over_ipv6(bmc: Bmc) -> None:
    with UdpRelay((bmc.host, bmc.port), deliver, host="::1") as relay:
        session = Session(at(relay), LOGIN, soon())
        assert read_chassis(session).is_on
        session.close()
