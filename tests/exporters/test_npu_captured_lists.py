"""Lists of `npu-smi info -t …` captured on other machines; skipped where they are not."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import pytest

from sentinel_exporters.accelerator import DeviceProcess
from sentinel_exporters.npu.reading import Board, Details, Ecc
from sentinel_exporters.npu_smi import details
from sentinel_exporters.npu_smi.details import ByChip
from sentinel_exporters.npu_smi.errors import NotSupported, NpuSmiError
from sentinel_exporters.npu_smi.fields import parse_card, parse_chip
from sentinel_exporters.npu_smi.mapping import parse_mapping
from sentinel_exporters.npu_smi.values import Damaged
from tests.exporters.running import REPOSITORY

FOLDER = REPOSITORY.parent / "shared" / "data" / "npu-smi"
FILES = sorted(path.name for path in FOLDER.glob("*.txt") if "info_" not in path.name)
MIB = 2**20
DIE = "42C711D4-20B03704-4A10C8D4-14CC040A-D2102003"
NO_ECC = Ecc((0, 0), (0, 0), (0, 0))

pytestmark = pytest.mark.skipif(not FILES, reason="there are no captured outputs here")


def read(name: str) -> str:
    """Return the output without the line that says where it comes from."""
    return re.sub(r"\A(#.*\n)+", "", (FOLDER / name).read_text())


READERS: Mapping[str, Callable[[str], ByChip]] = {
    "usages": details.read_usages,
    "common": details.read_common,
    "memory": details.read_memory,
    "ecc": details.read_ecc,
    "health": details.read_health,
    "board_chip": details.read_board,
    "procmem": details.read_process_memory,
}
# The tool's other outputs, which are not asked for.
OTHERS = ("board_card", "temp", "list", "topo", "watch", "mapping", "error", "help")


def kind_of(name: str) -> str:
    bare = name.removeprefix("doc_")
    return next((kind for kind in (*READERS, *OTHERS) if bare.startswith(kind)), "")


# Read by eye, chip by chip.
EXPECTED: dict[str, ByChip] = {
    "usages_310P_duo.txt": {
        0: Details(
            engines={"aicpu": 0, "ctrlcpu": 2, "vector": 0, "vdec": 0, "vpc": 0, "venc": 0,
                     "jpege": 0, "jpegd": 0},
            has_utilization=True, bandwidth_percent=51,
        ),
        1: Details(
            engines={"aicpu": 0, "ctrlcpu": 3, "vector": 0, "vdec": 0, "vpc": 0, "venc": 0,
                     "jpege": 0, "jpegd": 0},
            has_utilization=True, bandwidth_percent=51,
        ),
    },
    "usages_910A_23.0.5.txt": {0: Details(
        engines={"aicpu": 0, "ctrlcpu": 0},
        has_utilization=True, hbm_percent=0, bandwidth_percent=0,
    )},
    "doc_usages_910A.txt": {0: Details(
        engines={"aicpu": 0, "ctrlcpu": 0},
        has_utilization=True, hbm_percent=0, bandwidth_percent=0,
    )},
    "usages_910B1_23.0.rc2.txt": {0: Details(
        engines={"aicpu": 0, "ctrlcpu": 0, "vector": 0},
        has_utilization=True, hbm_percent=4, bandwidth_percent=0,
    )},
    "common_310P_duo.txt": {
        0: Details(aicore_hertz=960e6, power_watts=45.2), 1: Details(aicore_hertz=960e6),
    },
    "common_910B1_23.0.rc2.txt": {
        0: Details(aicore_hertz=800e6, aicores=24, power_watts=93.4),
    },
    "doc_common_910A.txt": {0: Details(aicore_hertz=900e6, aicores=30, power_watts=71.7)},
    "doc_common_950_no_chip_lines.txt": {
        None: Details(aicore_hertz=100e6, aicores=32, power_watts=298.6),
    },
    "memory_910B3_25.5.1.txt": {None: Details(memory_celsius=52)},
    "doc_ecc_910A_24.1.rc1.txt": {0: Details(hbm_ecc=NO_ECC, ddr_ecc=NO_ECC)},
    "health_ok_910A.txt": {None: Details(error_codes=())},
    "doc_health_ok.txt": {None: Details(error_codes=())},
    "board_chip_910A_23.0.5.txt": {None: Details(board=Board("Ascend", "910A", "V1", DIE))},
    "doc_board_chip_910A.txt": {None: Details(board=Board("Ascend", "xxx", "V1", DIE))},
    "procmem_310P3_duo_fixture.txt": {
        0: Details(processes=(
            DeviceProcess(1976358, 1336 * MIB), DeviceProcess(1673754, 460 * MIB),
            DeviceProcess(577293, 1972 * MIB),
        )),
        1: Details(processes=(
            DeviceProcess(1654605, 1851 * MIB), DeviceProcess(716574, 248 * MIB),
        )),
    },
    "procmem_910B_25.5.1_oneline.txt": {
        None: Details(processes=(DeviceProcess(899293, 57280 * MIB),)),
    },
    "procmem_910C_empty_and_nameless.txt": {
        0: Details(processes=()), 1: Details(processes=(DeviceProcess(3229095, 48208 * MIB),)),
    },
}  # fmt: skip


def test_every_captured_file_is_of_a_kind_that_is_known() -> None:
    assert [name for name in FILES if not kind_of(name)] == []
    assert sorted(EXPECTED) == [name for name in FILES if kind_of(name) in READERS]


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_captured_list_says_what_the_eye_reads(name: str) -> None:
    assert READERS[kind_of(name)](read(name)) == EXPECTED[name]


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_every_value_is_printed_in_the_list(name: str) -> None:
    text = read(name)
    printed = {float(word) for word in re.findall(r"\d+(?:\.\d+)?", text)}
    for told in READERS[kind_of(name)](text).values():
        values = [*(told.engines or {}).values(), told.hbm_percent, told.bandwidth_percent]
        values += [told.aicores, told.power_watts, told.memory_celsius]
        values += [None if told.aicore_hertz is None else told.aicore_hertz / 1e6]
        for process in told.processes or ():
            values += [process.pid, (process.memory_bytes or 0) // MIB]
        assert {float(value) for value in values if value is not None} <= printed


@pytest.mark.parametrize(
    "name", [name for name in FILES if kind_of(name) not in READERS] or ["none"]
)
def test_an_output_that_was_not_asked_for_is_taken_for_no_other(name: str) -> None:
    text = read(name)
    for kind, reader in READERS.items():
        # The table of a card's board has no list of a chip's, and so on.
        with pytest.raises((Damaged, NotSupported)):
            pytest.fail(f"{kind} takes {name} for its own: {reader(text)}")
    if kind_of(name) != "mapping":
        with pytest.raises(NpuSmiError):
            parse_mapping(text)


def test_the_temperatures_of_a_card_are_told_apart() -> None:
    chip, controller = parse_card(read("temp_910B_25.5.1.txt"))
    assert (chip.chip_id, chip.celsius("npu temperature")) == (0, 39)
    assert controller.is_controller
    assert controller.values == {"lm75a_te": ("36", "C"), "lm75b_te": ("36", "C")}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("board_card_910A_23.0.5.txt",
         {"npu id": "0", "software version": "23.0.5", "firmware version": "7.1.0.7.220",
          "board id": "0x02", "pcie bus info": "0000:61:00.0", "chip count": "1"}),
        ("board_card_910B_25.5.1.txt",
         {"npu id": "0", "product name": "IT21HMDC_Bin5", "software version": "25.5.1",
          "board id": "0x60", "pcie bus info": "0000:C1:00.0", "chip count": "1"}),
        ("doc_board_card_910A_23.0.5.txt",
         {"npu id": "0", "software version": "23.0.5", "pci vendor id": "0x19e5"}),
    ],
)  # fmt: skip
def test_the_board_of_a_card_is_read_word_by_word(name: str, expected: dict[str, str]) -> None:
    section = parse_chip(read(name))
    assert {key: section.word(key) for key in expected} == expected


def test_a_device_that_cannot_tell_it_is_not_supported() -> None:
    with pytest.raises(NotSupported):
        parse_card(read("topo_not_supported.txt"))
