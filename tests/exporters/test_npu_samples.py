"""A chip's series: base units, its users, and no sample for what the table does not tell."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from sentinel_exporters.accelerator import DeviceProcess, Identity, process_samples
from sentinel_exporters.collectors.npu import parse
from sentinel_exporters.npu.reading import Details
from sentinel_exporters.npu_smi.info import parse_info
from tests.exporters.npu_series import TWO_CARDS, make_reading, scrape, series
from tests.exporters.npu_tables import Row, Table, none_running

FIXTURES = Path(__file__).parent / "fixtures" / "npu"
GIB, MIB = 2**30, 2**20


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
    [
        ("OK", [1]),
        ("Ok", [1]),
        ("ok", [1]),
        ("Warning", [0]),
        ("Alarm", [0]),
        ("UNKNOWN", []),
        ("NA", []),
    ],
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


def test_a_process_that_is_told_twice_counts_once_with_all_of_its_memory() -> None:
    rows = [["5     0", pid, "python", memory] for pid, memory in (
        ("11", "100"), ("12", "5"), ("11", "200"), ("13", "7"), ("13", "NA"),
        ("NA", "1"), ("NA", "2"),
    )]  # fmt: skip
    table = replace(TWO_CARDS, processes=rows)
    found = list(scrape(table, pid11="alice", pid12="alice", pid13="bob").samples)
    card5 = ("npu-0000:02:00.0", "1")
    assert series(found, "accelerator_processes") == {card5: 5}
    assert series(found, "accelerator_user_processes") == {
        (*card5, "alice"): 2,
        (*card5, "bob"): 1,
        (*card5, ""): 2,
    }
    assert series(found, "accelerator_process_memory_bytes") == {
        (*card5, "alice"): 305 * MIB,
        (*card5, ""): 3 * MIB,
    }


def test_a_card_that_the_process_table_does_not_speak_of_is_not_called_idle() -> None:
    found = list(scrape(replace(TWO_CARDS, processes=[none_running("0")])).samples)
    card0, card5 = ("npu-0000:C1:00.0", "0"), ("npu-0000:02:00.0", "1")
    assert series(found, "accelerator_processes") == {card0: 0}
    assert series(found, "accelerator_process_query_supported") == {card0: 1, card5: 0}


def test_a_process_on_one_of_two_chips_leaves_the_other_idle() -> None:
    info = parse_info((FIXTURES / "info-910c-26.0.txt").read_text())
    found = list(parse(make_reading(info)).samples)
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


@pytest.mark.parametrize("order", list(itertools.permutations([100, None, 7])))
def test_an_owners_memory_is_only_told_when_all_of_it_is_known(order: list[int | None]) -> None:
    alices = [DeviceProcess(pid, memory_bytes) for pid, memory_bytes in enumerate(order)]
    owners = {0: "alice", 1: "alice", 2: "alice", 3: "bob"}
    samples = process_samples(
        Identity("u", 0, "ascend"), [*alices, DeviceProcess(3, 5)], owners
    )
    assert series(samples, "accelerator_process_memory_bytes") == {("u", "0", "bob"): 5}
    assert series(samples, "accelerator_user_processes") == {
        ("u", "0", "alice"): 3,
        ("u", "0", "bob"): 1,
    }


def test_damage_is_told_and_the_other_chips_are_too() -> None:
    result = scrape(Table([replace(Row("0", "0"), health=""), Row("1", "0")]))
    assert len(series(list(result.samples), "accelerator_info")) == 1
    assert len(result.problems) == 1


def test_a_damaged_reading_has_no_sample_and_the_chips_others_have() -> None:
    row = Row("0", "0", power="-0.1", temp="41", aicore="101")
    result = scrape(Table([row]))
    found = {sample.metric.name: sample.value for sample in result.samples}
    assert not {"accelerator_power_watts", "accelerator_utilization_ratio"} & set(found)
    assert found["accelerator_temperature_celsius"] == 41
    assert found["accelerator_memory_used_bytes"] == 3412 * MIB
    assert len(result.problems) == 2


def test_ddr_does_not_stand_for_an_hbm_whose_reading_is_damaged() -> None:
    reading = make_reading(
        parse_info(Table([Row("0", "0", ddr="1848 / 15137", hbm="9 / 8")]).text())
    )
    assert series(parse(reading).samples, "accelerator_memory_total_bytes") == {}
    (chip,) = reading.chips
    assert chip.ddr is not None


def test_a_cards_power_is_not_told_twice_where_the_tables_is_damaged() -> None:
    text = (FIXTURES / "info-910c-26.0.txt").read_text().replace("171.5", "-0.10")
    info = parse_info(text)
    told = {(one.npu_id, one.chip_id): Details(power_watts=171.5) for one in info.chips}
    chips = make_reading(info, details=told).chips
    assert [chip.power_watts for chip in chips] == [None, None, 168.2, None]
