"""What happens to the driver and the cards while an exporter runs."""

from __future__ import annotations

from pathlib import Path

from tests.exporters.nvml_driver import (
    BARE,
    FULL,
    Driver,
    Machine,
    build,
    of,
    success,
)
from tests.exporters.running import Exporter, label_sets, serving
from tests.lab.wait import wait_for

# NVML's numbers (nvmlReturn_t in nvml.h).
NOT_LOADED, LOST, UNKNOWN = 9, 15, 999
THIRD = {"name": "NVIDIA A10", "uuid": "GPU-33333333-cccc", "minor": "5", "pci": "1:3:0"}


def uuids(exporter: Exporter) -> list[str]:
    """Return the cards by their index."""
    found = label_sets(exporter.series(), "accelerator_info")
    return [labels["uuid"] for labels in sorted(found, key=lambda labels: labels["index"])]


def test_a_lost_gpu_is_unhealthy_and_the_others_are_read(machine: Machine) -> None:
    assert success(machine.restart(FULL, BARE)) == 1
    machine.driver.set({"handle": f"!{LOST}"}, {**BARE, "temperature": "50"})
    series = machine.exporter.series()
    assert success(series) == 0
    assert of(series, FULL["uuid"]) == {
        "healthy": 0,
        "process_query_supported": 0,
        "xid_watched": 0,
    }
    assert of(series, BARE["uuid"])["temperature_celsius"] == 50
    machine.driver.set(FULL, BARE)
    series = machine.exporter.series()
    assert success(series) == 1
    assert of(series, FULL["uuid"])["healthy"] == 1


def test_a_gpu_that_stays_lost_does_not_start_the_others_at_each_scrape(
    driver: Driver, gpu_exporter: Exporter
) -> None:
    driver.set({"handle": f"!{LOST}"}, BARE)
    for _ in range(6):
        assert success(gpu_exporter.series()) == 0
    # Once at the start, and once to see whether that helps.
    assert driver.init_count == 2


def test_a_gpu_that_is_lost_in_the_middle_keeps_what_it_told_before(machine: Machine) -> None:
    series = machine.restart({**FULL, "temperature": f"!{LOST}"})
    found = of(series, FULL["uuid"])
    assert found["healthy"] == 0
    assert found["utilization_ratio"] == 0.55
    assert "temperature_celsius" not in found
    assert "power_watts" not in found


def test_a_gpu_that_was_never_known_is_told_without_a_series(driver: Driver) -> None:
    driver.set({"handle": f"!{LOST}"}, BARE)
    series, log = driver.check()
    assert [labels["index"] for labels in label_sets(series, "accelerator_info")] == ["1"]
    assert "GPU 0: has no uuid" in log


def test_a_card_that_is_added_is_read_from_then_on(
    driver: Driver, gpu_exporter: Exporter
) -> None:
    driver.list_in_kernel("0000:c1:00.0", "0001:02:00.0")
    assert uuids(gpu_exporter) == [FULL["uuid"], BARE["uuid"]]
    # The library counts cards when it is initialised, so it must be that the kernel shows it.
    driver.set(FULL, BARE, THIRD)
    assert uuids(gpu_exporter) == [FULL["uuid"], BARE["uuid"]]
    driver.list_in_kernel("0000:c1:00.0", "0001:02:00.0", "0001:03:00.0")
    assert uuids(gpu_exporter) == [FULL["uuid"], BARE["uuid"], THIRD["uuid"]]
    assert success(gpu_exporter.series()) == 1
    assert driver.init_count == 2


def test_a_card_that_is_removed_leaves_no_series(machine: Machine) -> None:
    machine.driver.list_in_kernel("0000:c1:00.0", "0001:02:00.0")
    assert success(machine.restart(FULL, BARE)) == 1
    machine.driver.list_in_kernel("0001:02:00.0")
    machine.driver.set(BARE)
    series = machine.exporter.series()
    assert success(series) == 1
    assert of(series, FULL["uuid"]) == {}
    assert of(series, BARE["uuid"])["healthy"] == 1


def test_cards_that_change_places_keep_their_names(machine: Machine) -> None:
    machine.restart(FULL, BARE)
    machine.driver.set(BARE, FULL)
    series = machine.exporter.series()
    assert label_sets(series, "accelerator_power_watts")[0]["index"] == "1"
    assert of(series, FULL["uuid"])["power_watts"] == 300.5
    assert "power_watts" not in of(series, BARE["uuid"])


def test_a_lost_card_is_not_taken_for_one_that_is_at_another_place_now(
    machine: Machine,
) -> None:
    machine.restart(FULL, BARE)
    # The first card is lost, and the second has come to its place.
    machine.driver.set(BARE, {"handle": f"!{LOST}"})
    series = machine.exporter.series()
    assert success(series) == 0
    assert of(series, BARE["uuid"])["healthy"] == 1
    assert of(series, FULL["uuid"]) == {}


def test_a_lost_card_is_not_taken_for_one_that_was_taken_out(machine: Machine) -> None:
    machine.restart(FULL, BARE)
    machine.restart(FULL)
    # Another one is put in at that place, and does not answer.
    series = machine.restart(FULL, {"handle": f"!{LOST}"})
    assert success(series) == 0
    assert of(series, BARE["uuid"]) == {}


def test_a_driver_that_comes_back_is_read_again(driver: Driver, gpu_exporter: Exporter) -> None:
    assert success(gpu_exporter.series()) == 1
    # The library is still open; the driver behind it has gone.
    driver.set(driver=f"!{NOT_LOADED}", init=f"!{NOT_LOADED}", count=f"!{NOT_LOADED}")
    series = gpu_exporter.series()
    assert success(series) == 0
    assert label_sets(series, "accelerator_info") == []
    del driver.machine["count"], driver.machine["init"]
    driver.set(FULL, driver="550.54")
    assert success(gpu_exporter.series()) == 1
    assert gpu_exporter.log.read_text().count("collector failed") == 1


def test_after_the_kernel_module_was_loaded_anew_the_library_is_opened_anew(
    machine: Machine,
) -> None:
    assert success(machine.restart(FULL, BARE)) == 1
    machine.driver.set(FULL, BARE, load="another")
    assert success(machine.exporter.series()) == 0
    series = machine.exporter.series()
    assert success(series) == 1
    assert len(label_sets(series, "accelerator_info")) == 2


def test_an_update_of_the_driver_is_followed_by_loading_the_new_library(
    driver: Driver, tmp_path: Path
) -> None:
    driver.library = tmp_path / "library"
    driver.library.mkdir()
    build(driver.library, "550.54")
    with serving(tmp_path / "log", "--collectors", "gpu", env=driver.env) as exporter:
        assert success(exporter.series()) == 1
        # The package manager replaces the file, then the new kernel module is loaded.
        (driver.library / "new").mkdir()
        build(driver.library / "new", "570.86").rename(driver.library / "libnvidia-ml.so.1")
        driver.set(driver="570.86", count=f"!{NOT_LOADED}")
        assert success(exporter.series()) == 0
        del driver.machine["count"]
        driver.set(FULL)
        series = exporter.series()
        assert success(series) == 1, exporter.log.read_text()
        assert label_sets(series, "accelerator_info")[0]["driver_version"] == "570.86"
        wait_for(
            "XID errors are counted by the new library",
            lambda: of(exporter.series(), FULL["uuid"])["xid_watched"] == 1,
        )


def test_a_call_that_hangs_fails_by_the_time_limit_and_ends_when_it_returns(
    driver: Driver, tmp_path: Path
) -> None:
    env = driver.settings(timeout_s="0.3")
    with serving(tmp_path / "log", "--collectors", "gpu,ssh", env=env) as exporter:
        assert success(exporter.series()) == 1
        driver.set({**FULL, "power": "~"}, BARE)
        series = exporter.series()
        assert success(series) == 0
        assert label_sets(series, "accelerator_info") == []
        assert label_sets(series, "ssh_connections") == [{}]
        assert "no answer within the time limit" in exporter.log.read_text()
        driver.set(FULL, BARE)
        wait_for("the collector recovers", lambda: success(exporter.series()) == 1)
