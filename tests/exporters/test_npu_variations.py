"""One output for each way in which versions and products differ, and what it says."""

from __future__ import annotations

from pathlib import Path

from sentinel_exporters.accelerator import DeviceProcess
from sentinel_exporters.collectors.npu import parse
from sentinel_exporters.npu.reading import NO_PID, Details, Usage
from sentinel_exporters.npu_smi.info import Chip, Info, parse_info
from sentinel_exporters.npu_smi.mapping import parse_mapping
from sentinel_exporters.npu_smi.processes import Process
from tests.exporters.npu_series import make_reading, series

FIXTURES = Path(__file__).parent / "fixtures" / "npu"
MIB = 2**20


def read(name: str) -> str:
    return (FIXTURES / name).read_text()


def info(name: str) -> Info:
    found = parse_info(read(name))
    assert found.problems == ()
    return found


def test_a_950_has_four_cells_and_its_npu_id_is_the_drivers_number() -> None:
    found = info("info-950-26.0.txt")
    assert found.chips == (
        Chip(
            position=0, npu_id=0, chip_id=0, device_id=0, name="Ascend950PR", health="OK",
            bus_id="0000:1B:00.0", has_device_column=True, power_watts=301.4,
            temperature_celsius=58, aicore_percent=63, hbm=Usage(90112 * MIB, 131072 * MIB),
        ),
        Chip(
            position=1, npu_id=1, chip_id=0, device_id=1, name="Ascend950PR", health="Warning",
            bus_id="0000:1C:00.0", has_device_column=True, power_watts=295.0,
            temperature_celsius=61, aicore_percent=0, hbm=Usage(3301 * MIB, 131072 * MIB),
        ),
        Chip(
            position=2, npu_id=9, chip_id=0, device_id=9, name="Ascend950PR", health="OK",
            bus_id=None, has_device_column=True, power_watts=288.7,
            temperature_celsius=55, aicore_percent=7, hbm=Usage(3299 * MIB, 131072 * MIB),
        ),
    )  # fmt: skip
    assert found.processes == (Process(0, None, 881204, 86011 * MIB),)
    assert found.counted_npus == {0, 1, 9}
    # Its mapping has slots and no logic ids: the numbers above are those.
    assert parse_mapping(read("mapping-950.txt")) is None
    chips = make_reading(found, parse_mapping(read("mapping-950.txt"))).chips
    assert [(chip.logic_id, chip.uuid) for chip in chips] == [
        (0, "npu-0000:1B:00.0"), (1, "npu-0000:1C:00.0"), (9, "npu-logic-9"),
    ]  # fmt: skip
    assert [chip.processes for chip in chips] == [
        (DeviceProcess(881204, 86011 * MIB),), (), (),
    ]  # fmt: skip


def test_memory_of_processes_in_bytes_may_be_more_than_ten_digits() -> None:
    found = info("info-910a-23.0-bytes.txt")
    assert found.tool_version == "23.0.rc1.b071"
    assert found.processes == (Process(0, 0, 20417, 30408704000),)
    assert found.counted_npus == {0, 1}
    # "Warning" shifted the cells behind it.
    assert found.chips[0] == Chip(
        position=0, npu_id=0, chip_id=0, device_id=None, name="910A", health="Warning",
        bus_id="0000:C1:00.0", power_watts=73.3, temperature_celsius=41, aicore_percent=54,
        ddr=Usage(1201 * MIB, 15137 * MIB), hbm=Usage(29011 * MIB, 32768 * MIB),
        hugepages=Usage(12, 40),
    )  # fmt: skip


def test_a_board_has_no_bus_id_and_no_table_of_processes() -> None:
    found = info("info-310b-23.0.txt")
    assert found.chips == (
        Chip(
            position=0, npu_id=0, chip_id=0, device_id=0, name="310B4", health="Alarm",
            bus_id=None, has_device_column=True, power_watts=8.1,
            temperature_celsius=49, aicore_percent=22,
            ddr=Usage(2210 * MIB, 7545 * MIB), hugepages=Usage(14, 15),
        ),
    )  # fmt: skip
    (chip,) = make_reading(found).chips
    assert (chip.uuid, chip.processes) == ("npu-logic-0", None)


def test_processes_without_names_have_owners_still() -> None:
    found = info("info-910b-25.0-nameless.txt")
    reading = make_reading(found, owners={1067001: "alice", 1067002: "bob"})
    labels = ("npu-0000:02:00.0", "0")
    assert series(parse(reading).samples, "accelerator_process_memory_bytes") == {
        (*labels, "alice"): 14310 * MIB,
        (*labels, "bob"): 11649 * MIB,
    }


def test_a_process_that_is_known_by_its_containers_number_counts_without_an_owner() -> None:
    found = info("info-910b-26.0-container.txt")
    # The host's 215 is somebody else's process, or nobody's.
    reading = make_reading(found, owners={215: "alice"})
    assert reading.chips[0].processes == (DeviceProcess(NO_PID, 37670 * MIB),)
    samples = parse(reading).samples
    labels = ("npu-0000:82:00.0", "0")
    assert series(samples, "accelerator_user_processes") == {(*labels, ""): 1}
    assert series(samples, "accelerator_process_memory_bytes") == {(*labels, ""): 37670 * MIB}


def test_a_910c_has_two_devices_on_a_card_and_a_column_more_in_its_mapping() -> None:
    places = parse_mapping(read("mapping-910c.txt"))
    assert places == {(0, 0): 0, (0, 1): 1, (1, 0): 2, (1, 1): 3}
    chips = make_reading(info("info-910c-26.0.txt"), places).chips
    assert [(chip.npu_id, chip.chip_id, chip.logic_id) for chip in chips] == [
        (0, 0, 0), (0, 1, 1), (1, 0, 2), (1, 1, 3),
    ]  # fmt: skip
    # The second die shows no power: that of the first is the card's.
    assert [chip.power_watts for chip in chips] == [171.5, None, 168.2, None]


def test_a_910cs_power_is_not_counted_twice_where_a_list_tells_it_of_both_dies() -> None:
    found = info("info-910c-26.0.txt")
    told = {(chip.npu_id, chip.chip_id): Details(power_watts=171.5) for chip in found.chips}
    chips = make_reading(found, details=told).chips
    assert [chip.power_watts for chip in chips] == [171.5, None, 168.2, None]
