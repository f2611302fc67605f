"""Outputs captured on other machines; skipped where they are not beside the repository.

What the tables must satisfy is counted here by other means than the parser's own.
"""

from __future__ import annotations

import re

import pytest

from sentinel_exporters.catalog import load_collector
from sentinel_exporters.collectors.npu import parse
from sentinel_exporters.npu_smi.errors import NpuSmiError
from sentinel_exporters.npu_smi.info import Info, parse_info
from sentinel_exporters.npu_smi.mapping import parse_mapping
from sentinel_exporters.runner import check_scrape
from tests.exporters.npu_series import make_reading
from tests.exporters.running import REPOSITORY

FOLDER = REPOSITORY.parent / "shared" / "data" / "npu-smi"
TABLES = sorted(
    path.name for path in FOLDER.glob("*info_*") if not path.name.startswith("help")
)
MIB = 2**20

pytestmark = pytest.mark.skipif(not TABLES, reason="there are no captured outputs here")


def read(name: str) -> str:
    return (FOLDER / name).read_text()


def info(name: str) -> Info:
    return parse_info(read(name))


@pytest.mark.parametrize("name", TABLES or ["none"])
def test_every_captured_table_is_read_whole(name: str) -> None:
    text, found = read(name), info(name)
    assert found.problems == ()
    # A chip's first row, and no other, has its health in the second cell.
    health = re.findall(r"(?m)^\|[^|]+\| (OK|Warning|Alarm|Critical|UNKNOWN) +\|", text)
    assert [chip.health for chip in found.chips] == health
    buses = re.findall(r"\| ([0-9A-F]{4}:[0-9A-F]{2}:[0-9A-F]{2}\.[0-9])", text)
    assert [chip.bus_id for chip in found.chips if chip.bus_id] == buses
    counted = {int(npu) for npu in re.findall(r"processes found in NPU (\d+)", text)}
    assert found.counted_npus == counted | {process.npu_id for process in found.processes}


@pytest.mark.parametrize("name", TABLES or ["none"])
def test_every_value_is_printed_in_the_table(name: str) -> None:
    text, found = read(name), info(name)
    for chip in found.chips:
        for value in (chip.power_watts, chip.temperature_celsius, chip.aicore_percent):
            assert value is None or re.search(rf"\b{value:g}(\.0)?\b", text)
        for usage in (chip.ddr, chip.hbm):
            if usage:
                used, total = usage.used // MIB, usage.total // MIB
                assert re.search(rf"\b{used} *\/ *{total}\b", text)
    for process in found.processes:
        assert process.memory_bytes is not None
        assert re.search(rf"\| {process.pid} .*\| {process.memory_bytes // MIB} ", text)


@pytest.mark.parametrize("name", TABLES or ["none"])
def test_every_captured_table_makes_a_page_that_prometheus_takes(name: str) -> None:
    found = info(name)
    scrape = parse(make_reading(found))
    check_scrape(load_collector("npu"), scrape)
    assert scrape.problems == ()
    uuids = {
        sample.labels[0] for sample in scrape.samples if sample.metric.name.endswith("_info")
    }
    assert len(uuids - {"ascend"}) == len(found.chips)
    ratios = [sample.value for sample in scrape.samples if sample.metric.unit == "ratio"]
    assert all(0 <= ratio <= 1 for ratio in ratios)


# file: chips, then (card, chip, device, health, bus, watts, °C, AICore %, DDR MiB, HBM MiB,
# huge pages) of one of them, then (card, chip, pid, MiB) of the processes. Read by eye.
EXPECTED: dict[str, tuple[int, int, tuple[object, ...], list[tuple[int, int, int, int]]]] = {
    "info_910A_21.0.3.2.txt": (
        2, 1, (4, 0, None, "OK", "0000:86:00.0", 63.6, 44, 0, (1809, 15082), (0, 32768), None),
        [],
    ),
    "info_310B4_alarm_23.0.0.txt": (
        1, 0, (0, 0, 0, "Alarm", None, 0.0, 65, 0, (3628, 15609), None, (15, 15)), [],
    ),
    "info_310P3_22.0.2_22.0.4.txt": (
        1, 0, (2144, 0, 0, "OK", "0000:86:00.0", None, 47, 0, (1807, 21527), None, None), [],
    ),
    "info_310P3_25.5.1_host.txt": (
        2, 1, (5, 0, 1, "OK", "0000:85:00.0", None, 40, 0, (1849, 21525), None, None), [],
    ),
    "info_910A_warning_23.0.rc1.b070_procheader-bytes.txt": (
        4, 2,
        (2, 0, None, "Warning", "0000:41:00.0", 70.8, 37, 0, (1667, 15137), (30750, 32768),
         None),
        [],
    ),
    "info_910B1_23.0.rc2_elided.txt": (
        3, 2, (7, 0, None, "OK", "0000:42:00.0", 92.7, 48, 0, None, (4174, 65536), None), [],
    ),
    "info_910B3_25.5.1_process_2cards.txt": (
        2, 1, (5, 0, None, "OK", "0000:02:00.0", 100.8, 44, 12, None, (60156, 65536), None),
        [(5, 0, 2290156, 56630)],
    ),
    "info_910B4_25.2.0_process.txt": (
        8, 5, (5, 0, None, "OK", "0000:41:00.0", 90.0, 40, 0, None, (2836, 32768), None),
        [(0, 0, 472206, 113)],
    ),
    "info_910C_dualchip_24.1.rc3.3_processes.txt": (
        16, 9, (4, 1, 9, "OK", "0000:8F:00.0", None, 37, 0, None, (52358, 65536), None),
        [
            (4, 0, 957687, 49207), (4, 1, 957770, 49207), (5, 0, 957790, 49207),
            (5, 1, 957852, 49207), (6, 0, 957876, 49207), (6, 1, 957912, 49207),
            (7, 0, 957957, 49207), (7, 1, 958011, 49207),
        ],
    ),
    "info_910C_26.0.rc2_fragment.txt": (
        3, 0, (0, 0, 0, "OK", "0000:9D:00.0", 162.6, 34, 0, None, (3419, 65536), None),
        [(0, 0, 632268, 197)],
    ),
    "doc_info_910A_23.0.rc3_processes_hugepages.txt": (
        8, 3,
        (3, 0, None, "OK", "0000:01:00.0", 69.6, 44, 0, (3845, 15039), (30709, 32768),
         (1123, 1123)),
        [
            (0, 0, 139667, 30780), (1, 0, 139577, 30782), (2, 0, 139446, 30780),
            (3, 0, 139372, 30780), (4, 0, 139258, 30780), (5, 0, 139163, 30780),
            (6, 0, 139126, 30780), (7, 0, 139090, 30780),
        ],
    ),
    "doc_info_warning_23.0.5_misaligned.txt": (
        2, 0,
        (0, 0, None, "Warning", "0000:61:00.0", 73.1, 37, 0, (920, 13553), (0, 32768), None),
        [],
    ),
    "info_310B4_23.0.rc3.txt": (
        1, 0, (0, 0, 0, "OK", None, 7.2, 37, 0, (1797, 3513), None, (15, 15)), [],
    ),
    "info_310P3_22.0.0_22.0.2.txt": (
        1, 0, (0, 0, 0, "OK", "0000:87:00.0", 17.1, 55, 0, (927, 23054), None, None), [],
    ),
    "info_310P3_22.0.0_22.0.3.txt": (
        1, 0, (0, 0, 0, "OK", "0000:86:00.0", 17.1, 56, 0, (3292, 21527), None, None), [],
    ),
    "info_910A_named_910B_24.1.0.txt": (
        8, 4,
        (4, 0, None, "OK", "0000:C2:00.0", 68.9, 33, 0, (2904, 13553), (3, 32768), None),
        [],
    ),
    "info_910B2_23.0.7_noprocess.txt": (
        8, 2, (2, 0, None, "OK", "0000:C2:00.0", 94.2, 35, 0, None, (29950, 65536), None), [],
    ),
    "info_910B3_24.1.rc1.b030_noproctable.txt": (
        8, 6, (6, 0, None, "OK", "0000:41:00.0", 103.8, 45, 0, None, (3314, 65536), None), [],
    ),
    "info_910B3_25.0.rc1.b010_processes_emptyname.txt": (
        8, 4, (4, 0, None, "OK", "0000:01:00.0", 128.3, 45, 30, None, (59714, 65536), None),
        [
            (0, 0, 1067983, 56373), (1, 0, 1070524, 56373), (2, 0, 1073093, 56373),
            (3, 0, 1075396, 56373), (4, 0, 1077642, 56373), (5, 0, 1079652, 56374),
            (6, 0, 1082071, 56373), (7, 0, 1084428, 56373),
        ],
    ),
}  # fmt: skip


def test_every_captured_table_has_been_read_by_eye() -> None:
    assert sorted(EXPECTED) == TABLES


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_captured_table_says_what_the_eye_reads(name: str) -> None:
    count, at, expected, processes = EXPECTED[name]
    found = info(name)
    chip = found.chips[at]
    pages = chip.hugepages
    assert len(found.chips) == count
    assert (
        chip.npu_id, chip.chip_id, chip.device_id, chip.health, chip.bus_id, chip.power_watts,
        chip.temperature_celsius, chip.aicore_percent,
        chip.ddr and (chip.ddr.used // MIB, chip.ddr.total // MIB),
        chip.hbm and (chip.hbm.used // MIB, chip.hbm.total // MIB),
        pages and (pages.used, pages.total),
    ) == expected  # fmt: skip
    assert [
        (process.npu_id, process.chip_id, process.pid, (process.memory_bytes or 0) // MIB)
        for process in found.processes
    ] == processes


@pytest.mark.parametrize(
    ("name", "code"),
    [("error_8005_no_permission.txt", "-8005"), ("error_8020_device_used.txt", "-8020")],
)
def test_a_captured_error_is_told_with_its_code(name: str, code: str) -> None:
    with pytest.raises(NpuSmiError, match=code):
        info(name)


@pytest.mark.parametrize(
    "name",
    sorted(
        path.name
        for path in FOLDER.glob("*.txt")
        if path.name not in TABLES and not path.name.startswith("error_80")
    )
    or ["none"],
)
def test_the_tools_other_outputs_are_no_table(name: str) -> None:
    with pytest.raises(NpuSmiError):
        info(name)


def test_captured_mappings_give_the_logic_ids_and_pass_over_controllers() -> None:
    assert parse_mapping(read("mapping_310P_duo_noncontiguous.txt")) == {
        (1, 0): 0, (1, 1): 1, (2, 0): 2, (2, 1): 3, (4, 0): 4, (4, 1): 5, (5, 0): 6, (5, 1): 7,
    }  # fmt: skip
    assert parse_mapping(read("mapping_910A_8card.txt")) == {(n, 0): n for n in range(8)}
    assert parse_mapping(read("mapping_910B3_25.5.1_mcu.txt")) == {(0, 0): 0, (1, 0): 1}
