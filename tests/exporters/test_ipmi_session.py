"""Sessions with BMCs: kept, shared, bounded, and given up in time when a BMC goes away."""

from __future__ import annotations

import gc
import itertools
import socket
import threading
import time
from collections.abc import Callable, Container, Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from pyghmi.ipmi.private.simplesession import Session as PyghmiSession

from sentinel_exporters.ipmi.commands import read_chassis, read_device
from sentinel_exporters.ipmi.errors import (
    BusyError,
    CompletionError,
    IpmiError,
    LoginError,
    NoAnswerError,
)
from sentinel_exporters.ipmi.patience import RETRY_S
from sentinel_exporters.ipmi.pool import Pool
from sentinel_exporters.ipmi.readings import Reading, read_sensors
from sentinel_exporters.ipmi.sdr import read_records
from sentinel_exporters.ipmi.session import Credentials, Privilege, Session
from sentinel_exporters.ipmi.target import Address
from sentinel_exporters.ipmi.wire import LOGIN_RETRY_S
from tests.exporters.bmc import PASSWORD, SERVER, USER, Bmc, free_udp_port
from tests.exporters.udp_relay import UdpRelay
from tests.lab.wait import wait_for

LOGIN = Credentials(USER, PASSWORD)
LOOPBACK = ip_address("127.0.0.1")
READABLE = sum(sensor.is_present and sensor.is_scanned for sensor in SERVER)

# Where a packet of IPMI 2.0 says what it carries (IPMI 2.0, table 13-8), and RAKP message 2.
_PAYLOAD_TYPE, _RAKP_1, _RAKP_2, _RAKP_3, _AUTHENTICATED = 5, 0x12, 0x13, 0x14, 0x40


@pytest.fixture
def bmc(tmp_path: Path) -> Iterator[Bmc]:
    """A BMC of the test's own."""
    bmc = Bmc(tmp_path).start()
    yield bmc
    bmc.stop()


@pytest.fixture
def pool() -> Iterator[Pool]:
    """Kept sessions; ended with the test."""
    pool = Pool()
    yield pool
    pool.close()


def at(bmc: Bmc | UdpRelay) -> Address:
    return Address(ip_address(bmc.host), bmc.port)


def soon(seconds: float = 10.0) -> float:
    return time.monotonic() + seconds


def read_all(session: Session) -> list[Reading]:
    return read_sensors(session, read_records(session))


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_session_is_kept_for_the_next_use(bmc: Bmc, pool: Pool) -> None:
    with pool.session(at(bmc), LOGIN, soon()) as first:
        assert len(read_all(first)) == READABLE
    with pool.session(at(bmc), LOGIN, soon()) as second:
        assert len(read_all(second)) == READABLE

    assert second is first
    assert pool.open_sessions == 1


def test_other_credentials_get_a_session_of_their_own(bmc: Bmc, pool: Pool) -> None:
    with pool.session(at(bmc), LOGIN, soon()) as as_user:
        pass
    with pool.session(
        at(bmc), Credentials(USER, PASSWORD, Privilege.ADMIN), soon()
    ) as as_admin:
        pass

    assert as_admin is not as_user
    assert pool.open_sessions == 2


def test_a_bmc_that_was_restarted_between_two_uses_gets_a_new_session(
    bmc: Bmc, pool: Pool
) -> None:
    with pool.session(at(bmc), LOGIN, soon()) as before:
        pass
    bmc.stop()
    bmc.start()

    with pool.session(at(bmc), LOGIN, soon()) as after:
        assert len(read_all(after)) == READABLE
    assert after is not before
    assert pool.open_sessions == 1


def test_a_bmc_that_goes_away_in_the_middle_fails_and_then_recovers(
    bmc: Bmc, pool: Pool
) -> None:
    with (
        pytest.raises(NoAnswerError),
        pool.session(at(bmc), LOGIN, soon()) as session,
    ):
        records = read_records(session)
        read_sensors(session, records[:5])
        bmc.stop()
        read_sensors(session, records[5:])
    assert pool.open_sessions == 0

    bmc.start()
    with pool.session(at(bmc), LOGIN, soon()) as session:
        assert len(read_all(session)) == READABLE


def test_a_bmc_that_hangs_in_the_middle_is_given_up_at_the_deadline(
    bmc: Bmc, pool: Pool
) -> None:
    deadline = soon(1.0)
    with pytest.raises(NoAnswerError), pool.session(at(bmc), LOGIN, deadline) as session:
        bmc.pause()
        read_chassis(session)

    assert time.monotonic() >= deadline
    bmc.resume()
    with pool.session(at(bmc), LOGIN, soon()) as session:
        assert len(read_all(session)) == READABLE


def test_a_lost_session_fails_at_once_and_is_not_kept(bmc: Bmc, pool: Pool) -> None:
    with pool.session(at(bmc), LOGIN, soon()) as session:
        bmc.stop()
        with pytest.raises(NoAnswerError):
            read_chassis(session)
        bmc.start()
        with pytest.raises(NoAnswerError, match="lost"):
            read_chassis(session)

    assert pool.open_sessions == 0


def test_a_command_that_is_refused_leaves_the_session_usable(bmc: Bmc, pool: Pool) -> None:
    with pool.session(at(bmc), LOGIN, soon()) as session:
        with pytest.raises(CompletionError) as refused:
            session.request(0x0A, 0x11, b"\x63\x00\x00\x01")  # a FRU that is not there
        assert refused.value.code
        read_chassis(session)

    assert pool.open_sessions == 1


@pytest.mark.parametrize(
    "credentials", [Credentials(USER, "wrong"), Credentials("nobody", PASSWORD)]
)
def test_refused_credentials_say_so(bmc: Bmc, pool: Pool, credentials: Credentials) -> None:
    with pytest.raises(LoginError) as refused, pool.session(at(bmc), credentials, soon()):
        pass

    assert "login refused: " in str(refused.value)
    assert credentials.password not in str(refused.value)
    assert pool.open_sessions == 0


def test_a_password_is_not_in_what_python_prints() -> None:
    assert PASSWORD not in repr(LOGIN)


def test_repeated_failures_leave_nothing_behind(bmc: Bmc, pool: Pool) -> None:
    def fail(times: int) -> None:
        nobody = Address(LOOPBACK, free_udp_port("127.0.0.1"))
        wrong = Credentials(USER, "wrong")
        for _ in range(times):
            with pytest.raises(NoAnswerError), pool.session(nobody, LOGIN, soon()):
                pass
            with pytest.raises(LoginError), pool.session(at(bmc), wrong, soon()):
                pass
            with pytest.raises(NoAnswerError), pool.session(at(bmc), LOGIN, soon(0.02)) as lost:
                bmc.pause()
                try:
                    read_chassis(lost)
                finally:
                    bmc.resume()

    fail(1)  # what is imported and set up on first use stays
    gc.collect()
    before = open_files(), threading.active_count()
    fail(50)
    gc.collect()

    assert (open_files(), threading.active_count()) == before
    assert pool.open_sessions == 0
    assert not PyghmiSession.keepalive_sessions
    assert not [thing for thing in gc.get_objects() if isinstance(thing, Session)][1:]
    with pool.session(at(bmc), LOGIN, soon()) as session:
        assert len(read_all(session)) == READABLE


def test_a_session_that_ends_is_ended_at_the_bmc(bmc: Bmc) -> None:
    # The simulator has 63 slots, and a session that just stops holds its slot for 30 s.
    for _ in range(130):
        session = Session(at(bmc), LOGIN, soon())
        session.close()


def test_an_idle_session_is_ended(bmc: Bmc) -> None:
    pool = Pool(idle_s=0.2)
    with pool.session(at(bmc), LOGIN, soon()) as session:
        pass
    assert pool.open_sessions == 1

    wait_for("the pool is empty", lambda: pool.open_sessions == 0)
    with pytest.raises(NoAnswerError):
        read_chassis(session)
    # And the next one, after everything was put away.
    with pool.session(at(bmc), LOGIN, soon()) as session:
        read_chassis(session)
    wait_for("the pool is empty again", lambda: pool.open_sessions == 0)


def test_a_closed_pool_keeps_nothing(bmc: Bmc) -> None:
    pool = Pool()
    with pool.session(at(bmc), LOGIN, soon()):
        pass
    with pool.session(at(bmc), LOGIN, soon()):
        pool.close()

    assert pool.open_sessions == 0


def test_there_are_never_more_sessions_than_permitted(bmc: Bmc, tmp_path: Path) -> None:
    other = Bmc(tmp_path, password="another-password").start()
    pool = Pool(max_sessions=1)
    try:
        for _ in range(2):
            for each in (bmc, other):
                credentials = Credentials(USER, each.password)
                with pool.session(at(each), credentials, soon()) as session:
                    read_device(session)
                    assert pool.open_sessions == 1
        with (
            pool.session(at(bmc), LOGIN, soon()),
            pytest.raises(BusyError, match="all 1 sessions"),
            pool.session(at(other), Credentials(USER, other.password), soon(0.1)),
        ):
            pass
    finally:
        pool.close()
        other.stop()


def test_one_bmc_has_one_user_at_a_time(bmc: Bmc, pool: Pool) -> None:
    with (
        pool.session(at(bmc), LOGIN, soon()),
        pytest.raises(BusyError, match="another read"),
        pool.session(at(bmc), LOGIN, soon(0.1)),
    ):
        pass


def test_many_readers_of_one_bmc_all_get_right_values(bmc: Bmc, pool: Pool) -> None:
    found: list[list[tuple[str, float | None]]] = []

    def read() -> None:
        with pool.session(at(bmc), LOGIN, soon()) as session:
            found.append([(one.record.name, one.value) for one in read_all(session)])

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == 8
    assert found[1:] == found[:1] * 7
    assert pool.open_sessions == 1


def drop(lost: Container[int]) -> Callable[[bytes], list[tuple[float, bytes]]]:
    """A path on which the answers with these numbers, from 0 on, are lost."""
    numbers = itertools.count()
    return lambda packet: [] if next(numbers) in lost else [(0.0, packet)]


def deliver(packet: bytes) -> list[tuple[float, bytes]]:
    """A path that does nothing."""
    return [(0.0, packet)]


def damage(packet: bytes) -> list[tuple[float, bytes]]:
    """Before each answer comes rubbish, and it comes twice, in a session damaged as well."""
    rubbish = [b"x", b"\x06\x00\xff\x07", packet[:17], b"\xff" * 64]
    if packet[_PAYLOAD_TYPE] & _AUTHENTICATED:
        rubbish.append(packet[:-1] + bytes([packet[-1] ^ 0xFF]))
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


def test_a_late_answer_to_a_login_is_not_taken_for_a_wrong_password(bmc: Bmc) -> None:
    proofs = 0

    def path(packet: bytes) -> list[tuple[float, bytes]]:
        # The first RAKP 2 comes when the second login has got as far, but before its own.
        nonlocal proofs
        if packet[_PAYLOAD_TYPE] & 0x3F != _RAKP_2:
            return [(0.0, packet)]
        proofs += 1
        return [({1: LOGIN_RETRY_S + 0.1, 2: 0.3}.get(proofs, 0.0), packet)]

    with UdpRelay((bmc.host, bmc.port), path) as relay:
        session = Session(at(relay), LOGIN, soon())
        assert read_chassis(session).is_on
        session.close()
    assert proofs == 2


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
            rogue.sendto(
                b"\x06\x00\xff\x07" + bytes(9) + bytes([len(message)]) + message, client
            )
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
        sent = [packet[_PAYLOAD_TYPE] & 0x3F for packet in relay.requests]

    # RAKP 3 would hold a digest that can be tried against guesses.
    assert _RAKP_1 in sent
    assert _RAKP_3 not in sent


def test_a_bmc_is_asked_over_ipv6(bmc: Bmc) -> None:
    with UdpRelay((bmc.host, bmc.port), deliver, host="::1") as relay:
        session = Session(at(relay), LOGIN, soon())
        assert read_chassis(session).is_on
        session.close()
