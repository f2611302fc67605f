"""Scrapes of BMCs whose sessions are kept: as right as the first, whatever happened between."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from sentinel_exporters.core import Target
from sentinel_exporters.ipmi_latest import Latest
from sentinel_exporters.ipmi_modules_file import FileModule
from sentinel_exporters.ipmi_samples import Answers
from tests.exporters.bmc import SERVER, Bmc
from tests.exporters.ipmi_lab import exporting, probe, up
from tests.exporters.running import Exporter, Series, values
from tests.exporters.udp_relay import UdpRelay
from tests.lab.wait import wait_for

MODULES = {"default": {"collectors": ["ipmi", "chassis"]}, "few": {"collectors": ["chassis"]}}


@pytest.fixture
def exporter(tmp_path: Path) -> Iterator[Exporter]:
    """An exporter of the test's own."""
    with exporting(tmp_path, MODULES) as exporter:
        yield exporter


def scrape(exporter: Exporter, bmc: Bmc) -> Series:
    """Scrape until the session is kept and known, and return the page after that."""
    for _ in range(2):
        probe(exporter, bmc)
    return probe(exporter, bmc)


def sensors(series: Series) -> dict[str, float]:
    return values(series, "ipmi_temperature_celsius", "name")


def count_threads(exporter: Exporter) -> int:
    """Return how many threads the exporter has."""
    return len(list(Path(f"/proc/{exporter.process.pid}/task").iterdir()))


def test_readings_are_those_of_now(exporter: Exporter, bmc: Bmc) -> None:
    before = sensors(scrape(exporter, bmc))
    bmc.stop()
    bmc.sensors = [replace(one, raw=one.raw + 2) if one.unit == 1 else one for one in SERVER]
    bmc.start()

    after = sensors(probe(exporter, bmc))

    assert after == {name: value + 2 for name, value in before.items()}


def test_a_restarted_bmc_is_read_at_the_next_scrape(exporter: Exporter, bmc: Bmc) -> None:
    before = scrape(exporter, bmc)
    with UdpRelay((bmc.host, bmc.port), lambda packet: [(0.0, packet)]) as relay:
        through = Bmc(bmc.folder, host=relay.host, port=relay.port)
        scrape(exporter, through)
        # Behind the relay nothing refuses: the new BMC just does not know the session.
        bmc.stop()
        bmc.start()
        series = probe(exporter, through)

        assert up(series) == {"ipmi": 1, "chassis": 1}
        assert sensors(series) == sensors(before)
        # 1.5 s to doubt the session, then a login.
        assert values(series, "ipmi_scrape_duration_seconds")[""] < 3


def test_other_sensors_are_there_at_the_next_scrape(exporter: Exporter, bmc: Bmc) -> None:
    assert "New Temp" not in sensors(scrape(exporter, bmc))
    bmc.stop()
    bmc.sensors = (*SERVER, replace(SERVER[0], name="New Temp"))
    bmc.start()

    assert "New Temp" in sensors(probe(exporter, bmc))


def test_modules_in_turn_get_what_is_theirs(exporter: Exporter, bmc: Bmc) -> None:
    for _ in range(3):
        assert up(probe(exporter, bmc)) == {"ipmi": 1, "chassis": 1}
        assert up(probe(exporter, bmc, "few")) == {"chassis": 1}


def test_a_bmc_that_hangs_in_the_middle_gives_no_half_sweep(
    exporter: Exporter, bmc: Bmc
) -> None:
    with UdpRelay((bmc.host, bmc.port), lambda packet: [(0.0, packet)]) as relay:
        through = Bmc(bmc.folder, host=relay.host, port=relay.port)
        scrape(exporter, through)
        asked = len(relay.requests)
        relay.path = lambda packet: [(0.0, packet)] if len(relay.requests) < asked + 9 else []
        series = probe(exporter, through, X_Prometheus_Scrape_Timeout_Seconds="2")

        # What was told before is not lost with the sensors.
        assert up(series)["ipmi"] == 0
        assert not sensors(series)
        relay.path = lambda packet: [(0.0, packet)]
        wait_for("it is read again", lambda: up(probe(exporter, through))["ipmi"] == 1, 5)


def test_a_kept_session_whose_time_is_over_says_so(exporter: Exporter, bmc: Bmc) -> None:
    scrape(exporter, bmc)
    bmc.pause()

    # What is left of it for the BMC is less than it takes to give the session up.
    series = probe(exporter, bmc, X_Prometheus_Scrape_Timeout_Seconds="1")

    assert set(up(series).values()) == {0}
    assert "s, the time for it is over" in exporter.log.read_text()
    assert "another read" not in exporter.log.read_text()


def test_a_silent_bmc_is_said_to_be_so_at_once_and_found_again(
    exporter: Exporter, bmc: Bmc
) -> None:
    scrape(exporter, bmc)
    bmc.pause()
    assert set(up(probe(exporter, bmc)).values()) == {0}

    series = probe(exporter, bmc)

    assert set(up(series).values()) == {0}
    assert values(series, "ipmi_scrape_duration_seconds")[""] < 1
    assert "silent for" in exporter.log.read_text()
    bmc.resume()
    wait_for("it is read again", lambda: set(up(probe(exporter, bmc)).values()) == {1}, 5)


def test_many_scrapes_at_once_need_no_thread_each(exporter: Exporter, tmp_path: Path) -> None:
    bmcs = [Bmc(tmp_path, SERVER[:6], delay_s=0.01).start() for _ in range(6)]
    try:
        for bmc in bmcs:
            scrape(exporter, bmc)
        seen: list[int] = []
        is_over = threading.Event()

        def watch() -> None:
            while not is_over.wait(0.005):
                seen.append(count_threads(exporter))

        idle = count_threads(exporter)
        watcher = threading.Thread(target=watch)
        watcher.start()
        pages: list[Series] = []
        askers = [
            threading.Thread(target=lambda bmc=bmc: pages.append(probe(exporter, bmc)))
            for bmc in bmcs
        ]
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join()
        is_over.set()
        watcher.join()

        assert len(pages) == len(bmcs)
        assert all(up(page) == {"ipmi": 1, "chassis": 1} for page in pages)
        assert len(seen) > 3
        assert max(seen) <= idle + 2
    finally:
        for bmc in bmcs:
            bmc.stop()


def test_repeated_faults_leave_nothing_behind(exporter: Exporter, bmc: Bmc) -> None:
    def count_files() -> int:
        return len(list(Path(f"/proc/{exporter.process.pid}/fd").iterdir()))

    def fault() -> None:
        bmc.stop()
        assert up(probe(exporter, bmc))["ipmi"] == 0
        bmc.start()
        assert up(probe(exporter, bmc))["ipmi"] == 1
        assert up(probe(exporter, bmc))["ipmi"] == 1

    fault()
    files, threads = count_files(), count_threads(exporter)
    for _ in range(10):
        fault()

    # The thread of the last answer takes a moment to end.
    wait_for("no descriptor is left", lambda: count_files() <= files, 5)
    wait_for("no thread is left", lambda: count_threads(exporter) <= threads, 5)


def test_answers_are_served_again_where_that_is_permitted(tmp_path: Path, bmc: Bmc) -> None:
    with exporting(tmp_path, MODULES, max_age_s=3600) as exporter:
        first = probe(exporter, bmc)
        bmc.stop()
        second = probe(exporter, bmc)
        other = probe(exporter, bmc, "few")

    assert sensors(second) == sensors(first)
    assert up(second) == up(first) == {"ipmi": 1, "chassis": 1}
    ages = [values(one, "ipmi_scrape_age_seconds")[""] for one in (first, second)]
    assert 0 < ages[0] < ages[1]
    # It was never asked for this module.
    assert up(other) == {"chassis": 0}


def test_what_another_module_asked_for_is_not_served(bmc: Bmc) -> None:
    latest, target = Latest(), Target(bmc.target, "default", 10)
    module = FileModule(user="a", password=SecretStr("b"), collectors=("chassis",))
    latest.keep(target, module, Answers(), time.monotonic())

    same = FileModule(user="a", password=SecretStr("b"), collectors=("chassis",))
    assert latest.find(target, same, 3600) is not None
    for change in (
        {"collectors": ("sel",)},
        {"password": SecretStr("c")},
        {"privilege": "admin"},
    ):
        assert latest.find(target, module.model_copy(update=change), 3600) is None


def test_a_scrape_without_time_costs_no_session(exporter: Exporter, bmc: Bmc) -> None:
    scrape(exporter, bmc)
    series = probe(exporter, bmc, X_Prometheus_Scrape_Timeout_Seconds="0.2")

    assert up(series) == {"ipmi": 0, "chassis": 0}
    assert "the scrape leaves no time to ask the BMC" in exporter.log.read_text()
    assert set(up(probe(exporter, bmc)).values()) == {1}
    assert "session lost" not in exporter.log.read_text()


def test_what_failed_is_not_served_again(tmp_path: Path, bmc: Bmc) -> None:
    with exporting(tmp_path, MODULES, max_age_s=3600) as exporter:
        bmc.stop()
        assert up(probe(exporter, bmc))["ipmi"] == 0
        bmc.start()
        assert up(probe(exporter, bmc))["ipmi"] == 1


def test_each_scrape_asks_where_nothing_else_is_said(exporter: Exporter, bmc: Bmc) -> None:
    scrape(exporter, bmc)
    bmc.stop()
    series = probe(exporter, bmc)

    assert up(series) == {"ipmi": 0, "chassis": 0}
    assert not values(series, "ipmi_scrape_age_seconds")
