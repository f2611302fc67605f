"""The series of what is asked card by card: base units, sums, none for what is not told."""

from __future__ import annotations

from pathlib import Path

import pytest

from sentinel_exporters.catalog import load_collector
from sentinel_exporters.collectors.npu import parse
from sentinel_exporters.core import Sample
from sentinel_exporters.npu.reading import Chip, Details, Ecc, Reading, Usage
from sentinel_exporters.npu_smi import details
from sentinel_exporters.runner import check_scrape
from tests.exporters.npu_series import series

FIXTURES = Path(__file__).parent / "fixtures" / "npu"
KEY = ("npu-0000:41:00.0", "5")


def text(name: str) -> str:
    return (FIXTURES / f"{name}.txt").read_text()


def samples(told: Details) -> list[Sample]:
    """The samples of a chip of which any source tells so much, npu-smi or another."""
    chip = Chip(
        uuid=KEY[0], logic_id=5, physical_id=5, npu_id=5, chip_id=0, name="910B2",
        health="OK", bus_id="0000:41:00.0", aicore_percent=62,
        hbm=Usage(27011 << 20, 65536 << 20), details=told,
    )  # fmt: skip
    scrape = parse(Reading("libdcmi", "7.0", "25.5.1", (chip,)))
    check_scrape(load_collector("npu"), scrape)
    return list(scrape.samples)


def test_the_tool_is_the_source_that_told() -> None:
    assert series(samples(Details()), "accelerator_tool_info") == {("libdcmi", "7.0"): 1}


def test_utilisations_and_bandwidth_become_ratios() -> None:
    (told,) = details.read_usages(text("usages-910b")).values()
    found = samples(told)
    assert series(found, "accelerator_engine_utilization_ratio") == {
        (*KEY, "aicpu"): 0.07, (*KEY, "ctrlcpu"): 0.03, (*KEY, "vector"): 0.18,
        (*KEY, "cube"): 0.55, (*KEY, "overall"): 0.66,
    }  # fmt: skip
    assert series(found, "accelerator_memory_bandwidth_ratio") == {KEY: 0.29}
    assert series(found, "accelerator_utilization_ratio") == {KEY: 0.62}


def test_clock_cores_temperature_and_voltage_are_in_base_units() -> None:
    found = samples(
        Details(aicore_hertz=1650e6, aicores=20, memory_celsius=48, voltage_volts=0.87)
    )
    assert series(found, "accelerator_clock_hertz") == {(*KEY, "aicore"): 1.65e9}
    assert series(found, "accelerator_cores") == {KEY: 20}
    assert series(found, "accelerator_memory_temperature_celsius") == {KEY: 48}
    assert series(found, "accelerator_voltage_volts") == {KEY: 0.87}


def test_errors_are_those_of_all_memory_of_the_chip() -> None:
    (told,) = details.read_ecc(text("ecc-910a")).values()
    found = samples(told)
    assert series(found, "accelerator_ecc_errors_total") == {
        (*KEY, "corrected"): 45, (*KEY, "uncorrected"): 3,
    }  # fmt: skip
    assert series(found, "accelerator_ecc_errors_volatile_total") == {
        (*KEY, "corrected"): 3, (*KEY, "uncorrected"): 1,
    }  # fmt: skip
    assert series(found, "accelerator_retired_pages_total") == {
        (*KEY, "single_bit"): 5, (*KEY, "double_bit"): 2,
    }  # fmt: skip


def test_errors_that_are_told_in_part_are_shown_in_part() -> None:
    found = samples(Details(ddr_ecc=Ecc(recent=(4, 0))))
    assert series(found, "accelerator_ecc_errors_volatile_total") == {
        (*KEY, "corrected"): 4, (*KEY, "uncorrected"): 0,
    }  # fmt: skip
    assert series(found, "accelerator_ecc_errors_total") == {}
    assert series(found, "accelerator_retired_pages_total") == {}


def test_each_fault_has_a_series() -> None:
    (told,) = details.read_health(text("health-alarm")).values()
    assert series(samples(told), "accelerator_error_code") == {
        (*KEY, "80E01801"): 1,
        (*KEY, "80CB8009"): 1,
    }


@pytest.mark.parametrize(
    ("word", "values"),
    [("Success", [1]), ("Fault", [0]), ("Receive timeout", [0]), ("Init", [])],
)
def test_a_network_that_was_not_tested_has_no_verdict(word: str, values: list[float]) -> None:
    found = samples(Details(network=word))
    assert list(series(found, "accelerator_network_healthy").values()) == values
    assert series(found, "accelerator_network_health_info") == {(*KEY, word): 1}


def test_the_networks_traffic_has_a_series_for_each_direction() -> None:
    found = samples(
        Details(network_transmitted_bytes_per_s=5e6, network_received_bytes_per_s=0)
    )
    assert series(found, "accelerator_network_throughput_bytes_per_second") == {
        (*KEY, "transmit"): 5e6,
        (*KEY, "receive"): 0,
    }


def test_what_is_not_told_has_no_sample() -> None:
    assert {sample.metric.name for sample in samples(Details())} == {
        "accelerator_info",
        "accelerator_tool_info",
        "accelerator_utilization_ratio",
        "accelerator_memory_used_bytes",
        "accelerator_memory_total_bytes",
        "accelerator_healthy",
        "accelerator_health_info",
        "accelerator_process_query_supported",
    }
