"""Processes on GPUs: whose they are, and how many may have series."""

from __future__ import annotations

import os
import pwd
import subprocess
from pathlib import Path

import pytest

from sentinel_exporters.owners import find_owners
from tests.exporters.nvml_driver import FULL, Driver, Machine, of, success
from tests.exporters.running import label_sets, values

NO_PERMISSION = 4


@pytest.mark.skipif(os.geteuid() != 0, reason="runs a process as another user")
def test_processes_are_summed_by_owner_and_counted_once(machine: Machine) -> None:
    process = subprocess.Popen(
        ["setpriv", "--reuid=daemon", "--clear-groups", "sh", "-c", "echo up; read x"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        gone = 4194999
        series = machine.restart(
            {
                **FULL,
                "compute": f"{process.pid}:1000 {os.getpid()}:500 {gone}:7",
                # The same process draws too.
                "graphics": f"{process.pid}:1000",
                "mps": f"{os.getpid()}:?",
            }
        )
        found = of(series, FULL["uuid"])
        process.communicate("")
    assert found["processes"] == 3
    assert found["user_processes.daemon"] == 1
    assert found["process_memory_bytes.daemon"] == 1000
    assert found["process_memory_bytes.root"] == 500
    assert found["user_processes."] == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="runs a process as another user")
def test_a_process_with_another_users_rights_is_its_callers() -> None:
    # As that of a program that is setuid root: real user daemon, effective user root. A shell
    # would give the rights up.
    process = subprocess.Popen(
        ["setpriv", "--ruid=daemon", "--clear-groups", "cat"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("up\n")
        process.stdin.flush()
        process.stdout.readline()
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert f"Uid:\t{pwd.getpwnam('daemon').pw_uid}\t0\t" in status
        assert find_owners([process.pid]) == {process.pid: "daemon"}
        process.communicate("")


def test_memory_of_a_process_that_the_driver_does_not_tell_has_no_sample(
    machine: Machine,
) -> None:
    found = of(machine.restart({**FULL, "compute": f"{os.getpid()}:?"}), FULL["uuid"])
    assert found["processes"] == 1
    assert not [name for name in found if name.startswith("process_memory")]


def test_a_query_that_is_not_permitted_is_not_read_as_idle(machine: Machine) -> None:
    found = of(machine.restart({**FULL, "compute": f"!{NO_PERMISSION}"}), FULL["uuid"])
    assert found["process_query_supported"] == 0
    assert found["reading_unavailable.processes.no_permission"] == 1
    assert "processes" not in found


def test_processes_have_series_of_their_own_only_when_asked_for(machine: Machine) -> None:
    series = machine.restart({**FULL, "compute": f"{os.getpid()}:500"})
    assert success(series) == 1
    assert label_sets(series, "accelerator_pid_memory_bytes") == []


def test_those_with_most_memory_have_the_series_that_are_asked_for(driver: Driver) -> None:
    gone = 4194999
    driver.set({**FULL, "compute": f"1:500 {os.getpid()}:700 2:100 {gone}:900"})
    series, log = driver.check(pid_series="3")
    assert success(series) == 1, log
    assert values(series, "accelerator_pid_memory_bytes", "pid") == {
        str(gone): 900,
        str(os.getpid()): 700,
        "1": 500,
    }
    names = {
        labels["pid"]: labels["name"]
        for labels in label_sets(series, "accelerator_pid_memory_bytes")
    }
    assert names[str(os.getpid())] == Path("/proc/self/comm").read_text().strip()
    assert names[str(gone)] == ""
