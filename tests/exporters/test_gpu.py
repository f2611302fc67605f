"""What a GPU tells and does not tell, by the real binding from a stand-in for the library."""

from __future__ import annotations

import json
from pathlib import Path

from tests.exporters.nvml_driver import (
    BARE,
    FULL,
    Driver,
    Machine,
    build,
    of,
    success,
    unavailable,
)
from tests.exporters.running import (
    Exporter,
    Series,
    label_sets,
    parse_series,
    run_exporter,
    serving,
    values,
)
from tests.lab.wait import wait_for

# NVML's numbers (nvmlReturn_t in nvml.h).
LOST, UNKNOWN = 15, 999


def test_a_gpu_that_tells_everything(machine: Machine) -> None:
    series = machine.restart(FULL, BARE)
    assert success(series) == 1, machine.take_log()
    wait_for(
        "XID errors are counted",
        lambda: of(machine.exporter.series(), FULL["uuid"])["xid_watched"] == 1,
    )
    series = machine.exporter.series()
    assert of(series, FULL["uuid"]) == {
        "utilization_ratio": 0.55,
        "memory_busy_ratio": 0.07,
        "engine_utilization_ratio.encoder": 0.03,
        "engine_utilization_ratio.decoder": 0.04,
        "engine_utilization_ratio.jpeg": 0.05,
        "engine_utilization_ratio.optical_flow": 0.06,
        "encoder_sessions": 2,
        "memory_used_bytes": 2 * 2**30,
        "memory_total_bytes": 80 * 2**30,
        "memory_reserved_bytes": 2**30,
        "temperature_celsius": 41,
        "memory_temperature_celsius": 47,
        "temperature_threshold_celsius.shutdown": 92,
        "temperature_threshold_celsius.slowdown": 89,
        "temperature_threshold_celsius.memory_max": 95,
        "temperature_threshold_celsius.gpu_max": 87,
        "power_watts": 300.5,
        "power_limit_watts": 650,
        "power_limit_default_watts": 700,
        "power_limit_min_watts": 200,
        "power_limit_max_watts": 701,
        "energy_joules_total": 123456.789,
        "clock_hertz.graphics": 1.755e9,
        "clock_hertz.sm": 1.98e9,
        "clock_hertz.memory": 2.619e9,
        "clock_hertz.video": 1.545e9,
        "clock_max_hertz.graphics": 1.981e9,
        "clock_max_hertz.sm": 1.982e9,
        "clock_max_hertz.memory": 2.62e9,
        "clock_max_hertz.video": 1.546e9,
        "throttle_reason.gpu_idle": 0,
        "throttle_reason.sw_power_cap": 1,
        "throttle_reason.hw_slowdown": 0,
        "throttled_seconds_total.power": 2.5,
        "throttled_seconds_total.thermal": 0,
        "fan_speed_ratio": 0.3,
        "fan_unit_speed_ratio.0": 0.3,
        "fan_unit_speed_ratio.1": 0.35,
        "performance_state": 2,
        "persistence_mode": 1,
        "ecc_enabled": 1,
        "ecc_enabled_pending": 0,
        "ecc_errors_total.corrected": 12,
        "ecc_errors_total.uncorrected": 1,
        "ecc_errors_volatile_total.corrected": 5,
        "ecc_errors_volatile_total.uncorrected": 0,
        "ecc_errors_located_total.aggregate.dram.corrected": 11,
        "ecc_errors_located_total.aggregate.sram.corrected": 1,
        "remapped_rows_total.corrected": 3,
        "remapped_rows_total.uncorrected": 1,
        "row_remap_pending": 1,
        "row_remap_failure": 0,
        "row_remap_banks.max": 639,
        "row_remap_banks.high": 1,
        "row_remap_banks.partial": 0,
        "row_remap_banks.low": 0,
        "row_remap_banks.none": 0,
        "retired_pages_total.single_bit": 4,
        "retired_pages_total.double_bit": 2,
        "page_retirement_pending": 0,
        "xid_watched": 1,
        "xid_events_total": 0,
        "pcie_replays_total": 8,
        "pcie_link_generation": 4,
        "pcie_link_generation_max": 5,
        "pcie_link_width": 8,
        "pcie_link_width_max": 16,
        "nvlink_up.0": 1,
        "nvlink_up.1": 0,
        "nvlink_up.2": 1,
        "nvlink_bytes_total.transmit": 1000 * 1024,
        "nvlink_bytes_total.receive": 2000 * 1024,
        "nvlink_errors_total.crc_flit": 320,
        "nvlink_errors_total.replay": 1,
        "nvlink_link_errors_total.0": 21,
        "nvlink_link_errors_total.2": 300,
        "mig_enabled": 0,
        "mig_enabled_pending": 1,
        "recovery_action": 0,
        "healthy": 1,
        "process_query_supported": 1,
        "processes": 0,
    }
    assert label_sets(series, "accelerator_info")[0] == {
        "uuid": FULL["uuid"],
        "index": "0",
        "vendor": "nvidia",
        "model": "NVIDIA H100 80GB HBM3",
        "bus_id": "0000:C1:00.0",
        "driver_version": "550.54",
    }


def test_an_old_driver_is_asked_by_its_own_functions(driver: Driver, tmp_path: Path) -> None:
    driver.library = tmp_path / "old"
    driver.library.mkdir()
    build(driver.library, "470.57", "-DOLD_DRIVER")
    driver.set({**FULL, "compute": "1:1000", "graphics": "1:2000"}, driver="470.57")
    series, log = driver.check()
    assert success(series) == 1, log
    found = of(series, FULL["uuid"])
    # Its only function counts as used what the driver keeps for itself, too.
    assert found["memory_used_bytes"] == 3 * 2**30
    assert found["throttle_reason.sw_power_cap"] == 1
    assert found["process_memory_bytes.root"] == 2000
    assert "memory_reserved_bytes" not in found
    assert found["xid_watched"] == 0
    assert unavailable(series, FULL["uuid"]) == {"activity_ratio": "old_driver"}


def test_a_driver_that_cannot_tell_the_memory_in_the_newer_way_is_asked_in_the_older(
    machine: Machine,
) -> None:
    series = machine.restart({key: FULL[key] for key in FULL if key != "memory_v2_used"})
    assert of(series, FULL["uuid"])["memory_used_bytes"] == 3 * 2**30


def test_a_gpu_that_could_not_replace_a_memory_row_is_not_healthy(machine: Machine) -> None:
    series = machine.restart({**FULL, "remapped": "3 1 0 1"})
    found = of(series, FULL["uuid"])
    assert (found["healthy"], found["row_remap_failure"]) == (0, 1)
    assert success(series) == 1


def test_links_of_a_newer_generation_tell_their_errors_as_fields(machine: Machine) -> None:
    links = {key: value for key, value in FULL.items() if ".errors." not in key}
    # Receive errors and recoveries; fields of link 0 have no scope in the stand-in.
    series = machine.restart({**links, "field.208": "5", "field.215": "1", "field.208.2": "7"})
    assert success(series) == 1, machine.take_log()
    found = of(series, FULL["uuid"])
    assert found["nvlink_errors_total.receive"] == 12
    assert found["nvlink_errors_total.recovery"] == 1
    assert found["nvlink_link_errors_total.0"] == 6
    assert found["nvlink_link_errors_total.2"] == 7
    assert unavailable(series, FULL["uuid"]) == {}


def test_errors_of_a_link_that_goes_down_still_count(driver: Driver, tmp_path: Path) -> None:
    env = driver.settings(seldom_s="0")
    with serving(tmp_path / "log", "--collectors", "gpu", env=env) as exporter:

        def errors() -> list[float]:
            series = exporter.series()
            assert success(series) == 1, exporter.log.read_text()
            assert unavailable(series, FULL["uuid"]) == {}
            found = of(series, FULL["uuid"])
            names = ("errors_total.crc_flit", "link_errors_total.0", "link_errors_total.2")
            return [found[f"nvlink_{name}"] for name in names]

        assert errors() == [320, 21, 300]
        down = {**FULL, "nvlink.2": "0", "nvlink.0.errors.2": "25"}
        driver.set({**down, "nvlink.2.errors.2": "307"}, BARE)
        assert errors() == [332, 26, 307]
        # And where the driver does not tell them of a link that is down.
        silent = {key: value for key, value in down.items() if "nvlink.2.errors" not in key}
        driver.set(silent, BARE)
        assert errors() == [332, 26, 307]


def test_activity_is_the_mean_since_the_read_before(machine: Machine) -> None:
    def activity(series: Series) -> dict[str, float]:
        return {
            name: value
            for name, value in of(series, FULL["uuid"]).items()
            if name.startswith(("activity", "pcie_throughput"))
        }

    assert activity(machine.restart(FULL)) == {}
    found = wait_for(
        "the shortest interval is over", lambda: activity(machine.exporter.series())
    )
    assert found == {
        "activity_ratio.graphics": 0.505,
        "activity_ratio.sm": 0.4,
        "activity_ratio.tensor": 0.1225,
        # Memory bandwidth was no number, and the others are not told.
        "pcie_throughput_bytes_per_second.transmit": 3 * 2**20,
        "pcie_throughput_bytes_per_second.receive": 4 * 2**20,
    }


def test_activity_that_is_switched_off_is_not_read(driver: Driver) -> None:
    # A sample would fail, and the collector with it.
    driver.set({**FULL, "gpm_sample": f"!{UNKNOWN}"})
    assert success(driver.check()[0]) == 0
    assert success(driver.check(activity="false")[0]) == 1


def test_what_a_gpu_is_is_asked_once_until_the_driver_starts_anew(machine: Machine) -> None:
    machine.restart(FULL)
    machine.driver.set({**FULL, "pcie_width_max": "4", "pcie_width": "4"})
    found = of(machine.exporter.series(), FULL["uuid"])
    assert (found["pcie_link_width"], found["pcie_link_width_max"]) == (4, 16)
    found = of(machine.restart({**FULL, "pcie_width_max": "4"}), FULL["uuid"])
    assert found["pcie_link_width_max"] == 4


def test_what_is_costly_and_changes_seldom_is_not_asked_at_each_read(
    machine: Machine, driver: Driver, tmp_path: Path
) -> None:
    later = {**FULL, "retired.0": "5", "nvlink.2.errors.0": "7", "ecc_corrected": "13"}
    names = ("retired_pages_total.single_bit", "nvlink_errors_total.replay")

    def change(exporter: Exporter, driver: Driver) -> list[float]:
        driver.set(later)
        found = of(exporter.series(), FULL["uuid"])
        # The totals by which alerts go are always asked.
        assert found["ecc_errors_total.corrected"] == 13
        return [found[name] for name in names]

    machine.restart(FULL)
    assert change(machine.exporter, machine.driver) == [4, 1]
    found = of(machine.restart(later), FULL["uuid"])
    assert [found[name] for name in names] == [5, 8]
    driver.set(FULL)
    env = driver.settings(seldom_s="0")
    with serving(tmp_path / "log", "--collectors", "gpu", env=env) as exporter:
        exporter.series()
        assert change(exporter, driver) == [5, 8]


def test_in_auto_the_library_decides_whether_there_is_a_collector(driver: Driver) -> None:
    done = run_exporter("check", "--collectors", "auto", env=driver.env)
    assert values(parse_series(done.stdout), "sentinel_collector_success", "collector")["gpu"]


def test_devices_have_the_minor_number_and_the_bus_id(driver: Driver) -> None:
    done = run_exporter("devices", "--collectors", "gpu", env=driver.env)
    assert json.loads(done.stdout) == {
        "devices": [
            {
                "vendor": "nvidia",
                "uuid": "GPU-11111111-aaaa",
                "index": 0,
                "minor": 3,
                "model": "NVIDIA H100 80GB HBM3",
                "bus_id": "0000:C1:00.0",
                "memory_bytes": 80 * 2**30,
            },
            {
                "vendor": "nvidia",
                "uuid": "GPU-22222222-bbbb",
                "index": 1,
                "minor": 0,
                "model": "NVIDIA A2",
                "bus_id": "0001:02:00.0",
                "memory_bytes": None,
            },
        ],
        "problems": [],
    }


def test_devices_behind_a_lost_gpu_come_with_a_problem(driver: Driver) -> None:
    driver.set({"handle": f"!{LOST}"}, BARE)
    done = run_exporter("devices", "--collectors", "gpu", env=driver.env)
    answer = json.loads(done.stdout)
    assert [device["uuid"] for device in answer["devices"]] == [BARE["uuid"]]
    assert answer["problems"]
