"""Names of processes, which users choose: no name hides a process, or makes up another."""

from __future__ import annotations

from pathlib import Path

import pytest

from sentinel_exporters.accelerator import DeviceProcess
from sentinel_exporters.npu_smi.details import read_process_memory
from sentinel_exporters.npu_smi.info import Info, parse_info
from sentinel_exporters.npu_smi.mapping import parse_mapping
from sentinel_exporters.npu_smi.processes import Process
from sentinel_exporters.npu_smi.values import Damaged
from tests.exporters.npu_tables import Row, Table, none_running

FIXTURES = Path(__file__).parent / "fixtures" / "npu"
MIB = 2**20
PLACE = "n" * 15
TABLE = Table(
    [Row(str(card), "0", bus=f"0000:C{card}:00.0") for card in range(3)],
    [
        ["0     0", "17", PLACE, "37670"],
        ["0     0", "18", "python3", "5"],
        ["1     0", "19", "train", "20000"],
        none_running("2"),
    ],
).text()

NAMES = [
    "python3",
    "",
    "a|b",
    "|",
    "x | y | z",
    "No|",
    "a\x0bb\x0cc",
    "\x1c\x1d\x1e\x85\u2028",
    "Process id",
    # Line feeds, and with them rows and borders of the name's own.
    "a\nb",
    "\n\n\n",
    "x|5|\n|1 0|4242|",
    "|5|\n|1 0|42424|",
    "a\n+--+\nb",
    "\n+-----------\n|",
    "\n1 0 | 7 | x |",
    "\xe8\xae\xad\xe7\xbb\x83",
    "训练|练",
    "训\n|练",
]


def pad(name: str) -> str:
    """Pad to 15 bytes, as the tool does."""
    return name + " " * (15 - len(name.encode()))


def read_with(name: str, end: str = "\n") -> Info:
    assert len(name.encode()) <= 15
    text = TABLE.replace("\n", end).replace(PLACE, pad(name))
    assert parse_info(text).chips == parse_info(TABLE).chips
    return parse_info(text)


@pytest.mark.parametrize("name", NAMES)
def test_no_name_in_the_table_hides_a_process_or_makes_up_another(name: str) -> None:
    info = read_with(name)
    assert info.processes == (
        Process(0, 0, 17, 37670 * MIB),
        Process(0, 0, 18, 5 * MIB),
        Process(1, 0, 19, 20000 * MIB),
    )
    assert info.counted_npus == {0, 1, 2}
    assert info.problems == ()


@pytest.mark.parametrize("name", [name for name in NAMES if "\n" not in name])
def test_lines_may_end_with_a_carriage_return_too(name: str) -> None:
    assert read_with(name, "\r\n") == read_with(name)


@pytest.mark.parametrize("name", [b"\xe8\xae\xad\xe7", b"|\xff\xfe|"])
def test_a_name_that_is_cut_in_a_character_is_a_name(name: bytes) -> None:
    # The tool's output is decoded so, and pads by bytes.
    shown = name.ljust(15).decode(errors="replace")
    info = parse_info(TABLE.replace(PLACE, shown))
    assert [one.pid for one in info.processes] == [17, 18, 19]
    assert info.problems == ()


def test_a_name_that_cannot_be_put_together_takes_its_card_alone() -> None:
    # How many bytes the name has had is lost with the one that is no character.
    shown = b"a\xff\n|1 0|9|".ljust(15).decode(errors="replace")
    info = parse_info(TABLE.replace(PLACE, shown))
    assert info.processes == (Process(1, 0, 19, 20000 * MIB),)
    assert info.counted_npus == {1, 2}
    (problem,) = info.problems
    assert "process table: a row is not known: '| 0     0      | 17" in problem
    assert problem.endswith(" (and 1 more)")


def test_a_row_whose_separators_stand_elsewhere_is_not_read() -> None:
    forged = "| 1 0 | 4242 | python | 1 |"
    info = parse_info(TABLE.replace("| 1     0", f"{forged}\n| 1     0"))
    assert info.processes == (Process(0, 0, 17, 37670 * MIB), Process(0, 0, 18, 5 * MIB))
    assert info.counted_npus == {0, 2}
    (problem,) = info.problems
    assert "a row is not known: '| 1 0 | 4242 |" in problem


def test_a_whole_row_that_a_long_value_shifts_is_read() -> None:
    text = TABLE.replace("| 18 ", "| 18" + " " * 12)
    assert parse_info(text) == parse_info(TABLE)
    # With a name that shifts the cells too it is not known what is what.
    named = parse_info(text.replace("python3", "py|thon"))
    assert (named.counted_npus, len(named.problems)) == (frozenset({1, 2}), 1)


def test_a_table_of_any_width_is_split_at_its_own_separators() -> None:
    text = (FIXTURES / "info-910c-26.0.txt").read_text()
    named = text.replace("python3.11", "a|b\n|1 c|d")
    assert parse_info(named) == parse_info(text)


LIST = f"""\tNPU ID                         : 7
\tChip Count                     : 1

\tProcess id:17     Process name:{PLACE}  Process memory(MB):1201
\tProcess id:18     Process name:python3          Process memory(MB):5
\tChip ID                        : 0
"""


@pytest.mark.parametrize(
    "name",
    [*NAMES, "\nChip ID    : 3", "\n Process id:1", "Process memory(", "\tChip ID : 0\n"],
)
def test_no_name_in_the_list_hides_a_process_or_makes_up_another(name: str) -> None:
    (told,) = read_process_memory(LIST.replace(PLACE, pad(name))).items()
    chip, found = told
    assert chip == 0
    assert found.processes == (DeviceProcess(17, 1201 * MIB), DeviceProcess(18, 5 * MIB))


def test_two_lines_of_processes_of_which_one_is_torn_are_not_one_process() -> None:
    with pytest.raises(Damaged, match="a line is not known"):
        read_process_memory(LIST.replace("  Process memory(MB):1201", ""))


def test_a_line_ends_with_a_line_feed_and_nothing_else() -> None:
    text = (FIXTURES / "mapping-310p-duo.txt").read_text()
    assert parse_mapping(text.replace("Ascend 310P3", "Ascend\x0b310P3\x85")) == parse_mapping(
        text
    )
