"""What a GPU does not tell, or fails to tell: the reason is said, and all else is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from sentinel_exporters.nvml import is_installed
from tests.exporters.nvml_driver import (
    BARE,
    FULL,
    Driver,
    Machine,
    of,
    success,
    unavailable,
)
from tests.exporters.running import Exporter, label_sets, run_exporter, serving

# NVML's numbers (nvmlReturn_t in nvml.h).
NOT_SUPPORTED, NO_PERMISSION, LIBRARY_NOT_FOUND, NO_DATA, UNKNOWN = 3, 4, 12, 21, 999


def test_what_a_gpu_does_not_support_is_shown_as_that_and_is_no_failure(
    machine: Machine,
) -> None:
    series = machine.restart(FULL, BARE)
    assert success(series) == 1, machine.take_log()
    told = {
        name: value
        for name, value in of(series, BARE["uuid"]).items()
        if not name.startswith("reading_unavailable")
    }
    assert told == {"healthy": 1, "process_query_supported": 0, "xid_watched": 0}
    missing = unavailable(series, BARE["uuid"])
    assert set(missing.values()) == {"not_supported"}
    assert missing.keys() == {
        "activity_ratio", "clock_hertz", "clock_max_hertz", "ecc_enabled", "ecc_errors_total",
        "ecc_errors_volatile_total", "encoder_sessions", "energy_joules_total",
        "engine_utilization_ratio", "fan_speed_ratio", "memory_temperature_celsius",
        "memory_used_bytes", "mig_enabled", "nvlink_up", "pcie_link_generation",
        "pcie_link_generation_max", "pcie_link_width", "pcie_link_width_max",
        "pcie_replays_total", "performance_state", "persistence_mode",
        "power_limit_default_watts", "power_limit_max_watts", "power_limit_watts",
        "power_watts", "processes", "recovery_action", "remapped_rows_total",
        "retired_pages_total", "row_remap_banks", "temperature_celsius",
        "temperature_threshold_celsius", "throttle_reason", "throttled_seconds_total",
        "utilization_ratio",
    }  # fmt: skip
    assert unavailable(series, FULL["uuid"]) == {}


@pytest.mark.parametrize(
    ("code", "reason", "is_failure"),
    [
        (NOT_SUPPORTED, "not_supported", False),
        (NO_PERMISSION, "no_permission", False),
        (NO_DATA, "no_data", False),
        (UNKNOWN, "error", True),
    ],
)
def test_why_there_is_no_reading_is_told(
    machine: Machine, code: int, reason: str, is_failure: bool
) -> None:
    missing = {"power": f"!{code}", "field.82": f"!{code}", "fan.0": f"!{code}"}
    series = machine.restart({**FULL, **missing, "clock_max_sm": f"!{code}"})
    log = machine.take_log()
    reasons = {"power_watts": reason, "memory_temperature_celsius": reason}
    if is_failure:
        # That a GPU has no such clock or fan is no matter; that it fails to tell one is.
        reasons |= {"clock_max_hertz": reason, "fan_unit_speed_ratio": reason}
    assert unavailable(series, FULL["uuid"]) == reasons
    for reading in reasons:
        assert (f"GPU 0: {reading}: Unknown Error" in log) == is_failure
    assert (success(series) == 0) == is_failure
    found = of(series, FULL["uuid"])
    assert not {"power_watts", "memory_temperature_celsius"} & found.keys()
    assert (found["temperature_celsius"], found["healthy"]) == (41, 1)
    assert (found["clock_max_hertz.memory"], found["fan_unit_speed_ratio.1"]) == (2.62e9, 0.35)


def test_a_failure_of_many_links_is_told_once(driver: Driver) -> None:
    driver.set({**FULL, **{key: f"!{UNKNOWN}" for key in FULL if ".errors." in key}})
    _, log = driver.check()
    assert log.count("GPU 0: nvlink_errors_total: Unknown Error") == 1


def test_a_field_of_a_type_that_is_not_known_is_no_reading(machine: Machine) -> None:
    series = machine.restart({**FULL, "field_type": "7"})
    assert success(series) == 1, machine.take_log()
    assert "memory_temperature_celsius" not in of(series, FULL["uuid"])
    assert unavailable(series, FULL["uuid"])["memory_temperature_celsius"] == "not_supported"


def test_fields_that_are_refused_together_have_one_reason(machine: Machine) -> None:
    series = machine.restart({**FULL, "fields": f"!{NO_PERMISSION}"})
    assert success(series) == 1, machine.take_log()
    names = ("memory_temperature_celsius", "recovery_action", "nvlink_bytes_total")
    assert unavailable(series, FULL["uuid"]) == dict.fromkeys(names, "no_permission")


def test_a_text_that_cannot_be_read_takes_no_gpu_away(machine: Machine) -> None:
    # What a card with a damaged memory of its own says of itself.
    damaged = {**FULL, "serial": "\udcff\udcfe", "name": "\udcff"}
    series = machine.restart(damaged, BARE)
    assert success(series) == 1, machine.take_log()
    assert of(series, FULL["uuid"])["temperature_celsius"] == 41
    models = [labels["model"] for labels in label_sets(series, "accelerator_info")]
    assert models == ["", "NVIDIA A2"]


def test_what_failed_is_asked_again_at_the_next_read(
    driver: Driver, gpu_exporter: Exporter
) -> None:
    failing = {
        **FULL,
        # A fact, and a part of what is asked seldom.
        "clock_max_sm": f"!{UNKNOWN}",
        "nvlink.2.errors.0": f"!{UNKNOWN}",
    }
    driver.set(failing, BARE)
    # After the first read the library is opened anew, and after the second it is not.
    for _ in range(2):
        found = of(gpu_exporter.series(), FULL["uuid"])
        assert "clock_max_hertz.sm" not in found
    driver.set(FULL, BARE)
    series = gpu_exporter.series()
    assert driver.init_count == 2
    assert success(series) == 1
    found = of(series, FULL["uuid"])
    assert found["clock_max_hertz.sm"] == 1.982e9
    assert found["nvlink_errors_total.replay"] == 1
    assert unavailable(series, FULL["uuid"]) == {}


def test_an_unknown_performance_state_is_no_reading(machine: Machine) -> None:
    series = machine.restart({**FULL, "pstate": "32"})
    assert "performance_state" not in of(series, FULL["uuid"])


def test_a_machine_without_cuda_has_no_failure_and_is_asked_for_it_once(
    driver: Driver, tmp_path: Path
) -> None:
    def version(exporter: Exporter) -> str:
        return label_sets(exporter.series(), "nvidia_smi_gpu_info")[0]["cuda_version"]

    env = {**driver.env, "SENTINEL_EXPORTER_COMPAT": "nvidia_smi"}
    driver.set(FULL, BARE, cuda=f"!{LIBRARY_NOT_FOUND}")
    with serving(tmp_path / "log", "--collectors", "gpu", env=env) as exporter:
        assert success(exporter.series()) == 1, exporter.log.read_text()
        # It is looked for with another library, and that is not worth doing at each read.
        driver.set(FULL, BARE, cuda="12040")
        assert version(exporter) == ""
        assert driver.init_count == 1
        driver.set(FULL, BARE, load="another")
        exporter.series()
        assert version(exporter) == "12.4"


def test_a_driver_that_fails_to_tell_its_version_is_a_problem_and_asked_again(
    driver: Driver, gpu_exporter: Exporter
) -> None:
    driver.set(FULL, BARE, cuda=f"!{UNKNOWN}")
    for _ in range(3):
        series = gpu_exporter.series()
        assert success(series) == 0
        assert of(series, FULL["uuid"])["temperature_celsius"] == 41
    assert "version of CUDA: Unknown Error" in gpu_exporter.log.read_text()
    driver.set(FULL, BARE, cuda="12040")
    assert success(gpu_exporter.series()) == 1


@pytest.mark.skipif(is_installed(), reason="this machine has NVIDIA's driver")
def test_no_driver_is_a_failure_with_its_reason_when_gpu_is_named() -> None:
    done = run_exporter("check", "--collectors", "gpu", env={"LD_LIBRARY_PATH": ""})
    assert done.returncode == 1
    assert "NVML Shared Library Not Found" in done.stderr
