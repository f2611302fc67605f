"""What is asked of single cards: how often, in what order, and what becomes of a failure."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from sentinel_exporters.npu.reading import Details
from sentinel_exporters.npu_smi.errors import NpuSmiError
from sentinel_exporters.npu_smi.interview import Interview
from sentinel_exporters.npu_smi.questions import Question
from sentinel_exporters.npu_smi.source import NpuSmi
from sentinel_exporters.owners import find_owners
from tests.exporters.npu_machine import Machine, copy_310p_duo, read
from tests.exporters.npu_tables import Row, Table, mapping
from tests.lab.wait import wait_for

MIB = 2**20


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Two cards of which the tool tells everything."""
    found = Machine(tmp_path)
    found.show_cards([0, 5])
    found.copy_details(0)
    found.copy_details(5)
    return found


OF_A_CARD = ("usages", "common", "memory", "ecc", "volt")
OF_A_CHIP = ("info-vnpu", "board")


def questions(*cards: int) -> list[str]:
    return sorted(
        [f"{kind} -i {card}" for card in cards for kind in OF_A_CARD]
        + [f"{kind} -i {card} -c 0" for card in cards for kind in OF_A_CHIP]
    )


def test_each_card_is_asked_once_and_then_the_table_alone(machine: Machine) -> None:
    source = machine.source()
    assert read(source).problems == ()
    assert sorted(machine.asked()) == sorted(["info", "-m", *questions(0, 5)])
    reading = read(source)
    assert machine.asked() == ["info"]
    # What was told stays.
    for chip in reading.chips:
        assert chip.details.engines is not None
        assert (chip.details.engines["cube"], chip.details.memory_celsius) == (55, 48)
        assert chip.details.board is not None


def test_without_an_interval_no_card_is_asked(machine: Machine) -> None:
    source = machine.source(detail_interval_s=0)
    assert read(source).chips[0].details == Details()
    assert machine.asked() == ["info", "-m"]


def test_the_list_of_devices_asks_no_card(machine: Machine) -> None:
    machine.source().read(with_details=False)
    assert machine.asked() == ["info", "-m"]


def test_an_answer_is_renewed_after_its_interval_and_a_static_one_is_not(
    machine: Machine,
) -> None:
    source = machine.source(detail_interval_s=1e-4)
    read(source)
    machine.asked()
    read(source)
    again = machine.asked()
    assert {"usages -i 0", "ecc -i 0", "info-vnpu -i 0 -c 0"} <= set(again)
    assert not {"-m", "board -i 0 -c 0"} & set(again)


def test_what_a_device_does_not_support_is_asked_once_and_no_problem(machine: Machine) -> None:
    for kind in ("volt", "ecc"):
        (machine.folder / f"{kind}-5.txt").unlink()
    source = machine.source(detail_interval_s=1e-4)
    first, _ = read(source), machine.asked()
    second = read(source)
    assert not {"volt -i 5", "ecc -i 5"} & set(machine.asked())
    assert first.problems == second.problems == ()
    assert second.chips[1].details.voltage_volts is None
    assert second.chips[0].details.voltage_volts == 0.87


def test_another_driver_or_another_card_at_a_place_makes_all_be_asked_again(
    machine: Machine,
) -> None:
    source = machine.source()
    read(source)
    machine.asked()
    machine.show_cards([0, 5], driver="2")
    read(source)
    assert sorted(machine.asked()) == sorted(["info", "-m", *questions(0, 5)])
    text = (machine.folder / "info.txt").read_text()
    machine.show("info", text.replace("0000:05:00.0", "0000:C5:00.0"))
    read(source)
    assert sorted(machine.asked()) == sorted(["info", "-m", *questions(0, 5)])


def test_a_card_that_comes_or_goes_takes_nothing_of_the_others_but_their_ids(
    machine: Machine,
) -> None:
    source = machine.source()
    read(source)
    machine.asked()
    machine.show_cards([5])
    (chip,) = read(source).chips
    assert (chip.logic_id, chip.details.memory_celsius) == (0, 48)
    assert machine.asked() == ["info", "-m"]
    machine.show_cards([0, 5])
    chips = read(source).chips
    assert [(chip.logic_id, chip.details.memory_celsius) for chip in chips] == [
        (0, 48),
        (1, 48),
    ]
    assert sorted(machine.asked()) == sorted(["info", "-m", *questions(0)])


def test_a_list_that_cannot_be_read_is_told_until_it_can(machine: Machine) -> None:
    for card in (0, 5):
        machine.copy(f"ecc-{card}", "ecc-910b", ": 17", ": many")
    source = machine.source(detail_interval_s=30)
    problem = (
        "npu-smi 24.1.rc2: ecc: card 0, card 5: hbm single bit aggregate total err cnt: "
        "'many' is not a reading in whole numbers"
    )
    for _ in range(2):
        reading = read(source)
        assert reading.problems == (problem,)
        assert reading.chips[0].details.hbm_ecc is None
        assert reading.chips[0].details.memory_celsius == 48
    assert machine.asked().count("ecc -i 0") == 1


def test_a_failure_drops_what_was_told_before(machine: Machine) -> None:
    source = machine.source(detail_interval_s=1e-4)
    assert read(source).chips[0].details.voltage_volts == 0.87
    (machine.folder / "volt-0.torn").write_text("90")
    reading = read(source)
    assert reading.chips[0].details.voltage_volts is None
    assert "volt: card 0: it ends in the middle of a line" in reading.problems[0]
    (machine.folder / "volt-0.torn").unlink()
    assert read(source).chips[0].details.voltage_volts == 0.87


def test_a_card_that_is_gone_behind_the_table_is_told(machine: Machine) -> None:
    machine.show("usages-5", "Invalid card id.\nError parameter of -i\nUsage: npu-smi info\n")
    reading = read(machine.source())
    assert reading.problems == (
        "npu-smi 24.1.rc2: usages: card 5: no table in the output: Invalid card id.",
    )


def test_a_card_that_hangs_takes_neither_the_table_nor_the_other_cards(
    machine: Machine,
) -> None:
    (machine.folder / "usages-0.hang").touch()
    source = machine.source(timeout_s=2)
    reading = read(source)
    assert [chip.temperature_celsius for chip in reading.chips] == [41, 41]
    assert "usages: card 0: no end after" in reading.problems[0]
    asked = machine.asked()
    assert "common -i 0" not in asked  # the card is left alone for this time
    while reading.chips[1].details.engines is None or reading.chips[0].details.aicores is None:
        reading = read(source)
    assert machine.asked().count("usages -i 0") == 0  # its interval has not passed
    assert len(reading.problems) == 1


def test_what_is_left_behind_by_a_wrapper_is_ended_too(machine: Machine) -> None:
    tool = machine.folder / "wrapper"
    tool.write_text(
        f"#!/bin/sh\nsh -c 'echo $$ > {machine.folder}/pid; exec sleep 60' &\nwait\n"
    )
    tool.chmod(0o755)
    source = NpuSmi(str(tool), timeout_s=0.5)
    with pytest.raises(NpuSmiError, match="no end after"):
        read(source)
    pid = int((machine.folder / "pid").read_text())
    stat = Path(f"/proc/{pid}/stat")
    deadline = time.monotonic() + 10
    while stat.exists() and stat.read_text().split()[2] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_faults_are_asked_only_of_a_chip_that_is_not_well(machine: Machine) -> None:
    machine.copy("health-0-0", "health-alarm")
    source = machine.source()
    assert read(source).chips[0].details.error_codes is None
    assert "health -i 0 -c 0" not in machine.asked()
    machine.show_cards([0, 5], health="Alarm")
    chips = read(source).chips
    assert "health -i 0 -c 0" in machine.asked()
    assert [chip.details.error_codes for chip in chips] == [("80E01801", "80CB8009"), None]
    machine.show_cards([0, 5])
    assert read(source).chips[0].details.error_codes is None


def test_a_template_is_asked_where_a_chip_is_split(machine: Machine) -> None:
    machine.copy("info-vnpu-5-0", "vnpu-910b-two")
    machine.copy("template-info-5", "template-910b")
    source = machine.source()
    read(source)
    machine.asked()
    reading = read(source)
    assert machine.asked() == ["info", "template-info -i 5"]
    assert reading.chips[1].details.templates is not None
    assert reading.chips[0].details.templates is None


def test_processes_are_asked_of_a_card_where_the_table_has_none(machine: Machine) -> None:
    rows = [Row("0", "0", bus="0000:00:00.0"), Row("5", "0", bus="0000:05:00.0")]
    machine.show("info", Table(rows).text())
    machine.show("mapping", mapping([(0, 0, 0), (5, 0, 1)]))
    own = os.getpid()
    machine.copy("proc-mem-0", "proc-mem-910a", ":3229001", f":{own}")
    reading = read(machine.source())
    assert [one.pid for one in reading.chips[0].processes or ()] == [own]
    assert reading.owners == find_owners([own])
    assert reading.chips[1].processes is None


def test_a_310p_has_its_cards_power_at_its_first_chip(machine: Machine) -> None:
    copy_310p_duo(machine)
    reading = read(machine.source())
    assert reading.problems == ()
    assert [chip.power_watts for chip in reading.chips] == [47.6, None, None, None]
    assert [chip.details.voltage_volts for chip in reading.chips] == [0.79, None, None, None]
    counts = [None if chip.processes is None else len(chip.processes) for chip in reading.chips]
    assert counts == [None, None, 2, 0]
    # Without HBM there is no other temperature to ask for.
    assert not [line for line in machine.asked() if line.startswith("memory")]


def test_a_310ps_chip_keeps_its_uuid_while_its_neighbour_is_gone_from_all_lists(
    machine: Machine,
) -> None:
    def show(chips: int, driver: str) -> None:
        rows = [Row("6", str(chip), name="310P3", bus="0000:3B:00.0") for chip in range(chips)]
        machine.show("info", Table(rows, driver=driver).text())
        machine.show("mapping", mapping([(6, chip, chip) for chip in range(chips)]))

    source = machine.source()
    for chips, driver in ((2, "1"), (1, "1"), (1, "2"), (2, "2")):
        show(chips, driver)
        uuids = [one.uuid for one in read(source).chips]
        assert uuids == ["npu-0000:3B:00.0-0", "npu-0000:3B:00.0-1"][:chips]
    # Who has never seen the other takes it for a card with one chip.
    show(1, "2")
    assert [one.uuid for one in read(machine.source()).chips] == ["npu-0000:3B:00.0"]


def test_the_network_is_asked_by_the_physical_id(machine: Machine) -> None:
    rows = [
        Row("0", "0", device="2", bus="0000:00:00.0"),
        Row("5", "0", device="3", bus="0000:05:00.0"),
    ]
    machine.show("info", Table(rows, device_column="Phy-ID").text())
    machine.show("network-2", "net health status: Success\n")
    machine.show("network-3", "net health status: Fault\n")
    machine.show(
        "bandwidth-2", "Bandwidth TX:   120.50 MB/sec\nBandwidth RX:     0.00 MB/sec\n"
    )
    machine.show(
        "bandwidth-3", "Bandwidth TX:     1.00 MB/sec\nBandwidth RX:     2.00 MB/sec\n"
    )
    reading = read(machine.source(has_network=True))
    assert [chip.logic_id for chip in reading.chips] == [0, 1]
    assert [chip.details.network for chip in reading.chips] == ["Success", "Fault"]
    rates = [
        (one.network_transmitted_bytes_per_s, one.network_received_bytes_per_s)
        for one in (chip.details for chip in reading.chips)
    ]
    assert rates == [(120.5e6, 0), (1e6, 2e6)]
    asked = {line for line in machine.asked() if line.startswith("hccn_tool")}
    assert asked == {
        f"hccn_tool -i {chip} -{what} -g"
        for chip in (2, 3)
        for what in ("net_health", "bandwidth")
    }


def test_the_network_of_a_chip_without_a_physical_id_is_not_asked(machine: Machine) -> None:
    rows = [
        Row("0", "0", device="-", bus="0000:00:00.0"),
        Row("5", "0", device="3", bus="0000:05:00.0"),
    ]
    machine.show("info", Table(rows, device_column="Phy-ID").text())
    for chip in range(4):
        machine.show(f"network-{chip}", "net health status: Success\n")
    reading = read(machine.source(has_network=True))
    assert [chip.details.network for chip in reading.chips] == [None, "Success"]
    asked = {line for line in machine.asked() if "net_health" in line}
    assert asked == {"hccn_tool -i 3 -net_health -g"}


def test_a_chip_without_a_network_is_no_problem_and_one_that_lost_it_is(
    machine: Machine,
) -> None:
    machine.show("network-1", "net health status: Init\n")
    source = machine.source(has_network=True, detail_interval_s=1e-4)
    assert read(source).problems == ()
    (machine.folder / "network-1.txt").unlink()
    reading = read(source)
    assert [chip.details.network for chip in reading.chips] == [None, None]
    assert reading.problems == (
        "npu-smi 24.1.rc2: net_health: card 5 chip 0: no table in the output: "
        "Cmd os net health get failed! (ret=-2)",
    )
    # The chips of another machine may never have had one.
    machine.show_cards([0, 5], driver="2")
    assert read(source).problems == ()


def test_a_tool_of_the_network_that_hangs_is_told(machine: Machine) -> None:
    (machine.folder / "network-0.hang").touch()
    machine.show("network-1", "net health status: Success\n")
    source = machine.source(has_network=True, timeout_s=2)
    # On a slow machine it is not asked at the first read.
    (problem,) = wait_for("the tool is asked", lambda: read(source).problems)
    assert "net_health: card 0 chip 0: no end after" in problem


def test_logic_ids_stay_while_the_tool_does_not_tell_them_anew(machine: Machine) -> None:
    machine.show("mapping", mapping([(0, 0, 3), (5, 0, 2)]))
    source = machine.source(mapping_s=0, detail_interval_s=0)
    assert [chip.logic_id for chip in read(source).chips] == [3, 2]
    (machine.folder / "mapping.txt").unlink()
    reading = read(source)
    assert [chip.logic_id for chip in reading.chips] == [3, 2]
    assert reading.has_logic_ids
    (problem,) = reading.problems
    assert problem.startswith("npu-smi 24.1.rc2: info -m: no permission")
    # Of another driver nothing is known.
    machine.show_cards([0, 5], driver="2")
    (machine.folder / "mapping.txt").unlink()
    reading = read(source)
    assert ([chip.logic_id for chip in reading.chips], reading.has_logic_ids) == ([0, 1], False)
    machine.show("mapping", mapping([(0, 0, 1), (5, 0, 0)]))
    assert [chip.logic_id for chip in read(source).chips] == [1, 0]


def make_question(number: int, every_s: float = 60) -> Question:
    return Question("volt", number, None, every_s, lambda _text: {None: Details(aicores=7)})


def test_what_one_read_has_no_time_for_is_asked_in_the_next() -> None:
    asked: list[int] = []

    def ask(question: Question, _timeout_s: float) -> str:
        asked.append(question.npu_id)
        time.sleep(0.02)
        return ""

    interview, all_of_them = Interview(ask), [make_question(number) for number in range(8)]
    reads = 0
    while len(asked) < 8:
        interview.put(all_of_them, time.monotonic() + 0.05, 0.01)
        reads += 1
    assert asked == list(range(8))
    assert reads > 1


def test_no_question_is_put_without_the_time_for_its_answer() -> None:
    def ask(question: Question, timeout_s: float) -> str:
        raise AssertionError(f"{question} {timeout_s}")

    Interview(ask).put([make_question(0)], time.monotonic() + 3, 3.5)


def test_an_answer_that_could_not_be_renewed_in_time_is_dropped_and_told() -> None:
    interview = Interview(lambda _question, _timeout_s: "", grace_s=0)
    (chip,) = Table([Row("4", "0")]).chips()
    question = make_question(4, every_s=0.02)
    interview.put([question], time.monotonic() + 1, 0)
    assert interview.details([question], [chip]) == {(4, 0): Details(aicores=7)}
    assert interview.problems([question]) == []
    time.sleep(0.07)
    interview.put([question], time.monotonic(), 1)  # there is no time for it
    assert interview.details([question], [chip]) == {}
    (problem,) = interview.problems([question])
    assert problem.startswith("volt: card 4: the last answer is too old")
