"""Huawei's npu-exporter: its names, labels and units, from what npu-smi says."""

from __future__ import annotations

from pathlib import Path

import pytest

from sentinel_exporters.compat.npu_exporter import NPU_EXPORTER
from sentinel_exporters.core import Sample
from sentinel_exporters.npu.reading import Details, Reading, merge_details
from sentinel_exporters.npu_smi import details
from sentinel_exporters.npu_smi.info import parse_info
from sentinel_exporters.npu_smi.mapping import parse_mapping
from tests.exporters.npu_series import make_reading
from tests.exporters.npu_tables import Row, Table, none_running

FIXTURES = Path(__file__).parent / "fixtures" / "npu"


def text(name: str) -> str:
    return (FIXTURES / f"{name}.txt").read_text()


def of_910b(*, health: str = "OK", network: str = "Success") -> Reading:
    """A chip whose source tells all that it can."""
    row = Row(
        "5", "0", name="910B2", health=health, bus="0000:41:00.0", power="211.5", temp="44",
        aicore="62", hbm="27011/ 65536",
    )  # fmt: skip
    table = Table([row], [["5     0", "812", "python", "26020"], ["5     0", "813", "", "NA"]])
    told = merge_details(
        part
        for found in (
            details.read_usages(text("usages-910b")),
            details.read_common(text("common-910b")),
            details.read_memory(text("memory-910b")),
            details.read_voltage(text("volt-910b")),
            details.read_ecc(text("ecc-910b")),
            details.read_health(text("health-alarm")),
            details.read_board(text("board-910b")),
            {None: Details(network=network)},
            details.read_bandwidth("Bandwidth TX: 120.50 MB/sec\nBandwidth RX: 7.25 MB/sec\n"),
        )
        for part in found.values()
    )
    return make_reading(parse_info(table.text()), {(5, 0): 5}, {(5, 0): told})


def samples(reading: Reading, name: str) -> list[Sample]:
    found = [one for one in NPU_EXPORTER.samples(reading) if one.metric.name == name]
    assert all(one.metric in NPU_EXPORTER.metrics for one in found)
    return found


def value(reading: Reading, name: str) -> float | None:
    found = samples(reading, name)
    assert len(found) <= 1
    return found[0].value if found else None


def labels(sample: Sample) -> dict[str, str]:
    return dict(zip(sample.metric.labels, sample.labels, strict=True))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("machine_npu_nums", 1),
        ("machine_card_nums", 1),
        ("npu_exporter_version_info", 1),
        ("npu_chip_info_name", 1),
        ("npu_chip_info_utilization", 62),
        ("npu_chip_info_overall_utilization", 66),
        ("npu_chip_info_vector_utilization", 18),
        ("npu_chip_info_cube_utilization", 55),
        ("npu_chip_info_temperature", 44),
        ("npu_chip_info_power", 211.5),
        ("npu_chip_info_voltage", 0.87),
        ("npu_chip_info_aicore_current_freq", 1650),
        ("npu_chip_info_health_status", 1),
        ("npu_chip_info_network_status", 1),
        ("npu_chip_info_bandwidth_tx", 120.5),
        ("npu_chip_info_bandwidth_rx", 7.25),
        ("npu_chip_info_process_info_num", 2),
        ("npu_chip_info_hbm_used_memory", 27011),
        ("npu_chip_info_hbm_total_memory", 65536),
        ("npu_chip_info_hbm_utilization", 41),
        ("npu_chip_info_hbm_temperature", 48),
        ("npu_chip_info_hbm_bandwidth_utilization", 29),
        ("npu_chip_info_hbm_ecc_single_bit_error_cnt", 0),
        ("npu_chip_info_hbm_ecc_double_bit_error_cnt", 0),
        ("npu_chip_info_hbm_ecc_total_single_bit_error_cnt", 17),
        ("npu_chip_info_hbm_ecc_total_double_bit_error_cnt", 1),
        ("npu_chip_info_hbm_ecc_single_bit_isolated_pages_cnt", 2),
        ("npu_chip_info_hbm_ecc_double_bit_isolated_pages_cnt", 1),
        ("npu_chip_info_error_code", 0x80E01801),
        ("npu_chip_info_error_code_1", 0x80CB8009),
        ("npu_chip_info_error_code_2", None),
        # A 910B has no memory besides its HBM.
        ("npu_chip_info_used_memory", None),
        ("npu_chip_info_total_memory", None),
    ],
)
def test_a_reading_is_there_under_the_peers_name_in_its_unit(
    name: str, expected: float | None
) -> None:
    assert name in {metric.name for metric in NPU_EXPORTER.metrics}
    assert value(of_910b(), name) == expected


def test_a_chip_has_the_peers_labels() -> None:
    (power,) = samples(of_910b(), "npu_chip_info_power")
    assert labels(power) == {
        "id": "5",
        "model_name": "910B2-Ascend-V1",
        "vdie_id": "5A01F00D-11223344-0BADCAFE-90ABCDEF-01020304",
        "pcie_bus_info": "0000:41:00.0",
        "namespace": "",
        "pod_name": "",
        "container_name": "",
    }
    (name,) = samples(of_910b(), "npu_chip_info_name")
    assert labels(name) == {
        **{key: word for key, word in labels(power).items() if key != "model_name"},
        "name": "910B2-Ascend-V1",
    }


def test_a_process_has_its_memory_in_mb_where_that_is_told() -> None:
    (process,) = samples(of_910b(), "npu_chip_info_process_info")
    assert process.value == 26020
    assert (labels(process)["process_id"], labels(process)["container_id"]) == ("812", "")


def test_a_process_that_is_told_twice_has_one_series_with_all_of_its_memory() -> None:
    rows = [["0     0", "17", "python", memory] for memory in ("100", "200")]
    reading = make_reading(parse_info(Table([Row("0", "0")], rows).text()))
    (process,) = samples(reading, "npu_chip_info_process_info")
    assert (process.value, labels(process)["process_id"]) == (300, "17")
    assert value(reading, "npu_chip_info_process_info_num") == 1


def test_a_process_whose_number_is_not_told_counts_and_has_no_series() -> None:
    table = Table([Row("0", "0")], [["0     0", "NA", "python", "37670"]])
    reading = make_reading(parse_info(table.text()))
    assert samples(reading, "npu_chip_info_process_info") == []
    assert value(reading, "npu_chip_info_process_info_num") == 1


def test_a_chip_without_processes_says_so_and_one_whose_are_not_told_says_nothing() -> None:
    idle = make_reading(parse_info(Table([Row("0", "0")], [none_running("0")]).text()))
    (none,) = samples(idle, "npu_chip_info_process_info")
    assert (none.value, labels(none)["process_id"]) == (0, "")
    assert value(idle, "npu_chip_info_process_info_num") == 0
    unknown = make_reading(parse_info(Table([Row("0", "0")]).text()))
    assert samples(unknown, "npu_chip_info_process_info") == []
    assert value(unknown, "npu_chip_info_process_info_num") is None


@pytest.mark.parametrize(
    ("health", "status"),
    [("OK", 1), ("Ok", 1), ("Warning", 0), ("Alarm", 0), ("UNKNOWN", -1), ("NA", -1)],
)
def test_the_health_is_one_zero_or_minus_one(health: str, status: float) -> None:
    assert value(of_910b(health=health), "npu_chip_info_health_status") == status


@pytest.mark.parametrize(
    ("network", "status"), [("Success", 1), ("Init", 1), ("Fault", 0), ("Socket fail", 0)]
)
def test_a_network_that_was_not_tested_is_healthy_there(network: str, status: float) -> None:
    assert value(of_910b(network=network), "npu_chip_info_network_status") == status


def test_a_310p_has_its_cards_power_at_both_chips() -> None:
    told = {
        (1536, chip or 0): found
        for chip, found in details.read_common(text("common-310p-duo")).items()
    }
    reading = make_reading(
        parse_info(text("info-310p-duo-23.0")), parse_mapping(text("mapping-310p-duo")), told
    )
    power = {labels(one)["id"]: one.value for one in samples(reading, "npu_chip_info_power")}
    assert power == {"0": 47.6, "1": 47.6}
    assert value_of(reading, "npu_chip_info_used_memory", "0") == 2301
    assert value_of(reading, "npu_chip_info_total_memory", "0") == 43693
    assert samples(reading, "npu_chip_info_hbm_total_memory") == []
    assert value(reading, "machine_npu_nums") == 4
    assert value(reading, "machine_card_nums") == 2


def value_of(reading: Reading, name: str, chip: str) -> float:
    return next(one.value for one in samples(reading, name) if labels(one)["id"] == chip)


def test_a_chip_whose_physical_id_is_not_known_is_only_counted() -> None:
    rows = [Row("0", "0", "0"), Row("1", "0", "-", bus="0000:C2:00.0")]
    table = Table(rows, device_column="Phy-ID")
    reading = make_reading(parse_info(table.text()), {(0, 0): 1, (1, 0): 0})
    ids = [labels(one)["id"] for one in samples(reading, "npu_chip_info_name")]
    assert ids == ["0"]
    assert value(reading, "npu_chip_info_temperature") == 41
    assert value(reading, "machine_npu_nums") == 2


def test_the_id_is_the_physical_one() -> None:
    info = parse_info(text("info-910c-26.0"))
    reading = make_reading(info, {(0, 0): 3, (0, 1): 2, (1, 0): 1, (1, 1): 0})
    ids = [labels(one)["id"] for one in samples(reading, "npu_chip_info_temperature")]
    assert ids == ["0", "1", "2", "3"]
    assert [chip.logic_id for chip in reading.chips] == [3, 2, 1, 0]
