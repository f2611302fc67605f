"""`npu-smi info`: columns by the header, no reading no value, damage is said, not guessed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sentinel_exporters.npu.reading import Usage
from sentinel_exporters.npu_smi.errors import NpuSmiError
from sentinel_exporters.npu_smi.info import Chip, parse_info
from sentinel_exporters.npu_smi.processes import Process
from tests.exporters.npu_tables import Row, Table, none_running

FIXTURES = Path(__file__).parent / "fixtures" / "npu"
MIB = 2**20

TWO = Table([Row("0", "0", bus="0000:C1:00.0"), Row("1", "0", bus="0000:C2:00.0")])


def one(**cells: str) -> Table:
    return Table([replace(Row("0", "0"), **cells)])


def only_chip(table: Table) -> Chip:
    info = parse_info(table.text())
    assert info.problems == ()
    (chip,) = info.chips
    return chip


def only_problem(text: str) -> str:
    (problem,) = parse_info(text).problems
    return problem


def test_a_21_table_has_no_huge_pages_and_no_device_column() -> None:
    info = parse_info((FIXTURES / "info-910a-21.0.txt").read_text())
    assert info.problems == ()
    assert info.chips == (
        Chip(
            position=0, npu_id=2, chip_id=0, device_id=None, name="910A", health="OK",
            bus_id="0000:61:00.0", power_watts=71.4, temperature_celsius=52, aicore_percent=88,
            ddr=Usage(2044 * MIB, 15038 * MIB), hbm=Usage(31744 * MIB, 32768 * MIB),
        ),
        Chip(
            position=1, npu_id=6, chip_id=0, device_id=None, name="910A", health="Alarm",
            bus_id="0000:62:00.0", power_watts=64.0, temperature_celsius=47, aicore_percent=0,
            ddr=Usage(1811 * MIB, 15038 * MIB), hbm=Usage(0, 32768 * MIB),
        ),
    )  # fmt: skip
    assert (info.processes, info.counted_npus) == ((), frozenset())


def test_a_310p_table_has_devices_no_hbm_and_may_have_no_readings() -> None:
    text = (FIXTURES / "info-310p-duo-23.0.txt").read_bytes().decode()
    assert "\r\n" in text
    info = parse_info(text)
    assert info.problems == ()
    assert info.chips[2] == Chip(
        position=2, npu_id=32768, chip_id=0, device_id=2, name="310P3", health="Warning",
        bus_id="0000:86:00.0", has_device_column=True, is_bus_shared=True,
        temperature_celsius=61, aicore_percent=100,
        ddr=Usage(43690 * MIB, 43693 * MIB),
    )  # fmt: skip
    assert info.chips[3] == Chip(
        position=3, npu_id=32768, chip_id=1, device_id=3, name="310P3", health="UNKNOWN",
        bus_id="0000:86:00.0", has_device_column=True, is_bus_shared=True,
    )  # fmt: skip


def test_a_26_table_has_two_chips_on_a_card_and_one_column_more_for_processes() -> None:
    info = parse_info((FIXTURES / "info-910c-26.0.txt").read_text())
    assert info.problems == ()
    assert [(chip.npu_id, chip.chip_id, chip.device_id) for chip in info.chips] == [
        (0, 0, 0), (0, 1, 1), (1, 0, 2), (1, 1, 3),
    ]  # fmt: skip
    assert [chip.power_watts for chip in info.chips] == [171.5, None, 168.2, None]
    assert info.processes == (
        Process(0, 0, 412001, 30120 * MIB),
        Process(0, 0, 412055, 27003 * MIB),
        Process(1, 1, 399120, 27510 * MIB),
    )
    assert info.counted_npus == {0, 1}


def test_the_tools_and_the_drivers_versions_may_differ() -> None:
    info = parse_info(replace(TWO, version="23.0.rc1.b070", driver="22.0.4").text())
    assert (info.tool_version, info.driver_version) == ("23.0.rc1.b070", "22.0.4")


@pytest.mark.parametrize("word", ["NA", "-", "N/A"])
def test_a_word_for_no_reading_is_no_reading(word: str) -> None:
    chip = only_chip(one(power=word, temp=word, aicore=word, bus=word))
    assert chip.power_watts is None
    assert chip.temperature_celsius is None
    assert chip.aicore_percent is None
    assert chip.bus_id is None
    assert chip.hbm is not None


@pytest.mark.parametrize("usage", ["NA", "-", "NA / NA", "- / -", "12 / NA", "0 / 0"])
def test_a_memory_without_a_total_is_no_memory(usage: str) -> None:
    assert only_chip(one(hbm=usage)).hbm is None


def test_a_frozen_chip_may_be_below_zero() -> None:
    assert only_chip(one(temp="-12")).temperature_celsius == -12


@pytest.mark.parametrize(
    "usage", ["30750/ 32768", "30750 /32768", "30750/32768", "30750  /  32768"]
)
def test_a_usage_may_have_any_spaces(usage: str) -> None:
    assert only_chip(one(hbm=usage)).hbm == Usage(30750 * MIB, 32768 * MIB)


def test_a_long_word_that_shifts_the_columns_changes_nothing() -> None:
    text = one(health="OK").text().replace(" OK   ", " Warning       ")
    info = parse_info(text)
    assert info.problems == ()
    assert info.chips[0].health == "Warning"
    assert info.chips[0].power_watts == 95.2


def test_log_lines_before_and_between_the_rows_are_not_read() -> None:
    lines = TWO.text().splitlines()
    noisy = ["[ERROR] drv: 7 / 9"]
    for line in lines:
        noisy += [line, "...", "DrvMngGetConsoleLogLevel failed. (ret=4)", ""]
    assert parse_info("\n".join(noisy)) == parse_info(TWO.text())


def test_unknown_columns_in_the_header_are_passed_over() -> None:
    text = one().text().replace("Temp(C) ", "Temp(C)  Fan(%)").replace("41 ", "41  77 ")
    chip = parse_info(text).chips[0]
    assert (chip.temperature_celsius, chip.power_watts) == (41, 95.2)


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ({"bus": "0000:C1:00"}, "not a bus id"),
        ({"bus": ""}, "no bus-id"),
        ({"health": ""}, "no health"),
        ({"npu": "zero"}, "'zero' is not a whole number"),
        ({"name": ""}, "1 values under 2 columns"),
        ({"health": "O|K"}, "not two whole rows"),
    ],
)
def test_a_chip_that_cannot_be_told_is_left_out_and_named_with_the_tools_version(
    cells: dict[str, str], reason: str
) -> None:
    bad = replace(Row("0", "0"), **cells)
    good = Row("1", "0", bus="0000:C2:00.0")
    info = parse_info(Table([bad, good]).text())
    assert [chip.npu_id for chip in info.chips] == [1]
    assert info.chips[0].position == 1
    (problem,) = info.problems
    assert problem.startswith("npu-smi 24.1.rc2: chip 0 [")
    assert reason in problem


@pytest.mark.parametrize(
    ("cells", "lost", "reason"),
    [
        ({"power": "95..2"}, "power", "power: '95..2' is not a reading"),
        ({"power": "-0.1"}, "power", "power: '-0.1' is not a reading"),
        ({"power": "N.A"}, "power", "power: 'N.A' is not a reading"),
        ({"power": "null"}, "power", "power: 'null' is not a reading"),
        ({"aicore": "101"}, "aicore", "aicore: '101' is not a reading"),
        ({"aicore": "٣"}, "aicore", "aicore: '٣' is not a reading"),
        ({"temp": "41C"}, "temp", "temp: '41C' is not a reading"),
        ({"hugepages": "5 / 4"}, "hugepages", "hugepages-usage: '5 / 4' uses more than"),
        ({"ddr": "3 / 0"}, "ddr", "memory-usage: '3 / 0' uses more than there is"),
        ({"hbm": "65537 / 65536"}, "hbm", "hbm-usage: '65537 / 65536' uses more than there"),
        ({"hbm": "12"}, "hbm", "hbm-usage: '12' is not a usage"),
        # A cell of which it is not known what is what.
        ({"temp": "41 7"}, "power temp hugepages", "temp, hugepages-usage: 4 values under 3"),
        ({"temp": ""}, "power temp hugepages", "power, temp, hugepages-usage: 2 values under"),
        ({"hbm": "1 / 2 / 3"}, "aicore ddr hbm", "hbm-usage: 5 values under 3 columns"),
    ],
)
def test_a_damaged_reading_costs_that_alone_and_is_named(
    cells: dict[str, str], lost: str, reason: str
) -> None:
    whole = Row("0", "0", hugepages="1 / 4", ddr="2 / 8", hbm="3 / 9")
    info = parse_info(Table([replace(whole, **cells)]).text())
    (expected,) = Table([whole]).chips()
    fields = {
        "power": "power_watts", "temp": "temperature_celsius", "aicore": "aicore_percent",
        "ddr": "ddr", "hbm": "hbm", "hugepages": "hugepages",
    }  # fmt: skip
    (chip,) = info.chips
    gone = dict.fromkeys(fields[name] for name in lost.split())
    assert vars(chip) == {**vars(expected), **gone, "damaged": chip.damaged}
    assert len(chip.damaged) == len(gone)
    (problem,) = info.problems
    assert problem.startswith("npu-smi 24.1.rc2: chip 0 [")
    assert reason in problem


@pytest.mark.parametrize(
    ("old", "new"), [("Power(W)", "Power(kW)"), ("HBM-Usage(MB)", "HBM-Usage(TB)")]
)
def test_a_unit_that_is_not_known_is_not_guessed(old: str, new: str) -> None:
    info = parse_info(TWO.text().replace(old, new))
    assert [None in (chip.power_watts, chip.hbm) for chip in info.chips] == [True, True]
    assert len(info.problems) == 2
    assert all("unit" in problem for problem in info.problems)


def test_a_unit_that_is_known_is_converted() -> None:
    text = one(hbm="3 / 64").text().replace("HBM-Usage(MB)", "HBM-Usage(GB)")
    assert parse_info(text).chips[0].hbm == Usage(3 * 2**30, 64 * 2**30)


def test_a_chip_that_is_there_twice_is_said() -> None:
    assert "there already" in only_problem(Table([Row("0", "0"), Row("0", "0")]).text())


def test_a_table_that_ends_in_its_middle_is_said() -> None:
    lines = TWO.text().splitlines()
    cut = parse_info("\n".join(lines[:-1]))
    assert len(cut.chips) == 2
    assert "ends in its middle" in cut.problems[0]
    halved = parse_info("\n".join(lines[:-2]))
    assert [chip.npu_id for chip in halved.chips] == [0]
    assert len(halved.problems) == 2


def test_a_table_without_chips_is_said() -> None:
    header = TWO.text().splitlines()[:6]
    assert only_problem("\n".join(header)) == "npu-smi 24.1.rc2: the table lists no chip"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no output"),
        ("\n\n", "no output"),
        ("sh: npu-smi: not found", "no table in the output: sh: npu-smi: not found"),
        (
            "DrvMngGetConsoleLogLevel failed. (ret=4)\n"
            "dcmi module initialize failed. ret is -8005\n",
            "HwHiAiUser (DCMI -8005)",
        ),
        (
            "dcmi model initialized failed, because the device is used. ret is -8020\n",
            "another container (DCMI -8020)",
        ),
        ("dcmi module initialize failed. ret is -8255", "(DCMI -8255)"),
    ],
)
def test_an_output_without_a_table_is_an_error_with_its_reason(text: str, reason: str) -> None:
    with pytest.raises(NpuSmiError) as refused:
        parse_info(text)
    assert reason in str(refused.value)


def test_a_table_of_a_form_that_is_not_known_is_an_error_with_the_version() -> None:
    text = TWO.text().replace("| NPU    Name", "| Card   Name")
    with pytest.raises(NpuSmiError, match=r"npu-smi 24\.1\.rc2: no chip table"):
        parse_info(text)


def with_processes(*rows: list[str], **more: object) -> Table:
    return replace(TWO, processes=rows, **more)  # type: ignore[arg-type]  # any of its fields


def test_a_card_without_processes_is_counted_and_one_not_spoken_of_is_not() -> None:
    info = parse_info(with_processes(none_running("0")).text())
    assert info.processes == ()
    assert info.counted_npus == {0}


def test_a_process_may_have_no_name_and_no_memory() -> None:
    info = parse_info(with_processes(["0     0", "17", "", "NA"], none_running("1")).text())
    assert info.processes == (Process(0, 0, 17, None),)
    assert info.counted_npus == {0, 1}


def test_a_process_may_be_known_by_its_card_alone() -> None:
    columns = ("NPU", "Process id", "Process name", "Process memory(MB)")
    table = with_processes(["1", "17", "python", "300"], process_columns=columns)
    assert parse_info(table.text()).processes == (Process(1, None, 17, 300 * MIB),)


def test_memory_of_processes_may_be_in_bytes() -> None:
    columns = ("NPU     Chip", "Process id", "Process name", "Process memory(B)")
    table = with_processes(["1     0", "17", "python", "300"], process_columns=columns)
    assert parse_info(table.text()).processes == (Process(1, 0, 17, 300),)


@pytest.mark.parametrize(
    "row",
    [
        ["0     0", "seventeen", "python", "300"],
        ["0     0", "1|7", "python", "300"],
        ["0 0 0", "17", "python", "300"],
        ["0     0", "17", "python", "300 MB"],
        ["0     0", "17", "python", "3|0"],
    ],
)
def test_a_damaged_row_takes_its_card_from_the_process_table_and_no_other(
    row: list[str],
) -> None:
    others = ["0     0", "18", "python", "300"], ["1     0", "19", "python", "300"]
    info = parse_info(with_processes(others[0], row, others[1]).text())
    assert len(info.chips) == 2
    # Half a list would call a chip idle that is not.
    assert info.processes == (Process(1, 0, 19, 300 * MIB),)
    assert info.counted_npus == {1}
    (problem,) = info.problems
    assert problem.startswith("npu-smi 24.1.rc2: process table: a row is not known: '| 0 ")


@pytest.mark.parametrize("row", [["", "17", "python", "300"], ["All is well in NPU 0"]])
def test_a_process_table_with_a_row_of_an_unknown_card_is_left_out(row: list[str]) -> None:
    info = parse_info(with_processes(row, none_running("1")).text())
    assert len(info.chips) == 2
    assert (info.processes, info.counted_npus) == ((), frozenset())
    (problem,) = info.problems
    assert problem.startswith("npu-smi 24.1.rc2: process table: ")


def test_a_process_table_that_ends_in_its_middle_is_left_out() -> None:
    text = with_processes(none_running("0"), ["1     0", "17", "python", "300"]).text()
    last_row = text.index("| 1     0")
    end_of_row = text.index("\n", last_row)
    for end in (last_row + 1, last_row + 20, end_of_row - 1, end_of_row):
        info = parse_info(text[:end])
        assert len(info.chips) == 2
        assert info.counted_npus == frozenset()
        assert len(info.problems) == 1
