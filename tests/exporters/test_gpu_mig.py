"""GPUs that are split into MIG devices."""

from __future__ import annotations

import os

from tests.exporters.nvml_driver import FULL, SLICE, Machine, of, split, success
from tests.exporters.running import Series, label_sets, values
from tests.lab.wait import wait_for

OTHER = {
    **SLICE,
    "uuid": "MIG-bbbb",
    "name": "NVIDIA H100 80GB HBM3 MIG 3g.40gb",
    "gpu_instance": "1",
    "compute_instance": "2",
    "memory_used": str(5 * 2**30),
}


def mig(series: Series, family: str) -> dict[str, float]:
    return values(series, f"accelerator_mig_{family}", "instance")


def test_each_mig_device_has_its_profile_and_its_memory(machine: Machine) -> None:
    series = machine.restart(split(FULL, SLICE, OTHER))
    assert success(series) == 1, machine.take_log()
    assert label_sets(series, "accelerator_mig_info") == [
        {
            "uuid": FULL["uuid"], "index": "0", "vendor": "nvidia", "instance": "MIG-aaaa",
            "profile": "1g.10gb", "gpu_instance": "7", "compute_instance": "0",
        },
        {
            "uuid": FULL["uuid"], "index": "0", "vendor": "nvidia", "instance": "MIG-bbbb",
            "profile": "3g.40gb", "gpu_instance": "1", "compute_instance": "2",
        },
    ]  # fmt: skip
    assert mig(series, "memory_used_bytes") == {"MIG-aaaa": 2**30, "MIG-bbbb": 5 * 2**30}
    assert mig(series, "memory_total_bytes")["MIG-aaaa"] == 10 * 2**30
    found = of(series, FULL["uuid"])
    assert (found["mig_enabled"], found["mig_enabled_pending"]) == (1, 1)
    assert found["reading_unavailable.utilization_ratio.not_supported"] == 1


def test_a_mig_device_is_as_busy_as_its_own_counters_say(machine: Machine) -> None:
    gpu = split({**FULL, "gpm.1.of.7": "25", "gpm.1.of.1": "75"}, SLICE, OTHER)
    machine.restart(gpu)
    found = wait_for(
        "the shortest interval is over",
        lambda: mig(machine.exporter.series(), "utilization_ratio"),
    )
    assert found == {"MIG-aaaa": 0.25, "MIG-bbbb": 0.75}
    # The counters of the whole are of no use then.
    assert label_sets(machine.exporter.series(), "accelerator_activity_ratio") == []


def test_processes_of_a_mig_device_count_for_it_and_for_the_gpu(machine: Machine) -> None:
    me = os.getpid()
    # Process 1 is on both devices; the GPU itself tells one of its own, and these again.
    series = machine.restart(
        {
            **split(
                FULL,
                {**SLICE, "compute": f"{me}:100 1:30"},
                {**OTHER, "compute": "1:4"},
            ),
            "compute": f"{me}:100 1:30 2:1000",
        }
    )
    assert mig(series, "user_processes") == {"MIG-aaaa": 2, "MIG-bbbb": 1}
    assert mig(series, "process_memory_bytes") == {"MIG-aaaa": 130, "MIG-bbbb": 4}
    found = of(series, FULL["uuid"])
    assert found["processes"] == 3
    assert found["process_memory_bytes.root"] == 100 + 34 + 1000


def test_a_gpu_that_tells_no_processes_has_those_of_its_mig_devices(machine: Machine) -> None:
    gpu = split({**FULL, "compute": "!4"}, {**SLICE, "compute": "1:30"})
    found = of(machine.restart(gpu), FULL["uuid"])
    assert (found["process_query_supported"], found["processes"]) == (1, 1)


def test_processes_that_one_mig_device_does_not_tell_are_not_read_as_none(
    machine: Machine,
) -> None:
    gpu = split({**FULL, "compute": "!4"}, {**SLICE, "compute": "1:30"}, OTHER)
    series = machine.restart(gpu)
    found = of(series, FULL["uuid"])
    assert found["process_query_supported"] == 0
    assert "processes" not in found
    # Those that are told are the device's still.
    assert mig(series, "user_processes") == {"MIG-aaaa": 1}


def test_a_mig_device_that_does_not_tell_which_one_it_is_is_not_taken_for_the_first(
    machine: Machine,
) -> None:
    unknown = {key: value for key, value in OTHER.items() if key != "compute_instance"}
    series = machine.restart(split(FULL, SLICE, unknown))
    assert set(mig(series, "memory_used_bytes")) == {"MIG-aaaa"}


def test_a_profile_that_the_name_does_not_tell_is_made_of_the_slices(machine: Machine) -> None:
    # A compute instance of 2 of the 3 slices; 40 GiB less what the hardware needs itself.
    unnamed = {**SLICE, "name": "NVIDIA H100", "attributes": "3 2 40448"}
    series = machine.restart(split(FULL, unnamed))
    assert label_sets(series, "accelerator_mig_info")[0]["profile"] == "2c.3g.40gb"


def test_a_mig_device_that_is_destroyed_leaves_no_series(machine: Machine) -> None:
    machine.restart(split(FULL, SLICE, OTHER))
    machine.driver.set(split(FULL, OTHER))
    series = machine.exporter.series()
    assert success(series) == 1, machine.take_log()
    assert set(mig(series, "memory_used_bytes")) == {"MIG-bbbb"}
    machine.driver.set(FULL)
    series = machine.exporter.series()
    assert success(series) == 1, machine.take_log()
    assert mig(series, "memory_used_bytes") == {}
    assert of(series, FULL["uuid"])["utilization_ratio"] == 0.55
