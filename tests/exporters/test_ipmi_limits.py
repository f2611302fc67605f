"""What is bounded in asking BMCs: logins, sessions, time, rights, questions to the dead."""

from __future__ import annotations

import contextlib
import inspect
import itertools
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from ipaddress import ip_address
from pathlib import Path

import pytest

from sentinel_exporters.ipmi import silent
from sentinel_exporters.ipmi.commands import read_chassis
from sentinel_exporters.ipmi.errors import NoAnswerError
from sentinel_exporters.ipmi.loop import shared_loop
from sentinel_exporters.ipmi.pool import Pool
from sentinel_exporters.ipmi.session import Credentials, Privilege, Session
from sentinel_exporters.ipmi.target import Address
from tests.exporters.bmc import PASSWORD, SERVER, USER, Bmc
from tests.exporters.bmc_sessions import LOGIN, at, soon
from tests.exporters.ipmi_lab import exporting, probe, up
from tests.exporters.ipmi_peers import count_sessions
from tests.exporters.rakp_bmc import RakpBmc
from tests.exporters.running import values
from tests.exporters.toy import in_thread, is_waiting
from tests.exporters.udp_relay import UdpRelay
from tests.lab.wait import wait_for

CHASSIS = {"default": {"collectors": ["chassis"]}}
# Answers of IPMI 2.0, 13.8: that a login has begun, and that it is over.
OPEN_SESSION, RAKP_4 = 0x11, 0x15


@pytest.fixture
def bmcs(tmp_path: Path) -> Iterator[list[Bmc]]:
    """Six BMCs that take their time."""
    bmcs = [Bmc(tmp_path, SERVER[:1], delay_s=0.05).start() for _ in range(6)]
    yield bmcs
    for bmc in bmcs:
        bmc.stop()


def behind(bmc: Bmc, relay: UdpRelay) -> Bmc:
    return Bmc(bmc.folder, host=relay.host, port=relay.port)


def test_the_setting_bounds_how_many_logins_there_are_at_once(
    tmp_path: Path, bmcs: list[Bmc]
) -> None:
    now: list[None] = []
    most = 0

    def watch(answer: bytes) -> list[tuple[float, bytes]]:
        nonlocal most
        kind = answer[5] & 0x3F if answer[4] == 6 else 0
        if kind == OPEN_SESSION and answer[17] == 0:  # not one that is refused
            now.append(None)
            most = max(most, len(now))
        elif kind == RAKP_4:
            now.pop()
        return [(0.0, answer)]

    found: list[dict[str, float]] = []
    with contextlib.ExitStack() as stack:
        relays = [stack.enter_context(UdpRelay((one.host, one.port), watch)) for one in bmcs]
        exporter = stack.enter_context(exporting(tmp_path, CHASSIS, max_logins=2))

        def read(through: Bmc) -> None:
            found.append(up(probe(exporter, through)))

        pairs = zip(bmcs, relays, strict=True)
        threads = [in_thread(partial(read, behind(bmc, relay))) for bmc, relay in pairs]
        for thread in threads:
            thread.join()
    assert found == [{"chassis": 1}] * len(bmcs)
    assert most == 2


def test_the_setting_bounds_how_many_sessions_are_kept(tmp_path: Path, bmcs: list[Bmc]) -> None:
    with exporting(tmp_path, CHASSIS, max_sessions=2) as exporter:
        for bmc in bmcs[:3]:
            assert up(probe(exporter, bmc)) == {"chassis": 1}
        # The one that was used longest ago has made room.
        wait_for("it is closed", lambda: count_sessions(bmcs[0]) == 0)
        assert [count_sessions(bmc) for bmc in bmcs[1:3]] == [1, 1]


def test_who_waits_for_a_session_is_served_in_turn(bmcs: list[Bmc]) -> None:
    pool = Pool(max_sessions=1)
    served: list[int] = []

    def read(number: int) -> None:
        with pool.session(at(bmcs[number]), LOGIN, soon(30)) as session:
            read_chassis(session)
            served.append(number)

    threads = []
    with pool.session(at(bmcs[0]), LOGIN, soon()):
        for number in range(1, len(bmcs)):
            thread = in_thread(partial(read, number))
            wait_for("it waits", lambda: is_waiting(thread))  # noqa: B023  within the round
            threads.append(thread)
    for thread in threads:
        thread.join()
    pool.close()
    assert served == list(range(1, len(bmcs)))


def test_a_kept_session_is_kept_alive_before_bmcs_end_it() -> None:
    # After 60 s by the standard (IPMI 2.0, 6.11.13), after 30 s by some BMCs.
    assert inspect.signature(Pool).parameters["keep_alive_s"].default < 30


def test_the_duration_is_the_time_that_the_page_took(tmp_path: Path, bmc: Bmc) -> None:
    def forward(answer: bytes) -> list[tuple[float, bytes]]:
        return [(0.0, answer)]

    with (
        UdpRelay((bmc.host, bmc.port), forward) as relay,
        exporting(tmp_path, CHASSIS) as exporter,
    ):
        for _ in range(3):
            probe(exporter, behind(bmc, relay))
        # Behind the relay nothing refuses: the new BMC just does not know the session.
        bmc.stop()
        bmc.start()
        began = time.monotonic()
        series = probe(exporter, behind(bmc, relay))
        took_s = time.monotonic() - began
    assert up(series) == {"chassis": 1}
    duration_s = values(series, "ipmi_scrape_duration_seconds")[""]
    # The session's silence is in it, which is doubted for longer than a second.
    assert 1 < duration_s <= took_s


def test_a_dead_bmc_is_known_before_a_scrape_is_given_up(tmp_path: Path, bmc: Bmc) -> None:
    with exporting(
        tmp_path, {"default": {"collectors": ["chassis"], "timeout_s": 60}}
    ) as exporter:
        for _ in range(2):
            assert up(probe(exporter, bmc)) == {"chassis": 1}
        bmc.pause()
        # Prometheus waits 10 s where nothing else is set.
        series = probe(exporter, bmc, X_Prometheus_Scrape_Timeout_Seconds="60")
        assert up(series) == {"chassis": 0}
        assert 4 < values(series, "ipmi_scrape_duration_seconds")[""] < 7


def test_a_modules_timeout_ends_what_is_asked(tmp_path: Path, bmc: Bmc) -> None:
    bmc.pause()
    with exporting(tmp_path, {"default": {"timeout_s": 1}}) as exporter:
        series = probe(exporter, bmc)
    assert set(up(series).values()) == {0}
    assert values(series, "ipmi_scrape_duration_seconds")[""] < 3


def test_a_dead_bmc_is_asked_less_and_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    # Ten times as fast as usual, and more.
    for name, seconds in {
        "SILENCE_S": 1.0, "_FIRST_INTERVAL_S": 0.1, "_SLOWER_AFTER_S": 0.5,
        "_LAST_INTERVAL_S": 10.0, "_ANSWER_S": 0.02,
    }.items():  # fmt: skip
        monkeypatch.setattr(silent, name, seconds)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as dead:
        dead.bind(("127.0.0.1", 0))
        address = Address(ip_address("127.0.0.1"), dead.getsockname()[1])
        bmcs = silent.SilentBmcs(shared_loop())
        with pytest.raises(NoAnswerError):
            bmcs.greet(address, soon())
        asked: list[float] = []
        dead.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while dead.recv(256):
                pass
        dead.settimeout(0.5)
        until = time.monotonic() + 4
        while time.monotonic() < until:
            with contextlib.suppress(TimeoutError):
                dead.recv(256)
                asked.append(time.monotonic())
        bmcs.clear()
    # The intervals are a fifth of the silence so far.
    gaps = [later - earlier for earlier, later in itertools.pairwise(asked)]
    assert 4 <= len(asked) <= 15
    assert gaps[-1] > 2 * gaps[0]


def test_records_that_change_without_a_change_of_their_number_are_read_anew(
    tmp_path: Path, bmc: Bmc
) -> None:
    with exporting(tmp_path, {"default": {"collectors": ["ipmi"]}}) as exporter:
        for _ in range(2):
            assert "Inlet Temp" in values(
                probe(exporter, bmc), "ipmi_temperature_celsius", "name"
            )
        bmc.stop()
        bmc.sensors = (replace(SERVER[0], name="Front Temp"), *SERVER[1:])
        time.sleep(1.1)  # the repository's times are whole seconds
        bmc.start()
        told = values(probe(exporter, bmc), "ipmi_temperature_celsius", "name")
    assert "Front Temp" in told
    assert "Inlet Temp" not in told


@pytest.mark.parametrize("privilege", list(Privilege))
def test_no_more_rights_are_asked_for_than_the_module_says(privilege: Privilege) -> None:
    with RakpBmc((17,), {(0, 0x01): b"\x01\x00\x00"}) as bmc:
        address = Address(ip_address(bmc.host), bmc.port)
        session = Session(address, Credentials(USER, PASSWORD, privilege), soon())
        read_chassis(session)
        session.close()
        assert bmc.roles == [privilege]


def test_the_better_of_two_cipher_suites_is_taken() -> None:
    with RakpBmc((3, 17), {(0, 0x01): b"\x01\x00\x00"}) as bmc:
        session = Session(Address(ip_address(bmc.host), bmc.port), LOGIN, soon())
        read_chassis(session)
        session.close()
        assert bmc.used == [17]


def test_a_module_without_a_user_asks_as_the_one_that_has_no_name(tmp_path: Path) -> None:
    (tmp_path / "peer.yml").write_text(
        f"modules: {{default: {{pass: {PASSWORD}, collectors: [chassis]}}}}"
    )
    bmc = Bmc(tmp_path, SERVER[:1], has_nameless_user=True).start()
    try:
        with exporting(tmp_path, {}, config_file=str(tmp_path / "peer.yml")) as exporter:
            assert up(probe(exporter, bmc)) == {"chassis": 1}
            assert "module without a user" in exporter.log.read_text()
    finally:
        bmc.stop()
