"""Sessions with BMCs: kept, shared, bounded, and given up in time when a BMC goes away."""

from __future__ import annotations

import gc
import queue
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyghmi.ipmi.private.simplesession import Session as PyghmiSession

from sentinel_exporters.ipmi.commands import read_chassis, read_device, read_event_log
from sentinel_exporters.ipmi.errors import (
    BusyError,
    CompletionError,
    LoginError,
    NoAnswerError,
    WouldWaitError,
)
from sentinel_exporters.ipmi.framing import make_request
from sentinel_exporters.ipmi.pool import Pool
from sentinel_exporters.ipmi.readings import read_sensors
from sentinel_exporters.ipmi.sdr import read_records
from sentinel_exporters.ipmi.session import Credentials, Privilege, Session
from sentinel_exporters.ipmi.target import Address
from sentinel_exporters.ipmi.turns import Turns
from tests.exporters.bmc import PASSWORD, USER, Bmc, free_udp_port
from tests.exporters.bmc_sessions import LOGIN, LOOPBACK, READABLE, at, read_all, soon
from tests.exporters.udp_relay import UdpRelay
from tests.lab.wait import wait_for


@pytest.fixture
def pool() -> Iterator[Pool]:
    """Kept sessions; ended with the test."""
    pool = Pool()
    yield pool
    pool.close()


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

    # What the first failures had open may have been closed meanwhile.
    assert open_files() <= before[0]
    assert threading.active_count() <= before[1]
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


def test_a_turn_is_not_waited_for_where_nothing_may_wait(bmc: Bmc) -> None:
    # The loop's thread would wait for those whose answers only it can hear.
    turns = Turns(1)
    session = Session(at(bmc), LOGIN, soon(3), slow_turns=turns)
    read_chassis(session)
    session.end_purpose("scrape")
    assert turns.try_take()
    refusals: queue.SimpleQueue[Exception] = queue.SimpleQueue()

    def ready(_error: Exception | None) -> None:
        try:
            with session.slow_turn():
                pass
        except (WouldWaitError, BusyError) as refused:
            refusals.put(refused)

    session.begin_ahead("scrape", 3.0, ready)

    assert isinstance(refusals.get(timeout=10), WouldWaitError)
    session.close()


def test_answers_that_were_not_read_ahead_and_not_wanted_fail_nothing_later(bmc: Bmc) -> None:
    with UdpRelay((bmc.host, bmc.port), lambda packet: [(0.0, packet)]) as relay:
        session = Session(at(relay), LOGIN, soon())
        read_chassis(session)
        read_event_log(session)
        session.end_purpose("scrape")
        asked = len(relay.requests)
        # Whether it is alive, and its chassis; the third is not answered.
        relay.path = lambda packet: [(0.0, packet)] if len(relay.requests) < asked + 3 else []
        session.set_deadline(soon(0.5))
        session.read_ahead("scrape", 0.5)
        assert read_chassis(session).is_on
        session.end_purpose("scrape")
        relay.path = lambda packet: [(0.0, packet)]
        session.set_deadline(soon())

        assert read_event_log(session).entries == 3
        session.close()


def test_nothing_that_was_read_ahead_is_told_at_a_later_time(bmc: Bmc) -> None:
    with UdpRelay((bmc.host, bmc.port), lambda packet: [(0.0, packet)]) as relay:
        session = Session(at(relay), LOGIN, soon())
        read_chassis(session)
        session.end_purpose("scrape")
        session.read_ahead("scrape", 5.0)
        session.end_purpose("scrape")
        asked = len(relay.requests)
        read_chassis(session)

        assert len(relay.requests) == asked + 1
        session.close()


def test_a_request_that_comes_once_takes_no_place_among_those_of_each_scrape(bmc: Bmc) -> None:
    session = Session(at(bmc), LOGIN, soon())
    read_chassis(session)
    kept = make_request.cache_info().currsize
    for number in range(1, 4):
        # Get SEL Entry (IPMI 2.0, 31.5).
        session.request(0x0A, 0x43, bytes([0, 0, number, 0, 0, 0xFF]))
    session.close()

    assert make_request.cache_info().currsize == kept


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
