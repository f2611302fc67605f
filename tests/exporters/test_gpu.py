"""NVIDIA GPUs, read by the real binding from a stand-in for the driver's library (nvml.c)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sentinel_exporters.nvml import is_installed
from tests.exporters.nvml_driver import BARE, FULL, Driver, build
from tests.exporters.running import (
    Exporter,
    Series,
    label_sets,
    parse_series,
    run_exporter,
    serving,
    values,
)

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")

# NVML's numbers (nvmlReturn_t in nvml.h).
NO_PERMISSION, NOT_LOADED, LOST, UNKNOWN = 4, 9, 15, 999


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nvml")
    build(folder, "550.54")
    return folder


@pytest.fixture
def driver(tmp_path: Path, library: Path) -> Driver:
    driver = Driver(tmp_path / "scenario", library)
    driver.set(FULL, BARE)
    return driver


@pytest.fixture
def exporter(driver: Driver, tmp_path: Path) -> Iterator[Exporter]:
    """One process that lives through what happens to its driver."""
    with serving(tmp_path / "log", "--collectors", "gpu", env=driver.env) as running:
        yield running


def success(series: Series) -> float:
    return values(series, "sentinel_collector_success", "collector")["gpu"]


def of(series: Series, uuid: str) -> dict[str, float]:
    """Return {family, with its own labels behind it: value} of one GPU."""
    found = {}
    for (name, labels), value in series.items():
        label = dict(labels)
        if label.get("uuid") == uuid and name != "accelerator_info":
            own = [label[key] for key in ("clock", "type", "user") if key in label]
            found[".".join([name.removeprefix("accelerator_"), *own])] = value
    return found


def test_a_gpu_that_tells_everything(driver: Driver) -> None:
    series, log = driver.check()
    assert success(series) == 1, log
    assert of(series, FULL["uuid"]) == {
        "utilization_ratio": 0.55,
        "memory_busy_ratio": 0.07,
        "memory_used_bytes": 2 * 2**30,
        "memory_total_bytes": 80 * 2**30,
        "temperature_celsius": 41,
        "power_watts": 300.5,
        "power_limit_watts": 700,
        "energy_joules_total": 123456.789,
        "clock_hertz.graphics": 1.755e9,
        "clock_hertz.sm": 1.98e9,
        "clock_hertz.memory": 2.619e9,
        "clock_hertz.video": 1.545e9,
        "fan_speed_ratio": 0.3,
        "performance_state": 2,
        "ecc_errors_total.corrected": 12,
        "ecc_errors_total.uncorrected": 1,
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


def test_what_a_gpu_does_not_support_has_no_sample_and_is_no_failure(driver: Driver) -> None:
    series, log = driver.check()
    assert success(series) == 1, log
    assert of(series, BARE["uuid"]) == {"healthy": 1, "process_query_supported": 0}


def test_an_old_driver_tells_the_memory_in_the_older_way(driver: Driver) -> None:
    driver.set({key: value for key, value in FULL.items() if key != "memory_v2_used"})
    assert of(driver.check()[0], FULL["uuid"])["memory_used_bytes"] == 3 * 2**30


def test_an_unknown_performance_state_is_no_reading(driver: Driver) -> None:
    driver.set({**FULL, "pstate": "32"})
    assert "performance_state" not in of(driver.check()[0], FULL["uuid"])


def test_a_gpu_without_spare_memory_rows_is_not_healthy(driver: Driver) -> None:
    driver.set({**FULL, "remap_failed": "1"})
    series, _ = driver.check()
    assert of(series, FULL["uuid"])["healthy"] == 0
    assert success(series) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="runs a process as another user")
def test_processes_are_summed_by_owner_and_counted_once(driver: Driver) -> None:
    process = subprocess.Popen(
        ["setpriv", "--reuid=daemon", "--clear-groups", "sh", "-c", "echo up; read x"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        gone = 4194999
        driver.set(
            {
                **FULL,
                "compute": f"{process.pid}:1000 {os.getpid()}:500 {gone}:7",
                # The same process draws too.
                "graphics": f"{process.pid}:1000",
                "mps": f"{os.getpid()}:?",
            }
        )
        found = of(driver.check()[0], FULL["uuid"])
        process.communicate("")
    assert found["processes"] == 3
    assert found["user_processes.daemon"] == 1
    assert found["process_memory_bytes.daemon"] == 1000
    assert found["process_memory_bytes.root"] == 500
    assert found["user_processes."] == 1


def test_memory_of_a_process_that_the_driver_does_not_tell_has_no_sample(
    driver: Driver,
) -> None:
    driver.set({**FULL, "compute": f"{os.getpid()}:?"})
    found = of(driver.check()[0], FULL["uuid"])
    assert found["processes"] == 1
    assert not [name for name in found if name.startswith("process_memory")]


def test_a_query_that_is_not_permitted_is_not_read_as_idle(driver: Driver) -> None:
    driver.set({**FULL, "compute": f"!{NO_PERMISSION}"})
    found = of(driver.check()[0], FULL["uuid"])
    assert found["process_query_supported"] == 0
    assert "processes" not in found


def test_one_reading_that_fails_is_told_and_costs_only_itself(driver: Driver) -> None:
    driver.set({**FULL, "power": f"!{UNKNOWN}"}, BARE)
    series, log = driver.check()
    assert success(series) == 0
    assert "GPU 0: nvmlDeviceGetPowerUsage" in log
    found = of(series, FULL["uuid"])
    assert "power_watts" not in found
    assert (found["temperature_celsius"], found["healthy"]) == (41, 1)


def test_a_lost_gpu_is_unhealthy_and_the_others_are_read(
    driver: Driver, exporter: Exporter
) -> None:
    assert success(exporter.series()) == 1
    driver.set({"handle": f"!{LOST}"}, {**BARE, "temperature": "50"})
    series = exporter.series()
    assert success(series) == 0
    assert of(series, FULL["uuid"]) == {"healthy": 0, "process_query_supported": 0}
    assert of(series, BARE["uuid"])["temperature_celsius"] == 50
    driver.set(FULL, BARE)
    series = exporter.series()
    assert success(series) == 1
    assert of(series, FULL["uuid"])["healthy"] == 1


def test_a_gpu_that_is_lost_in_the_middle_keeps_what_it_told_before(driver: Driver) -> None:
    driver.set({**FULL, "temperature": f"!{LOST}"})
    series, _ = driver.check()
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


def test_a_driver_that_comes_back_is_read_again(driver: Driver, exporter: Exporter) -> None:
    assert success(exporter.series()) == 1
    driver.set(driver=f"!{NOT_LOADED}", init=f"!{NOT_LOADED}")
    # The library is still open; the driver behind it has gone.
    driver.machine["count"] = f"!{NOT_LOADED}"
    driver.set()
    series = exporter.series()
    assert success(series) == 0
    assert label_sets(series, "accelerator_info") == []
    del driver.machine["count"]
    del driver.machine["init"]
    driver.set(FULL, driver="550.54")
    assert success(exporter.series()) == 1
    assert exporter.log.read_text().count("collector failed") == 1


def test_after_the_kernel_module_was_loaded_anew_the_library_is_opened_anew(
    driver: Driver, exporter: Exporter
) -> None:
    assert success(exporter.series()) == 1
    driver.set(FULL, BARE, load="2")
    assert success(exporter.series()) == 0
    series = exporter.series()
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
        driver.machine["count"] = f"!{NOT_LOADED}"
        driver.set(driver="570.86")
        assert success(exporter.series()) == 0
        del driver.machine["count"]
        driver.set(FULL)
        series = exporter.series()
        assert success(series) == 1, exporter.log.read_text()
        assert label_sets(series, "accelerator_info")[0]["driver_version"] == "570.86"


@pytest.mark.skipif(is_installed(), reason="this machine has NVIDIA's driver")
def test_no_driver_is_a_failure_with_its_reason_when_gpu_is_named() -> None:
    done = run_exporter("check", "--collectors", "gpu", env={"LD_LIBRARY_PATH": ""})
    assert done.returncode == 1
    assert "NVML Shared Library Not Found" in done.stderr


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
