"""Ascend NPUs from the command's output to the series: names, owners, and what is missing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sentinel_exporters.accelerator import DeviceProcess, Identity, process_samples
from sentinel_exporters.collectors.npu import (
    Reading,
    Settings,
    is_present,
    parse,
    read,
    read_devices,
)
from sentinel_exporters.core import Sample, Scrape
from sentinel_exporters.npu_smi.errors import NpuSmiError
from sentinel_exporters.npu_smi.identity import name_chips
from sentinel_exporters.npu_smi.info import parse_info
from sentinel_exporters.npu_smi.mapping import parse_mapping
from sentinel_exporters.owners import find_owners
from tests.exporters.npu_tables import Row, Table, mapping, none_running
from tests.exporters.running import NPU_SMI

FIXTURES = Path(__file__).parent / "npu-smi"
GIB, MIB = 2**30, 2**20

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="runs a process as another user")

Places = dict[tuple[int, int], int]


def scrape(table: Table, places: Places | None = None, **owners: str) -> Scrape:
    found = {int(pid.removeprefix("pid")): user for pid, user in owners.items()}
    return parse(Reading(parse_info(table.text()), places, found))


def series(samples: Iterator[Sample] | list[Sample], name: str) -> dict[tuple[str, ...], float]:
    """Return {labels without the vendor: value} of one family."""
    return {
        tuple(label for label in sample.labels if label != "ascend"): sample.value
        for sample in samples
        if sample.metric.name == name
    }


def named(table: Table, places: Places | None) -> list[tuple[int, str]]:
    chips, _ = name_chips(parse_info(table.text()).chips, places)
    return [(chip.logic_id, chip.uuid) for chip in chips]


# Names.

FOUR = Table(
    [
        Row("4", "0", "2", bus="0000:C1:00.0"),
        Row("4", "1", "3", bus="0000:C3:00.0"),
        Row("9", "0", "0", bus="0000:01:00.0"),
        Row("9", "1", "1", bus="0000:03:00.0"),
    ]
)
FOUR_PLACES = {(4, 0): 6, (4, 1): 7, (9, 0): 4, (9, 1): 5}


def test_the_mapping_gives_the_logic_ids() -> None:
    assert [logic for logic, _ in named(FOUR, FOUR_PLACES)] == [6, 7, 4, 5]


def test_without_a_mapping_the_device_column_gives_them() -> None:
    table = replace(FOUR, device_column="Phy-ID")
    assert [logic for logic, _ in named(table, None)] == [2, 3, 0, 1]


def test_without_either_the_order_gives_them() -> None:
    assert [logic for logic, _ in named(FOUR, None)] == [0, 1, 2, 3]


def test_a_damaged_chip_keeps_its_place_in_the_order() -> None:
    rows = list(FOUR.rows)
    rows[1] = replace(rows[1], power="?")
    assert [logic for logic, _ in named(replace(FOUR, rows=rows), None)] == [0, 2, 3]


def test_a_mapping_that_lacks_a_chip_is_not_used_and_said() -> None:
    places = {key: value for key, value in FOUR_PLACES.items() if key != (9, 1)}
    chips, problems = name_chips(parse_info(FOUR.text()).chips, places)
    assert [chip.logic_id for chip in chips] == [0, 1, 2, 3]
    assert problems == ["npu-smi info -m lacks card 9 chip 1"]


def test_a_chip_that_only_the_mapping_knows_is_said() -> None:
    result = scrape(FOUR, {**FOUR_PLACES, (12, 0): 8})
    assert result.problems == ("npu-smi info lacks card 12 chip 0",)
    assert len(series(list(result.samples), "accelerator_info")) == 4


def test_the_uuid_is_the_bus_id() -> None:
    assert [uuid for _, uuid in named(FOUR, FOUR_PLACES)] == [
        "npu-0000:C1:00.0", "npu-0000:C3:00.0", "npu-0000:01:00.0", "npu-0000:03:00.0",
    ]  # fmt: skip


def test_chips_that_share_a_bus_id_have_the_chip_in_the_uuid() -> None:
    info = parse_info((FIXTURES / "info-310p-duo-23.0.txt").read_text())
    places = parse_mapping((FIXTURES / "mapping-310p-duo.txt").read_text())
    chips, problems = name_chips(info.chips, places)
    assert problems == []
    assert [(chip.logic_id, chip.uuid) for chip in chips] == [
        (0, "npu-0000:3B:00.0-0"), (1, "npu-0000:3B:00.0-1"),
        (2, "npu-0000:86:00.0-0"), (3, "npu-0000:86:00.0-1"),
    ]  # fmt: skip


def test_without_a_bus_id_the_uuid_is_the_logic_id() -> None:
    table = Table([Row("0", "0", bus="NA"), Row("1", "0", bus="NA")])
    assert named(table, {(0, 0): 1, (1, 0): 0}) == [(1, "npu-logic-1"), (0, "npu-logic-0")]


def test_two_cards_that_show_the_same_bus_id_still_differ() -> None:
    table = Table([Row("0", "0"), Row("1", "0")])
    assert named(table, None) == [(0, "npu-logic-0"), (1, "npu-logic-1")]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "dcmi module initialize failed. ret is -8005",
        mapping([(0, 0, 0), (0, 0, 1)]),
        mapping([(0, 0, 0), (1, 0, 0)]),
        mapping([(0, 0, 0)]).replace("0  ", "x  ", 1),
        mapping([(0, 0, 0)]) + "and more\n",
    ],
)
def test_a_mapping_that_cannot_be_right_is_refused(text: str) -> None:
    with pytest.raises(NpuSmiError, match=r"npu-smi info -m"):
        parse_mapping(text)


def test_a_mapping_without_logic_ids_is_none() -> None:
    text = "NPU ID    Slot ID    Chip ID    Chip Name\n0         3          0          950PR\n"
    assert parse_mapping(text) is None


def test_controllers_and_log_lines_are_not_in_the_mapping() -> None:
    text = "[WARN] 0 0 7\n" + mapping([(0, 0, 3), (0, 1, "-"), (2, 0, 5)])
    assert parse_mapping(text) == {(0, 0): 3, (2, 0): 5}


# Samples.


def test_a_chips_readings_become_base_units() -> None:
    chip = Row("0", "0", power="95.2", temp="41", aicore="27", hbm="3412 / 65536")
    found = list(scrape(Table([replace(chip, hugepages="15 / 20")])).samples)
    key = ("npu-0000:C1:00.0", "0")
    assert series(found, "accelerator_power_watts") == {key: 95.2}
    assert series(found, "accelerator_temperature_celsius") == {key: 41}
    assert series(found, "accelerator_utilization_ratio") == {key: 0.27}
    assert series(found, "accelerator_memory_used_bytes") == {key: 3412 * MIB}
    assert series(found, "accelerator_memory_total_bytes") == {key: 64 * GIB}
    assert series(found, "accelerator_hugepages_used") == {key: 15}
    assert series(found, "accelerator_hugepages") == {key: 20}
    info = (*key, "Ascend 910B3", "0000:C1:00.0", "24.1.rc2")
    assert series(found, "accelerator_info") == {info: 1}
    assert series(found, "accelerator_tool_info") == {("npu-smi", "24.1.rc2"): 1}


def test_a_chip_with_both_has_its_hbm_as_memory() -> None:
    table = Table([Row("0", "0", ddr="1848 / 15137", hbm="30750/ 32768")])
    used = series(list(scrape(table).samples), "accelerator_memory_used_bytes")
    assert list(used.values()) == [30750 * MIB]


def test_a_chip_without_hbm_has_its_ddr_as_memory() -> None:
    table = Table([Row("0", "0", ddr="1848 / 21525")], has_hbm=False)
    total = series(list(scrape(table).samples), "accelerator_memory_total_bytes")
    assert list(total.values()) == [21525 * MIB]


@pytest.mark.parametrize(
    ("health", "values"),
    [("OK", [1]), ("Warning", [0]), ("Alarm", [0]), ("UNKNOWN", []), ("NA", [])],
)
def test_only_a_health_that_is_known_is_told(health: str, values: list[float]) -> None:
    found = list(scrape(Table([Row("0", "0", health=health)])).samples)
    assert list(series(found, "accelerator_healthy").values()) == values
    states = [labels[-1] for labels in series(found, "accelerator_health_info")]
    assert states == ([health] if values else [])


def test_what_the_table_does_not_tell_has_no_sample() -> None:
    row = Row("0", "0", health="NA", power="NA", temp="-", aicore="NA", ddr="NA", hbm="NA")
    found = scrape(Table([row])).samples
    assert {sample.metric.name for sample in found} == {
        "accelerator_info",
        "accelerator_tool_info",
        "accelerator_process_query_supported",
    }


TWO_CARDS = Table([Row("0", "0", bus="0000:C1:00.0"), Row("5", "0", bus="0000:02:00.0")])


def test_processes_are_summed_by_owner() -> None:
    table = replace(
        TWO_CARDS,
        processes=[
            none_running("0"),
            ["5     0", "11", "python", "100"],
            ["5     0", "12", "python", "200"],
            ["5     0", "13", "", "7"],
        ],
    )
    found = list(scrape(table, pid11="alice", pid12="alice").samples)
    card0, card5 = ("npu-0000:C1:00.0", "0"), ("npu-0000:02:00.0", "1")
    assert series(found, "accelerator_processes") == {card0: 0, card5: 3}
    assert series(found, "accelerator_user_processes") == {
        (*card5, "alice"): 2,
        (*card5, ""): 1,
    }
    assert series(found, "accelerator_process_memory_bytes") == {
        (*card5, "alice"): 300 * MIB,
        (*card5, ""): 7 * MIB,
    }


def test_a_card_that_the_process_table_does_not_speak_of_is_not_called_idle() -> None:
    found = list(scrape(replace(TWO_CARDS, processes=[none_running("0")])).samples)
    card0, card5 = ("npu-0000:C1:00.0", "0"), ("npu-0000:02:00.0", "1")
    assert series(found, "accelerator_processes") == {card0: 0}
    assert series(found, "accelerator_process_query_supported") == {card0: 1, card5: 0}


def test_a_process_on_one_of_two_chips_leaves_the_other_idle() -> None:
    info = parse_info((FIXTURES / "info-910c-26.0.txt").read_text())
    found = list(parse(Reading(info, None, {})).samples)
    counts = series(found, "accelerator_processes")
    assert {labels[1]: value for labels, value in counts.items()} == {
        "0": 2, "1": 0, "2": 0, "3": 1,
    }  # fmt: skip


@pytest.mark.parametrize(("chips", "supported"), [(1, 1.0), (2, 0.0)])
def test_a_process_known_by_its_card_belongs_to_a_single_chip_only(
    chips: int, supported: float
) -> None:
    table = Table(
        [Row("0", str(chip), bus=f"0000:C{chip}:00.0") for chip in range(chips)],
        [["0", "11", "python", "100"]],
        process_columns=("NPU", "Process id", "Process name", "Process memory(MB)"),
    )
    found = list(scrape(table).samples)
    answers = series(found, "accelerator_process_query_supported")
    assert set(answers.values()) == {supported}
    assert len(series(found, "accelerator_processes")) == (1 if supported else 0)


def test_an_owners_memory_is_only_told_when_all_of_it_is_known() -> None:
    samples = process_samples(
        Identity("u", 0, "ascend"),
        [DeviceProcess(1, 100), DeviceProcess(2, None), DeviceProcess(3, 5)],
        {1: "alice", 2: "alice", 3: "bob"},
    )
    assert series(samples, "accelerator_process_memory_bytes") == {("u", "0", "bob"): 5}
    assert series(samples, "accelerator_user_processes") == {
        ("u", "0", "alice"): 2,
        ("u", "0", "bob"): 1,
    }


def test_damage_is_told_and_the_other_chips_are_too() -> None:
    result = scrape(Table([replace(Row("0", "0"), power="9 5"), Row("1", "0")]))
    assert len(series(list(result.samples), "accelerator_info")) == 1
    assert len(result.problems) == 1


# The command.


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the stand-in for npu-smi prints."""
    monkeypatch.setenv("FAKE_NPU_SMI", str(tmp_path))
    (tmp_path / "info.txt").write_text(TWO_CARDS.text())
    (tmp_path / "mapping.txt").write_text(mapping([(0, 0, 0), (0, 1, "-"), (5, 0, 3)]))
    return tmp_path


SETTINGS = Settings(command=str(NPU_SMI))


def test_the_command_is_run_and_its_mapping_used(folder: Path) -> None:
    reading = read(SETTINGS)
    assert reading.mapping == {(0, 0): 0, (5, 0): 3}
    assert [device.index for device in read_devices(SETTINGS).devices] == [0, 3]


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
        assert read(SETTINGS).owners == {process.pid: "daemon"}
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
    reading = read(SETTINGS)
    assert len(reading.info.chips) == 2
    assert "npu-smi info -m: no permission" in reading.problems[0]
    assert parse(reading).problems == reading.problems


@pytest.mark.parametrize("text", [None, "garbage", mapping([(0, 0, 0)])])
def test_devices_whose_logic_ids_are_not_told_are_not_guessed(
    folder: Path, text: str | None
) -> None:
    (folder / "mapping.txt").unlink()
    if text is not None:
        (folder / "mapping.txt").write_text(text)
    report = read_devices(SETTINGS)
    assert report.devices == ()
    assert len(report.problems) == 1


def test_a_tool_without_logic_ids_has_devices_by_its_order(folder: Path) -> None:
    (folder / "mapping.txt").write_text(
        "NPU ID    Slot ID    Chip Name\n0         3          950\n"
    )
    report = read_devices(SETTINGS)
    assert [device.minor for device in report.devices] == [0, 1]
    assert report.problems == ()


def test_a_table_that_fails_is_an_error(folder: Path) -> None:
    (folder / "info.txt").unlink()
    with pytest.raises(NpuSmiError, match="-8005"):
        read(SETTINGS)


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


def test_a_tool_that_hangs_is_ended(tmp_path: Path) -> None:
    (tmp_path / "tool").write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 1000\n")
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
    assert is_present(SETTINGS)
    assert is_present(Settings(command=f"{sys.executable} -I"))
    assert not is_present(Settings(command="/no/such/tool info"))
    assert not is_present(Settings(command=""))
