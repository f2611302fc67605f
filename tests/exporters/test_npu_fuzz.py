"""The parsers against made-up tables: any width, torn anywhere, with noise between the lines.

Whatever comes in, they raise nothing but their own error, and tell no value that is not there.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from sentinel_exporters.catalog import load_collector
from sentinel_exporters.collectors.npu import parse
from sentinel_exporters.npu_smi.errors import NpuSmiError
from sentinel_exporters.npu_smi.info import Info, parse_info
from sentinel_exporters.npu_smi.mapping import parse_mapping
from sentinel_exporters.runner import check_scrape
from tests.exporters.npu_series import make_reading
from tests.exporters.npu_tables import Row, Table, mapping, none_running

# Making a table takes some time; the suite runs on small machines.
few = settings(max_examples=40, deadline=None)
no_reading = st.sampled_from(["NA", "-", "N/A"])
whole = st.integers(0, 10**6).map(str)


def usages(total: int) -> st.SearchStrategy[str]:
    return st.tuples(st.integers(0, total), st.sampled_from(["/", " / ", "/ ", "    / "])).map(
        lambda parts: f"{parts[0]}{parts[1]}{total}"
    )


@st.composite
def rows(draw: st.DrawFn) -> Row:
    """A chip; its place is set by tables()."""
    return Row(
        npu="0",
        chip="0",
        name=draw(st.sampled_from(["910B3", "310P3", "Ascend910", "xxx"])),
        health=draw(st.sampled_from(["OK", "Warning", "Alarm", "UNKNOWN"])),
        bus=draw(st.from_regex(r"\A[0-9A-F]{4}:[0-9A-F]{2}:[0-9A-F]{2}\.[0-7]\Z") | no_reading),
        power=draw(st.decimals(0, 999, places=1).map(str) | no_reading),
        temp=draw(st.integers(-40, 120).map(str) | no_reading),
        aicore=draw(st.integers(0, 100).map(str) | no_reading),
        ddr=draw(usages(15137) | no_reading),
        hbm=draw(usages(65536) | no_reading),
        hugepages=draw(usages(1123) | no_reading),
    )


@st.composite
def tables(draw: st.DrawFn) -> Table:
    """A whole table of up to four cards with one chip or two."""
    per_card = draw(st.integers(1, 2))
    cards = draw(st.lists(st.integers(0, 40000), min_size=1, max_size=4, unique=True))
    places = [(card, chip) for card in cards for chip in range(per_card)]
    chips = [
        replace(draw(rows()), npu=str(card), chip=str(chip), device=str(number))
        for number, (card, chip) in enumerate(places)
    ]
    processes: list[list[str]] | None = None
    if draw(st.booleans()):
        processes = []
        for card in cards:
            found = draw(
                st.lists(st.tuples(st.integers(0, per_card - 1), whole, whole), max_size=3)
            )
            processes += [
                [f"{card}     {chip}", pid, draw(st.sampled_from(["", "python3.11"])), memory]
                for chip, pid, memory in found
            ] or [none_running(str(card))]
    return Table(
        chips,
        processes,
        device_column=draw(st.sampled_from(["", "Device", "Phy-ID"])),
        has_hugepages=draw(st.booleans()),
        has_hbm=draw(st.booleans()),
        padding=draw(st.tuples(*[st.integers(0, 30)] * 3)),
        gap=draw(st.integers(1, 12)),
    )


def numbers(text: str) -> set[float]:
    return {float(word) for word in re.findall(r"-?\d+(?:\.\d+)?", text)} | {
        float(word) for word in re.findall(r"\d+(?:\.\d+)?", text)
    }


def told(info: Info) -> set[float]:
    """All numbers that the parser tells, in the table's own units."""
    values: set[float] = set()
    for chip in info.chips:
        values |= {float(chip.npu_id), float(chip.chip_id)}
        known = (chip.power_watts, chip.temperature_celsius, chip.aicore_percent)
        values |= {value for value in known if value is not None}
        for usage in (chip.ddr, chip.hbm):
            values |= {usage.used / 2**20, usage.total / 2**20} if usage else set()
    for process in info.processes:
        values |= {float(process.npu_id), float(process.pid or 0)}
        values |= {process.memory_bytes / 2**20} if process.memory_bytes is not None else set()
    return values


def assert_honest(damaged: Info, whole_table: Info) -> None:
    """What is left of a table says what the whole said, or that something is wrong."""
    chips = {(chip.npu_id, chip.chip_id): chip for chip in whole_table.chips}
    for chip in damaged.chips:
        original = chips[chip.npu_id, chip.chip_id]
        # Neither is said of the chip itself.
        known = replace(chip, position=original.position, is_bus_shared=original.is_bus_shared)
        assert known == original
    for npu in damaged.counted_npus:
        of_card = [process for process in damaged.processes if process.npu_id == npu]
        assert of_card == [one for one in whole_table.processes if one.npu_id == npu]


@few
@given(tables())
def test_a_whole_table_of_any_width_is_read_whole(table: Table) -> None:
    info = parse_info(table.text())
    assert info.problems == ()
    assert len(info.chips) == len(table.rows)
    for chip, row in zip(info.chips, table.rows, strict=True):
        assert (str(chip.npu_id), str(chip.chip_id)) == (row.npu, row.chip)
        assert (chip.power_watts is None) == (row.power in {"NA", "-", "N/A"})
        assert chip.device_id == (int(row.device) if table.device_column else None)
    running = [row for row in table.processes or () if len(row) > 1]
    assert [str(process.pid) for process in info.processes] == [row[1] for row in running]
    assert told(info) <= numbers(table.text())


@few
@given(tables(), st.integers(0, 100), st.integers(0, 100))
def test_the_width_of_the_table_does_not_change_what_it_says(
    table: Table, padding: int, gap: int
) -> None:
    other = replace(table, padding=(padding, 0, 7), gap=1 + gap)
    assert parse_info(other.text()) == parse_info(table.text())


@few
@given(tables(), st.data())
def test_a_torn_table_says_nothing_that_the_whole_does_not(
    table: Table, data: st.DataObject
) -> None:
    text = table.text()
    end = data.draw(st.integers(0, len(text)))
    with contextlib.suppress(NpuSmiError):
        assert_honest(parse_info(text[:end]), parse_info(text))


def test_a_table_torn_at_any_place_says_nothing_that_the_whole_does_not() -> None:
    table = Table(
        [
            Row("0", "0", "0"),
            Row("0", "1", "1", power="-"),
            Row("7", "0", "2", hbm="123 / 4567"),
        ],
        [["0     0", "812", "python", "1234"], ["0     1", "77", "", "56"], none_running("7")],
        device_column="Phy-ID",
    )
    text = table.text()
    expected = parse_info(text)
    for end in range(len(text)):
        with contextlib.suppress(NpuSmiError):
            assert_honest(parse_info(text[:end]), expected)


log_lines = st.text(st.characters(exclude_characters="|+", exclude_categories=["Cs"]))


@few
@given(tables(), st.lists(st.tuples(st.floats(0, 1), log_lines), max_size=5))
def test_noise_between_the_lines_changes_nothing(
    table: Table, noise: list[tuple[float, str]]
) -> None:
    lines = table.text().splitlines()
    for place, line in noise:
        lines.insert(round(place * len(lines)), line)
    assert parse_info("\r\n".join(lines)).chips == parse_info(table.text()).chips


@few
@given(tables(), st.data())
def test_a_table_with_any_one_character_changed_tells_no_other_number(
    table: Table, data: st.DataObject
) -> None:
    text = table.text()
    at = data.draw(st.integers(0, len(text) - 1))
    changed = text[:at] + data.draw(st.sampled_from("|+-=/ .NA\n\x00é9")) + text[at + 1 :]
    with contextlib.suppress(NpuSmiError):
        assert told(parse_info(changed)) <= numbers(changed) | {0.0}


WORDS = (
    "|", "+", "-", "=", " ", "/", "\n", "NPU", "Name", "Chip", "Bus-Id", "Health", "Power(W)",
    "HBM-Usage(MB)", "npu-smi 1 Version: 1", "0", "910B", "Process id", "NPU ID", "Chip ID",
    "Chip Logic ID", "\t", "  ",
)  # fmt: skip


@given(
    st.text()
    | st.binary().map(lambda raw: raw.decode(errors="replace"))
    | st.lists(st.sampled_from(WORDS), max_size=80).map("".join)
)
def test_any_text_is_read_or_refused(text: str) -> None:
    for parser in (parse_info, parse_mapping):
        with contextlib.suppress(NpuSmiError):
            parser(text)


@few
@given(
    tables(),
    st.dictionaries(st.tuples(st.integers(0, 9), st.integers(0, 2)), st.integers(0, 99))
    | st.none(),
)
def test_every_table_makes_a_page_that_prometheus_takes(
    table: Table, places: dict[tuple[int, int], int] | None
) -> None:
    scrape = parse(make_reading(parse_info(table.text()), places))
    check_scrape(load_collector("npu"), scrape)


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3)), unique=True, max_size=8),
    st.data(),
)
def test_a_torn_mapping_gives_no_other_logic_id(
    places: list[tuple[int, int]], data: st.DataObject
) -> None:
    text = mapping([(npu, chip, number) for number, (npu, chip) in enumerate(places)])
    expected = parse_mapping(text)
    assert expected == {place: number for number, place in enumerate(places)}
    with contextlib.suppress(NpuSmiError):
        torn = parse_mapping(text[: data.draw(st.integers(0, len(text)))])
        assert torn is None or torn.items() <= expected.items()
