"""What befalls BMCs and their network: right readings or none, and a reason."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from sentinel_exporters.ipmi.commands import read_chassis, read_device
from sentinel_exporters.ipmi.errors import IpmiError, NoAnswerError
from sentinel_exporters.ipmi.pool import Pool
from sentinel_exporters.ipmi.readings import Reading, read_sensors
from sentinel_exporters.ipmi.sdr import RecordCache
from sentinel_exporters.ipmi.session import Privilege
from sentinel_exporters.ipmi.target import Address
from tests.exporters.bmc import SERVER, Bmc
from tests.exporters.bmc_sessions import LOGIN, at, soon
from tests.exporters.udp_relay import UdpRelay
from tests.lab.wait import wait_for

PRESENT = {one.name for one in SERVER if one.is_present and one.is_scanned}

Read = Callable[..., dict[str, float | None]]


@pytest.fixture
def pool() -> Iterator[Pool]:
    """Kept sessions; ended with the test."""
    pool = Pool()
    yield pool
    pool.close()


@pytest.fixture
def read(pool: Pool) -> Read:
    """Reads a BMC's sensors as a scrape does: by name, the value."""
    cache = RecordCache()

    def read(address: Address, seconds: float = 20.0) -> dict[str, float | None]:
        with pool.session(address, LOGIN, soon(seconds), "sensors") as session:
            readings: list[Reading] = read_sensors(session, cache.records(session))
        return {one.record.name: one.value for one in readings}

    return read


@pytest.mark.parametrize("percent", [1, 5, 20])
def test_no_sweep_fails_for_lost_packets(tmp_path: Path, read: Read, percent: int) -> None:
    bmc = Bmc(tmp_path, loss_percent=percent).start()
    try:
        for _ in range(1 if percent == 20 else 3):
            assert read(at(bmc)).keys() == PRESENT
    finally:
        bmc.stop()


def test_answers_that_come_twice_or_late_are_no_others(bmc: Bmc, read: Read) -> None:
    numbers = itertools.count()

    def path(packet: bytes) -> list[tuple[float, bytes]]:
        # Every ninth is late by more than a repetition, every fifth comes again, and late.
        number = next(numbers)
        ways = [(0.35 if number % 9 == 0 else 0.0, packet)]
        return ways + ([(0.0, packet), (0.1, packet)] if number % 5 == 0 else [])

    expected = read(at(bmc))
    with UdpRelay((bmc.host, bmc.port), path) as relay:
        for _ in range(2):
            assert read(at(relay)) == expected


def test_a_kept_sessions_answers_are_those_of_now(bmc: Bmc, read: Read) -> None:
    before = read(at(bmc))
    warmer = [replace(one, raw=one.raw + 1) if one.unit == 1 else one for one in SERVER]
    bmc.stop()
    bmc.sensors = warmer
    bmc.start()

    after = read(at(bmc))

    assert after.keys() == before.keys()
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {one.name for one in SERVER if one.unit == 1} & PRESENT


def test_other_sensors_are_read_once_the_repository_says_so(bmc: Bmc, read: Read) -> None:
    assert "FAN9" not in read(at(bmc))
    bmc.stop()
    bmc.sensors = (*SERVER, replace(SERVER[4], name="FAN9"))
    bmc.start()

    assert "FAN9" in read(at(bmc))


def test_a_repository_that_takes_longer_than_a_scrape_is_read_in_the_end(
    tmp_path: Path, read: Read
) -> None:
    bmc = Bmc(tmp_path, delay_s=0.02).start()
    failures = 0
    try:
        while True:
            try:
                found = read(at(bmc), 0.9)
                break
            except IpmiError:
                failures += 1
    finally:
        bmc.stop()

    assert found.keys() == PRESENT
    assert 1 <= failures < 10


def test_a_restart_in_the_middle_fails_once(bmc: Bmc, pool: Pool, read: Read) -> None:
    read(at(bmc))
    with UdpRelay((bmc.host, bmc.port), lambda packet: [(0.0, packet)]) as relay:
        read(at(relay))
        asked = len(relay.requests)

        def restart(packet: bytes) -> list[tuple[float, bytes]]:
            if len(relay.requests) == asked + 8:
                bmc.stop()
                bmc.start()
            return [(0.0, packet)]

        relay.path = restart
        with pytest.raises(NoAnswerError):
            read(at(relay), 1.0)
        assert read(at(relay)).keys() == PRESENT
    assert pool.open_sessions == 2


def test_a_silent_bmc_is_known_soon_and_then_costs_nothing(
    bmc: Bmc, pool: Pool, read: Read
) -> None:
    read(at(bmc))
    bmc.pause()
    # Given up by itself, before the time for it is over. The silence of the session that was
    # kept is counted: not 1.5 s for that, and then 5 s more.
    began = time.monotonic()
    with pytest.raises(NoAnswerError, match="given up"):
        read(at(bmc))
    assert 4.9 < time.monotonic() - began < 6

    for _ in range(2):
        with pytest.raises(NoAnswerError, match="silent for"):
            read(at(bmc))
    assert pool.open_sessions == 0

    bmc.resume()

    def is_read() -> bool:
        try:
            return read(at(bmc)).keys() == PRESENT
        except NoAnswerError:
            return False

    wait_for("it is read again", is_read, timeout_s=5)


def test_a_silent_bmc_keeps_nobody_from_logging_in(tmp_path: Path, bmc: Bmc) -> None:
    silent = Bmc(tmp_path).start()
    silent.pause()
    pool = Pool(max_logins=1)
    errors: list[IpmiError] = []

    def ask_the_silent() -> None:
        try:
            with pool.session(at(silent), LOGIN, soon(1.5)):
                pass
        except IpmiError as error:
            errors.append(error)

    threads = [threading.Thread(target=ask_the_silent) for _ in range(3)]
    try:
        for thread in threads:
            thread.start()
        with pool.session(at(bmc), LOGIN, soon(1.4)) as session:
            assert read_chassis(session).is_on
        assert not errors
    finally:
        for thread in threads:
            thread.join()
        pool.close()
        silent.stop()
    assert len(errors) == 3


def test_sessions_are_kept_alive_between_scrapes(bmc: Bmc) -> None:
    pool = Pool(keep_alive_s=0.1)
    with UdpRelay((bmc.host, bmc.port), lambda packet: [(0.0, packet)]) as relay:
        with pool.session(at(relay), LOGIN, soon()) as first:
            pass
        asked = len(relay.requests)
        wait_for("it was asked meanwhile", lambda: len(relay.requests) >= asked + 3)
        with pool.session(at(relay), LOGIN, soon()) as second:
            read_device(second)
        pool.close()

    assert second is first


def test_a_bmc_that_is_in_use_is_asked_by_nobody_else_meanwhile(bmc: Bmc) -> None:
    pool, told = Pool(keep_alive_s=0.1), threading.Event()
    with UdpRelay((bmc.host, bmc.port), lambda packet: [(0.0, packet)]) as relay:
        with pool.session(at(relay), LOGIN, soon(), "scrape") as session:
            read_chassis(session)
        as_admin = replace(LOGIN, privilege=Privilege.ADMIN)
        with pool.session(at(relay), as_admin, soon()):
            asked = len(relay.requests)
            begun = pool.begin_session(
                at(relay), LOGIN, soon(), "scrape", lambda _found: told.set()
            )
            # Nor is the session kept alive that waits for its next use.
            told.wait(1.5)

            assert not begun
            assert len(relay.requests) == asked
        assert pool.begin_session(at(relay), LOGIN, soon(), "scrape", lambda _found: told.set())
        assert told.wait(5)
        pool.close()


def test_a_session_that_is_found_dead_meanwhile_is_not_used(bmc: Bmc) -> None:
    pool = Pool(keep_alive_s=0.1)
    with pool.session(at(bmc), LOGIN, soon()):
        pass
    bmc.stop()
    wait_for("nothing is kept", lambda: pool.open_sessions == 0)
    bmc.start()
    with pool.session(at(bmc), LOGIN, soon()) as session:
        assert read_chassis(session).is_on
    pool.close()


def test_the_session_used_longest_ago_makes_room(tmp_path: Path) -> None:
    bmcs = [Bmc(tmp_path).start() for _ in range(3)]
    pool = Pool(max_sessions=2)
    try:
        kept = []
        for bmc in (bmcs[0], bmcs[1], bmcs[0], bmcs[2], bmcs[0]):
            with pool.session(at(bmc), LOGIN, soon()) as session:
                kept.append(session)
        assert kept[0] is kept[2] is kept[4]
        assert pool.open_sessions == 2
        with pool.session(at(bmcs[1]), LOGIN, soon()) as session:
            assert session is not kept[1]
    finally:
        pool.close()
        for bmc in bmcs:
            bmc.stop()


def test_an_address_without_a_route_is_an_error_that_says_so(pool: Pool) -> None:
    with (
        pytest.raises(NoAnswerError, match=r"[Uu]nreachable|[Pp]ermi|[Ii]nvalid|no answer"),
        pool.session(Address(ip_address("255.255.255.255")), LOGIN, soon(1)),
    ):
        pass
