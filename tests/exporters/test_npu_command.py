"""Running npu-smi: its mapping, its users' processes, and a tool that fails or hangs."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from sentinel_exporters.collectors.npu import Settings, is_present, parse, read, read_devices
from sentinel_exporters.npu_smi.command import run_tool
from sentinel_exporters.npu_smi.errors import NoAnswer, NpuSmiError
from sentinel_exporters.owners import find_owners
from tests.exporters.npu_series import TWO_CARDS
from tests.exporters.npu_tables import mapping, none_running
from tests.exporters.running import NPU_SMI, serving
from tests.lab.wait import wait_for

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="runs a process as another user")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the stand-in for npu-smi prints."""
    (tmp_path / "info.txt").write_text(TWO_CARDS.text())
    (tmp_path / "mapping.txt").write_text(mapping([(0, 0, 0), (0, 1, "-"), (5, 0, 3)]))
    return tmp_path


def settings(folder: Path) -> Settings:
    """Settings of its own for each test: the collector keeps what it asks seldom."""
    return Settings(command=f"env FAKE_NPU_SMI={folder} {NPU_SMI}", hccn_tool="")


def test_the_command_is_run_and_its_mapping_used(folder: Path) -> None:
    assert [chip.logic_id for chip in read(settings(folder)).chips] == [0, 3]
    assert [device.index for device in read_devices(settings(folder)).devices] == [0, 3]


@needs_root
def test_the_owner_of_a_real_process_is_found(folder: Path) -> None:
    # A process of another user, alive until its standard input closes.
    process = subprocess.Popen(
        ["setpriv", "--reuid=daemon", "--regid=daemon", "--clear-groups",
         "sh", "-c", "echo up; read x"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        gone = "4194999"  # above the greatest pid there can be
        table = replace(
            TWO_CARDS,
            processes=[
                ["0     0", str(process.pid), "sh", "100"],
                ["0     0", gone, "sh", "3"],
                none_running("5"),
            ],
        )
        (folder / "info.txt").write_text(table.text())
        assert read(settings(folder)).owners == {process.pid: "daemon"}
        process.communicate("")


@needs_root
def test_a_user_without_a_name_is_a_number() -> None:
    process = subprocess.Popen(
        ["setpriv", "--reuid=54321", "--clear-groups", "sh", "-c", "echo up; read x"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        assert find_owners([process.pid]) == {process.pid: "54321"}
        process.communicate("")


def test_a_mapping_that_fails_is_told_and_the_table_still_read(folder: Path) -> None:
    (folder / "mapping.txt").unlink()
    reading = read(settings(folder))
    assert len(reading.chips) == 2
    assert "npu-smi 24.1.rc2: info -m: no permission" in reading.problems[0]
    assert parse(reading).problems == reading.problems


@pytest.mark.parametrize("text", [None, "garbage", mapping([(0, 0, 0)])])
def test_devices_whose_logic_ids_are_not_told_are_not_guessed(
    folder: Path, text: str | None
) -> None:
    (folder / "mapping.txt").unlink()
    if text is not None:
        (folder / "mapping.txt").write_text(text)
    report = read_devices(settings(folder))
    assert report.devices == ()
    assert len(report.problems) == 1


def test_a_devices_file_is_that_of_its_physical_id(folder: Path) -> None:
    rows = [
        replace(row, device=device) for row, device in zip(TWO_CARDS.rows, "25", strict=True)
    ]
    table = replace(TWO_CARDS, rows=rows, device_column="Phy-ID")
    (folder / "info.txt").write_text(table.text())
    report = read_devices(settings(folder))
    assert [(device.index, device.minor) for device in report.devices] == [(0, 2), (3, 5)]


def test_a_device_whose_physical_id_is_not_told_has_no_file(folder: Path) -> None:
    rows = [
        replace(row, device=device) for row, device in zip(TWO_CARDS.rows, "2-", strict=True)
    ]
    table = replace(TWO_CARDS, rows=rows, device_column="Phy-ID")
    (folder / "info.txt").write_text(table.text())
    report = read_devices(settings(folder))
    assert [(device.index, device.minor) for device in report.devices] == [(0, 2), (3, None)]
    problem = "npu card 5 chip 0: its physical id is not known"
    assert report.problems == (problem,)
    assert parse(read(settings(folder))).problems == (problem,)


def test_the_list_of_logic_ids_may_tell_the_physical_ones(folder: Path) -> None:
    (folder / "mapping.txt").write_text(
        "NPU ID    Chip ID    Chip Logic ID    Chip Phy-ID    Chip Name\n"
        "0         0          0                4              Ascend910\n"
        "5         0          3                7              Ascend910\n"
    )
    report = read_devices(settings(folder))
    assert [(device.index, device.minor) for device in report.devices] == [(0, 4), (3, 7)]
    assert report.problems == ()


def test_a_device_that_does_not_fit_the_files_of_devices_has_none(
    folder: Path, tmp_path: Path
) -> None:
    dev = tmp_path / "dev"
    dev.mkdir()
    for name in ("davinci_manager", "hisi_hdc"):
        (dev / name).touch()
    assert [one.minor for one in read_devices(settings(folder), dev).devices] == [0, 3]
    for name in ("davinci0", "davinci1", "davinci4"):
        (dev / name).touch()
    report = read_devices(settings(folder), dev)
    assert [one.minor for one in report.devices] == [0, None]
    (problem,) = report.problems
    assert problem.startswith(
        "npu card 5 chip 0: its physical id is not known: its logic id 3 "
    )


def test_a_tool_without_logic_ids_has_devices_by_its_order(folder: Path) -> None:
    (folder / "mapping.txt").write_text(
        "NPU ID    Slot ID    Chip Name\n0         3          950\n"
    )
    report = read_devices(settings(folder))
    assert [device.minor for device in report.devices] == [0, 1]
    assert report.problems == ()


def test_a_table_that_fails_is_an_error(folder: Path) -> None:
    (folder / "info.txt").unlink()
    with pytest.raises(NpuSmiError, match="-8005"):
        read(settings(folder))


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("exit 3", r"no output \(exit status 3\)"),
        ("echo no driver >&2; exit 1", r"no output \(exit status 1\) no driver"),
        ("kill -9 $$", r"no output \(exit status -9\)"),
        ("printf '\\377\\376\\000'", "no table"),
    ],
)
def test_a_tool_that_prints_no_table_is_an_error(
    tmp_path: Path, script: str, reason: str
) -> None:
    (tmp_path / "tool").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "tool").chmod(0o755)
    with pytest.raises(NpuSmiError, match=reason):
        read(Settings(command=str(tmp_path / "tool")))


@pytest.mark.parametrize("end", ["exit 1", "kill -SEGV $$"])
def test_a_table_that_is_whole_counts_however_the_tool_ends(
    folder: Path, tmp_path: Path, end: str
) -> None:
    (tmp_path / "tool").write_text(f'#!/bin/sh\nFAKE_NPU_SMI={folder} {NPU_SMI} "$@"\n{end}\n')
    (tmp_path / "tool").chmod(0o755)
    reading = read(Settings(command=str(tmp_path / "tool"), hccn_tool="", detail_interval_s=0))
    assert [chip.logic_id for chip in reading.chips] == [0, 3]
    assert reading.problems == ()


def test_a_tool_that_hangs_is_ended(tmp_path: Path) -> None:
    (tmp_path / "tool").write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 60\n")
    (tmp_path / "tool").chmod(0o755)
    with pytest.raises(NpuSmiError, match=r"no end after 0\.5 s"):
        read(Settings(command=str(tmp_path / "tool"), timeout_s=0.5))
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.parametrize("command", ["/no/such/tool", "", "'", "\0"])
def test_a_command_that_cannot_be_started_is_an_error(command: str) -> None:
    with pytest.raises(NpuSmiError):
        read(Settings(command=command))


def test_the_source_is_present_when_its_program_is_there() -> None:
    assert is_present(Settings(command=str(NPU_SMI)))
    assert is_present(Settings(command=f"{sys.executable} -I"))
    assert not is_present(Settings(command="/no/such/tool info"))
    assert not is_present(Settings(command=""))


def test_a_tool_that_writes_without_end_is_stopped(tmp_path: Path) -> None:
    for stream in ("cat /dev/zero", "cat /dev/zero >&2"):
        with pytest.raises(NpuSmiError, match="more than 4 MiB of output"):
            run_tool(f"sh -c 'echo $$ > {tmp_path}/pid; {stream}'", (), 60)
        wait_for_end(int((tmp_path / "pid").read_text()))


def test_a_tool_speaks_the_language_that_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    assert run_tool("sh -c 'echo $LC_ALL'", (), 30) == "C\n"


def test_a_tool_that_closes_its_outputs_and_stays_is_given_up() -> None:
    with pytest.raises(NoAnswer):
        run_tool("sh -c 'echo told; exec >/dev/null 2>&1; sleep 60'", (), 0.2)


def test_an_exporter_that_ends_leaves_no_tool_behind(tmp_path: Path) -> None:
    tool = tmp_path / "npu-smi"
    tool.write_text(
        f"#!/bin/sh\necho $$ > {tmp_path}/new\nmv {tmp_path}/new {tmp_path}/pid\nsleep 60\n"
    )
    tool.chmod(0o755)
    env = {"SENTINEL_EXPORTER_NPU__COMMAND": str(tool)}
    with serving(tmp_path / "log", "--collectors", "npu", env=env):
        wait_for("the tool runs", (tmp_path / "pid").exists)
    wait_for_end(int((tmp_path / "pid").read_text()))


def wait_for_end(pid: int) -> None:
    def is_over() -> bool:
        try:
            # One that nobody has waited for yet has no command line.
            return not Path(f"/proc/{pid}/cmdline").read_bytes()
        except FileNotFoundError:
            return True

    wait_for("the tool has ended", is_over)
