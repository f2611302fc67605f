"""XID errors: counted by a thread that waits for them, whatever becomes of the driver."""

from __future__ import annotations

import signal
import time
from pathlib import Path

from sentinel_exporters.gpu.xids import MAX_NUMBERS
from tests.exporters.nvml_driver import BARE, FULL, Driver, Machine, of, success
from tests.exporters.running import Exporter, Series, label_sets, serving
from tests.lab.wait import wait_for

# NVML's numbers (nvmlReturn_t in nvml.h).
NOT_SUPPORTED, LOST, UNKNOWN = 3, 15, 999
SECOND = {**BARE, "event_types": "8"}


def watch(machine: Machine, *gpus: dict[str, str]) -> None:
    """Load the driver anew with these cards, and wait until their XID errors are counted."""
    machine.driver.machine["xids"] = ""
    machine.restart(*gpus)
    wait_until_watched(machine.exporter, *(gpu["uuid"] for gpu in gpus))


def wait_until_watched(exporter: Exporter, *uuids: str) -> None:
    def all_are() -> bool:
        series = exporter.series()
        return all(of(series, uuid).get("xid_watched") for uuid in uuids)

    wait_for("XID errors are counted", all_are)


def xids(series: Series, uuid: str) -> dict[str, float]:
    """Return {"total" or number: count} of one GPU."""
    found = of(series, uuid)
    counts = {
        name.removeprefix("xid_errors_total."): value
        for name, value in found.items()
        if name.startswith("xid_errors_total.")
    }
    return {"total": found["xid_events_total"], **counts}


def count_more(machine: Machine, before: dict[str, float], wanted: float) -> dict[str, float]:
    """Wait until the first GPU has so many more XID errors; returns the growth by number."""

    def grown() -> dict[str, float]:
        now = xids(machine.exporter.series(), FULL["uuid"])
        more = {key: now[key] - before.get(key, 0) for key in now}
        return more if more["total"] >= wanted else {}

    more = wait_for("the XID errors are counted", grown)
    return {key: value for key, value in more.items() if value}


def test_xid_errors_are_counted_by_card_and_number(machine: Machine) -> None:
    watch(machine, FULL, SECOND)
    before = xids(machine.exporter.series(), FULL["uuid"])
    second = xids(machine.exporter.series(), SECOND["uuid"])
    began = time.time()
    machine.driver.set(FULL, SECOND, xids="0:79 1:48 0:79 0:13")
    assert count_more(machine, before, 3) == {"total": 3, "79": 2, "13": 1}
    series = machine.exporter.series()
    assert xids(series, SECOND["uuid"])["48"] == second.get("48", 0) + 1
    assert of(series, FULL["uuid"])["xid_last_timestamp_seconds.79"] >= began
    # The driver's own number of an error is no failure of the collector.
    assert success(series) == 1


def test_the_count_goes_on_after_the_driver_was_loaded_anew(machine: Machine) -> None:
    watch(machine, FULL)
    before = xids(machine.exporter.series(), FULL["uuid"])
    machine.driver.set(FULL, xids="0:31")
    assert count_more(machine, before, 1) == {"total": 1, "31": 1}
    machine.restart(FULL)
    wait_until_watched(machine.exporter, FULL["uuid"])
    machine.driver.set(FULL, xids="0:31 0:31")
    assert count_more(machine, before, 2) == {"total": 2, "31": 2}


def test_beside_a_lost_gpu_the_others_are_watched(machine: Machine) -> None:
    watch(machine, SECOND, FULL)
    before = xids(machine.exporter.series(), FULL["uuid"])
    # It falls off the bus, which ends every wait for a set that it is in.
    machine.driver.set(
        {"handle": f"!{LOST}", "register": f"!{LOST}"}, FULL, event_wait=f"!{LOST}"
    )
    wait_for(
        "the end of the wait is noticed",
        lambda: of(machine.exporter.series(), FULL["uuid"])["xid_watched"] == 0,
    )
    del machine.driver.machine["event_wait"]
    machine.driver.set({"handle": f"!{LOST}", "register": f"!{LOST}"}, FULL)
    wait_until_watched(machine.exporter, FULL["uuid"])
    machine.driver.set({"handle": f"!{LOST}", "register": f"!{LOST}"}, FULL, xids="1:74")
    assert count_more(machine, before, 1) == {"total": 1, "74": 1}


def test_a_gpu_that_answers_in_part_only_does_not_end_the_others_watch(
    machine: Machine,
) -> None:
    watch(machine, SECOND, FULL)
    # It still has a handle, but every wait for a set that it is in fails.
    ill = {**SECOND, "temperature": f"!{LOST}", "events": f"!{LOST}"}
    machine.driver.set(ill, FULL)
    # The set that it is in is of no use, and that is known at once.
    assert of(machine.exporter.series(), FULL["uuid"])["xid_watched"] == 0
    wait_until_watched(machine.exporter, FULL["uuid"])
    series = machine.exporter.series()
    assert of(series, SECOND["uuid"])["xid_watched"] == 0
    before = xids(series, FULL["uuid"])
    machine.driver.set(ill, FULL, xids="1:61")
    assert count_more(machine, before, 1) == {"total": 1, "61": 1}


def test_a_lost_gpu_keeps_the_errors_that_were_counted(machine: Machine) -> None:
    watch(machine, FULL)
    before = xids(machine.exporter.series(), FULL["uuid"])
    machine.driver.set(FULL, xids="0:79")
    assert count_more(machine, before, 1) == {"total": 1, "79": 1}
    machine.driver.set({"handle": f"!{LOST}", "register": f"!{LOST}"})
    series = machine.exporter.series()
    assert of(series, FULL["uuid"])["healthy"] == 0
    assert xids(series, FULL["uuid"])["79"] == before.get("79", 0) + 1


def test_a_gpu_without_such_events_is_not_called_watched(machine: Machine) -> None:
    machine.restart({**SECOND, "event_types": "1"}, FULL)
    wait_until_watched(machine.exporter, FULL["uuid"])
    assert of(machine.exporter.series(), SECOND["uuid"])["xid_watched"] == 0


def test_a_gpu_that_spoils_the_set_of_events_is_left_out(machine: Machine) -> None:
    machine.driver.machine["xids"] = ""
    spoiler = {**SECOND, "register": f"!{UNKNOWN}"}
    machine.restart(spoiler, FULL)
    wait_until_watched(machine.exporter, FULL["uuid"])
    before = xids(machine.exporter.series(), FULL["uuid"])
    machine.driver.set(spoiler, FULL, xids="1:62 0:61")
    assert count_more(machine, before, 1) == {"total": 1, "62": 1}
    assert of(machine.exporter.series(), SECOND["uuid"])["xid_watched"] == 0


def test_numbers_without_end_do_not_fill_prometheus(machine: Machine) -> None:
    watch(machine, {**FULL, "uuid": "GPU-mad"})
    many = MAX_NUMBERS + 8
    machine.driver.set(
        {**FULL, "uuid": "GPU-mad"},
        xids=" ".join(f"0:{number}" for number in range(1000, 1000 + many)),
    )
    found = wait_for(
        "all are counted",
        lambda: (
            counts
            if (counts := xids(machine.exporter.series(), "GPU-mad"))["total"] == many
            else None
        ),
    )
    del found["total"]
    assert len(found) == MAX_NUMBERS + 1
    assert found["0"] == 8


def test_switched_off_nothing_is_watched(driver: Driver) -> None:
    series, log = driver.check(xids="false")
    assert success(series) == 1, log
    assert of(series, FULL["uuid"])["xid_watched"] == 0
    assert label_sets(series, "accelerator_xid_events_total") == []


def test_a_wait_that_never_ends_keeps_the_library_open_under_it(
    driver: Driver, tmp_path: Path
) -> None:
    with serving(tmp_path / "log", "--collectors", "gpu", env=driver.env) as exporter:
        wait_until_watched(exporter, FULL["uuid"])
        driver.set(FULL, BARE, event_wait="~")
        # A reading fails, for which the library is to be started anew.
        driver.set({**FULL, "power": f"!{UNKNOWN}"}, BARE)
        # It takes longer than a scrape waits.
        wait_for("it has failed", lambda: success(exporter.series()) == 0)
        assert "driver library kept open" in exporter.log.read_text()
        # The fixture asserts that it was not shut down under the wait.
        assert of(exporter.series(), FULL["uuid"])["temperature_celsius"] == 41
        exporter.process.send_signal(signal.SIGTERM)
        assert exporter.process.wait(20) == 0
