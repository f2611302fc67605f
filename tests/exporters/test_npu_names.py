"""What names a chip: logic ids and uuids, from `npu-smi info`, its mapping, or neither."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sentinel_exporters.npu_smi.errors import NpuSmiError
from sentinel_exporters.npu_smi.identity import find_shared, name_chips
from sentinel_exporters.npu_smi.info import parse_info
from sentinel_exporters.npu_smi.mapping import parse_mapping, parse_physical_ids
from tests.exporters.npu_series import Places, scrape, series
from tests.exporters.npu_tables import Row, Table, mapping

FIXTURES = Path(__file__).parent / "fixtures" / "npu"


def named(table: Table, places: Places | None) -> list[tuple[int, str]]:
    chips, _ = name_chips(parse_info(table.text()).chips, places)
    return [(chip.logic_id, chip.uuid) for chip in chips]


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


@pytest.mark.parametrize(
    ("devices", "listed", "physical_ids"),
    [
        # Told of each chip; of some; the same twice; of none though there is the column.
        ("2301", None, [2, 3, 0, 1]),
        ("23-1", None, [2, 3, None, 1]),
        ("2300", None, [2, 3, None, None]),
        ("----", None, [None] * 4),
        # The list of -m tells what the column does not, and what two chips have is neither's.
        ("23-1", "6745", [2, 3, 4, 1]),
        ("2300", "6745", [2, 3, 4, 5]),
        ("23-1", "6725", [None, 3, None, 1]),
        ("23-1", "67x5", [2, 3, None, 1]),
        ("23-1", "6715", [2, 3, None, None]),
        ("23-1", "6755", [2, 3, None, 1]),
        # Only the list has such a column, or neither.
        ("", "2301", [2, 3, 0, 1]),
        ("", "2-01", [2, None, 0, 1]),
        ("", None, [6, 7, 4, 5]),
    ],
)
def test_a_physical_id_is_the_chips_own_or_that_of_the_list_or_not_known(
    devices: str, listed: str | None, physical_ids: list[int | None]
) -> None:
    rows = [replace(row, device=devices[at : at + 1]) for at, row in enumerate(FOUR.rows)]
    table = replace(FOUR, rows=rows, device_column="Phy-ID" if devices else "")
    told = list_physical_ids(listed)
    chips, problems = name_chips(parse_info(table.text()).chips, FOUR_PLACES, physical_ids=told)
    assert [chip.physical_id for chip in chips] == physical_ids
    assert [chip.logic_id for chip in chips] == [6, 7, 4, 5]
    assert problems == [
        f"npu card {chip.chip.npu_id} chip {chip.chip.chip_id}: its physical id is not known"
        for chip in chips
        if chip.physical_id is None
    ]


def list_physical_ids(ids: str | None) -> Places | None:
    """Read a mapping of FOUR with these ids; None: it has no such column."""
    if ids is None:
        return parse_physical_ids(mapping([(0, 0, 0)]))
    lines = ["NPU ID    Chip ID    Chip Logic ID    Chip Phy-ID    Chip Name"]
    lines += [
        f"{npu}    {chip}    {logic}    {number}    Ascend910"
        for ((npu, chip), logic), number in zip(FOUR_PLACES.items(), ids, strict=True)
    ]
    return parse_physical_ids("\n".join(lines))


def test_a_controller_has_no_physical_id() -> None:
    text = (FIXTURES / "mapping-910c.txt").read_text()
    assert parse_physical_ids(text) == {(0, 0): 0, (0, 1): 1, (1, 0): 2, (1, 1): 3}
    assert parse_physical_ids((FIXTURES / "mapping-310p-duo.txt").read_text()) is None


@pytest.mark.parametrize(
    ("nodes", "physical_ids"),
    [
        # None to compare with; all; more; one at the end; one in the middle; one at the start.
        ("", [0, 1, 2]),
        ("012", [0, 1, 2]),
        ("0127", [0, 1, 2]),
        ("013", [0, 1, None]),
        ("023", [0, None, None]),
        ("123", [None, None, None]),
    ],
)
def test_a_logic_id_stands_for_the_physical_one_up_to_a_gap_in_the_nodes(
    nodes: str, physical_ids: list[int | None]
) -> None:
    table = Table([Row(npu, "0", bus=f"0000:{npu}1:00.0") for npu in "013"])
    chips, problems = name_chips(
        table.chips(), {(0, 0): 0, (1, 0): 1, (3, 0): 2}, nodes={int(one) for one in nodes}
    )
    assert [chip.physical_id for chip in chips] == physical_ids
    assert len(problems) == physical_ids.count(None)
    assert all("chip 0: its physical id is not known" in problem for problem in problems)


def test_a_damaged_chip_keeps_its_place_in_the_order() -> None:
    rows = list(FOUR.rows)
    rows[1] = replace(rows[1], health="")
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


def test_a_damaged_chip_does_not_change_the_uuid_of_its_neighbour() -> None:
    rows = [Row("4", "0"), Row("4", "1", health=""), Row("5", "0", bus="0000:C2:00.0")]
    uuids = [uuid for _, uuid in named(Table(rows), {(4, 0): 0, (4, 1): 1, (5, 0): 2})]
    assert uuids == ["npu-0000:C1:00.0-0", "npu-0000:C2:00.0"]


DUO = Table(
    [
        Row("6", "0", name="310P3", bus="0000:3B:00.0"),
        Row("6", "1", name="310P3", bus="0000:3B:00.0"),
        Row("8", "0", name="310P3", bus="0000:86:00.0"),
    ]
)
DUO_PLACES = {(6, 0): 0, (6, 1): 1, (8, 0): 2}


def test_a_chip_whose_neighbour_is_not_shown_keeps_its_uuid_by_the_mapping() -> None:
    whole = named(DUO, DUO_PLACES)
    assert [uuid for _, uuid in whole] == [
        "npu-0000:3B:00.0-0", "npu-0000:3B:00.0-1", "npu-0000:86:00.0",
    ]  # fmt: skip
    for gone in (0, 1):
        rows = [row for at, row in enumerate(DUO.rows) if at != gone]
        left = [pair for at, pair in enumerate(whole) if at != gone]
        assert named(replace(DUO, rows=rows), DUO_PLACES) == left


@pytest.mark.parametrize("name", ["310P3", "Ascend910"])
def test_chips_with_bus_ids_of_their_own_never_have_the_chip_in_the_uuid(name: str) -> None:
    rows = [
        Row("6", "0", name=name, bus="0000:3B:00.0"),
        Row("6", "1", name=name, bus="0000:3C:00.0"),
    ]
    places = {(6, 0): 0, (6, 1): 1}
    whole = Table(rows).chips()
    known = find_shared(whole, places, {})
    for chips in (whole, whole[:1], whole[1:]):
        found, _ = name_chips(chips, places, shared=find_shared(chips, places, known))
        assert [one.uuid for one in found] == [f"npu-{chip.bus_id}" for chip in chips]


def test_a_910c_chip_alone_on_its_card_does_not_share() -> None:
    table = Table([Row("6", "0", name="Ascend910", bus="0000:3B:00.0")])
    assert named(table, {(6, 0): 0, (6, 1): 1}) == [(0, "npu-0000:3B:00.0")]


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
    with pytest.raises(NpuSmiError, match=r"info -m: "):
        parse_mapping(text)


def test_a_mapping_without_logic_ids_is_none() -> None:
    text = "NPU ID    Slot ID    Chip ID    Chip Name\n0         3          0          950PR\n"
    assert parse_mapping(text) is None


def test_controllers_and_log_lines_are_not_in_the_mapping() -> None:
    text = "[WARN] 0 0 7\n" + mapping([(0, 0, 3), (0, 1, "-"), (2, 0, 5)])
    assert parse_mapping(text) == {(0, 0): 3, (2, 0): 5}
