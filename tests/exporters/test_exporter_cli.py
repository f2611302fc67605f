"""The commands check, devices and metrics."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sentinel_exporters import __version__
from sentinel_exporters.catalog import find_collectors
from sentinel_exporters.cli import check
from sentinel_exporters.config import load_config
from tests.exporters.running import FAKES, NPU_SMI, parse_series, run_exporter, values

WITH_NPUS = {"SENTINEL_EXPORTER_NPU__COMMAND": str(NPU_SMI)}


def test_check_prints_the_metrics_and_succeeds() -> None:
    done = run_exporter("check", "--collectors", "npu", env=WITH_NPUS)
    assert done.returncode == 0, done.stderr
    series = parse_series(done.stdout)
    assert values(series, "sentinel_collector_success", "collector") == {"npu": 1}
    assert set(values(series, "accelerator_memory_total_bytes", "uuid").values()) == {
        64 * 2**30
    }


def test_the_option_check_is_the_command_check() -> None:
    done = run_exporter("--check", "--collectors", "ssh")
    assert done.returncode == 0, done.stderr
    series = parse_series(done.stdout)
    assert values(series, "sentinel_collector_success", "collector") == {"ssh": 1}
    assert run_exporter("check", "--check", "--collectors", "ssh").returncode == 0
    refused = run_exporter("devices", "--check")
    assert (refused.returncode, refused.stdout) == (2, "")


def test_check_fails_and_says_why_when_an_enabled_collector_does(tmp_path: Path) -> None:
    done = run_exporter(
        "check", "--collectors", "npu,ssh", env={**WITH_NPUS, "FAKE_NPU_SMI": str(tmp_path)}
    )
    assert done.returncode == 1
    series = parse_series(done.stdout)
    assert values(series, "sentinel_collector_success", "collector") == {"npu": 0, "ssh": 1}
    assert values(series, "ssh_connections").keys() == {""}
    assert not values(series, "accelerator_info", "uuid")
    assert "collector=npu reason=no permission" in done.stderr


def test_check_refuses_a_web_configuration_as_serving_does(tmp_path: Path) -> None:
    broken = tmp_path / "web.yml"
    broken.write_text("basic_auth_users: 7\n")
    for command in ("check", "serve"):
        done = run_exporter(command, "--collectors", "ssh", "--web-config", str(broken))
        assert done.returncode == 2
        assert done.stderr.startswith(f"sentinel-exporter: {broken} is not valid\n")
        assert "basic_auth_users" in done.stderr
        assert not done.stdout


def test_check_says_that_probes_are_not_checked() -> None:
    done = run_exporter("check", "--collectors", "ipmi")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "INFO not checked collector=ipmi reason=a probe needs a target\n"


def test_check_says_whose_source_is_not_here(tmp_path: Path) -> None:
    done = run_exporter("check", env={"PATH": str(tmp_path)})
    lines = done.stderr.splitlines()
    assert "INFO not checked collector=npu reason=its source is not here" in lines
    assert 'collector="npu"' not in done.stdout


def test_check_says_that_there_is_nothing_to_check(caplog: pytest.LogCaptureFixture) -> None:
    config = load_config(None, {}, {"collectors": "auto"})
    assert check(config, {}) == 0
    assert caplog.messages == ["nothing checked reason=no collector has its source here"]


def test_check_of_a_machine_without_any_source_succeeds() -> None:
    done = run_exporter(
        "check",
        "--collectors",
        "auto",
        env={"SENTINEL_EXPORTER_NPU__COMMAND": "no-such-program"},
    )
    assert done.returncode == 0, done.stderr
    assert "accelerator_" not in done.stdout


def test_devices_are_printed_in_the_agents_form() -> None:
    done = run_exporter("devices", env=WITH_NPUS)
    assert done.returncode == 0
    answer = json.loads(done.stdout)
    assert answer["problems"] == []
    assert [device["uuid"] for device in answer["devices"]] == [
        f"npu-0000:{bus}:00.0" for bus in ("C1", "C2", "81", "82", "01", "02", "41", "42")
    ]
    assert answer["devices"][5] == {
        "vendor": "ascend",
        "uuid": "npu-0000:02:00.0",
        "index": 5,
        "minor": 5,
        "model": "Ascend 910B3",
        "bus_id": "0000:02:00.0",
        "memory_bytes": 64 * 2**30,
    }


def test_a_machine_without_accelerators_has_an_empty_list_and_no_problem() -> None:
    done = run_exporter("devices", env={"SENTINEL_EXPORTER_NPU__COMMAND": "no-such-program"})
    assert done.returncode == 0
    assert json.loads(done.stdout) == {"devices": [], "problems": []}


def test_devices_that_cannot_be_read_are_a_problem_and_not_an_empty_machine(
    tmp_path: Path,
) -> None:
    done = run_exporter("devices", env={**WITH_NPUS, "FAKE_NPU_SMI": str(tmp_path)})
    assert done.returncode == 0
    answer = json.loads(done.stdout)
    assert answer["devices"] == []
    assert len(answer["problems"]) == 1
    assert answer["problems"][0].startswith("npu: no permission")


def test_a_collector_that_is_named_but_absent_is_a_problem() -> None:
    done = run_exporter("devices", "--collectors", "gpu,npu", env=WITH_NPUS)
    answer = json.loads(done.stdout)
    assert len(answer["devices"]) == 8
    assert [problem.partition(":")[0] for problem in answer["problems"]] == ["gpu"]


def test_metrics_lists_every_family_with_type_unit_labels_and_help() -> None:
    done = run_exporter("metrics")
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert all(len(row) == 6 and all(row) for row in rows)
    listed = {(row[0], row[1]) for row in rows}
    for collector in find_collectors().values():
        for metric in collector.metrics:
            assert (collector.name, metric.name) in listed
    power = next(row for row in rows if row[:2] == ["npu", "accelerator_power_watts"])
    assert power[2:] == ["gauge", "watts", "uuid,index,vendor", "Power that is drawn now."]


@pytest.mark.parametrize("host", ["ä" * 70, "x" * 300])
def test_a_host_that_cannot_be_one_is_an_error_with_a_reason(host: str) -> None:
    done = run_exporter("serve", "--listen", f"{host}:0", "--collectors", "ssh")
    assert done.returncode == 1
    assert done.stderr.startswith("ERROR cannot listen address=")
    assert "Traceback" not in done.stderr


def test_the_version_is_told() -> None:
    assert run_exporter("--version").stdout == f"{__version__}\n"


def test_the_stand_in_refuses_what_it_does_not_know() -> None:
    assert (FAKES / "npu-smi-910b" / "info.txt").is_file()
    done = run_exporter(
        "check", "--collectors", "npu", env={"SENTINEL_EXPORTER_NPU__COMMAND": f"{NPU_SMI} -x"}
    )
    assert done.returncode == 1


def test_a_list_that_nobody_reads_to_its_end_ends_quietly() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "sentinel_exporters", "metrics"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0
