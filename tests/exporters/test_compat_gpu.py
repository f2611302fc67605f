"""dcgm-exporter's and nvidia_gpu_exporter's families: units and labels of a known reading."""

from __future__ import annotations

import socket
from dataclasses import replace

import pynvml
import pytest

from sentinel_exporters.compat.dcgm import DCGM
from sentinel_exporters.compat.nvidia_smi import NVIDIA_SMI
from sentinel_exporters.core import Compat
from sentinel_exporters.gpu.reading import THROTTLE_REASONS, Gpu, Reading
from tests.exporters.gpu_readings import BARE, FULL, SPLIT, make_reading

Found = dict[tuple[str, frozenset[tuple[str, str]]], float]


def of(compat: Compat, reading: Reading) -> Found:
    """Return {(name, labels that are not empty): value}; no series may be there twice."""
    samples = compat.samples(reading)
    found = {
        (one.metric.name, frozenset(labels_of(one.metric.labels, one.labels))): one.value
        for one in samples
    }
    assert len(found) == len(samples)
    return found


def labels_of(names: tuple[str, ...], values: tuple[str, ...]) -> list[tuple[str, str]]:
    # An empty label and none are the same to Prometheus.
    return [(name, value) for name, value in zip(names, values, strict=True) if value]


def values(compat: Compat, prefix: str, reading: Reading, **labels: str) -> dict[str, float]:
    """Return {the family's name behind `prefix`: value} of the series with these labels."""
    wanted = set(labels.items())
    return {
        name.removeprefix(prefix): value
        for (name, found), value in of(compat, reading).items()
        if wanted <= found
    }


def test_dcgm_has_mib_mhz_millijoules_watts_and_percents() -> None:
    assert values(DCGM, "DCGM_FI_", make_reading(FULL)) == {
        "DEV_SM_CLOCK": 1980,
        "DEV_MEM_CLOCK": 2619,
        "DEV_VIDEO_CLOCK": 1545,
        "DEV_GPU_TEMP": 41,
        "DEV_MEMORY_TEMP": 54,
        "DEV_POWER_USAGE": 300.5,
        "DEV_ENFORCED_POWER_LIMIT": 600,
        "DEV_POWER_MGMT_LIMIT": 650,
        "DEV_TOTAL_ENERGY_CONSUMPTION": 123_456_789,
        "DEV_FAN_SPEED": 30,
        "DEV_PSTATE": 2,
        "DEV_GPU_UTIL": 55,
        "DEV_MEM_COPY_UTIL": 7,
        "DEV_ENC_UTIL": 1,
        "DEV_DEC_UTIL": 2,
        "DEV_FB_TOTAL": 81920,
        "DEV_FB_USED": 2048,
        "DEV_FB_FREE": 79000,
        "DEV_FB_RESERVED": 872,
        # The later one, not the higher one.
        "DEV_XID_ERRORS": 31,
        "DEV_PCIE_REPLAY_COUNTER": 8,
        # 3,072e9 bytes are 3e9 KiB.
        "DEV_NVLINK_BANDWIDTH_TOTAL": 3e6,
        "DEV_CLOCK_THROTTLE_REASONS": 0x44,
        "DEV_CLOCKS_EVENT_REASONS": 0x44,
        "DEV_POWER_VIOLATION": 1,
        "DEV_THERMAL_VIOLATION": 2,
        "DEV_SYNC_BOOST_VIOLATION": 3,
        "DEV_BOARD_LIMIT_VIOLATION": 4,
        "DEV_LOW_UTIL_VIOLATION": 5,
        "DEV_RELIABILITY_VIOLATION": 6,
        "DEV_ECC_SBE_VOL_TOTAL": 2,
        "DEV_ECC_DBE_VOL_TOTAL": 1,
        "DEV_ECC_SBE_AGG_TOTAL": 12,
        "DEV_ECC_DBE_AGG_TOTAL": 3,
        "DEV_RETIRED_SBE": 6,
        "DEV_RETIRED_DBE": 7,
        "DEV_RETIRED_PENDING": 0,
        "DEV_CORRECTABLE_REMAPPED_ROWS": 4,
        "DEV_UNCORRECTABLE_REMAPPED_ROWS": 5,
        "DEV_ROW_REMAP_PENDING": 1,
        "DEV_ROW_REMAP_FAILURE": 0,
        "PROF_GR_ENGINE_ACTIVE": 0.9,
        "PROF_SM_ACTIVE": 0.8,
        "PROF_SM_OCCUPANCY": 0.5,
        "PROF_PIPE_TENSOR_ACTIVE": 0.4,
        "PROF_PIPE_FP64_ACTIVE": 0.01,
        "PROF_PIPE_FP32_ACTIVE": 0.02,
        "PROF_PIPE_FP16_ACTIVE": 0.03,
        "PROF_DRAM_ACTIVE": 0.3,
        "PROF_PCIE_TX_BYTES": 1e9,
        "PROF_PCIE_RX_BYTES": 2e9,
        "PROF_NVLINK_TX_BYTES": 1024e9,
        "PROF_NVLINK_RX_BYTES": 2048e9,
    }


def test_dcgm_labels_are_the_index_nvmls_bus_id_and_the_hosts_name() -> None:
    labels = {found for _, found in of(DCGM, make_reading(FULL))}
    assert labels == {
        frozenset(
            {
                "gpu": "0",
                "UUID": "GPU-11111111-aaaa",
                "pci_bus_id": "00000000:C1:00.0",
                "device": "nvidia0",
                "modelName": "NVIDIA H100 80GB HBM3",
                "Hostname": socket.gethostname(),
                "DCGM_FI_DRIVER_VERSION": "550.54",
            }.items()
        )
    }


def test_dcgm_has_a_split_gpu_at_its_gpu_instances_and_only_there() -> None:
    reading = make_reading(SPLIT)
    instances = {
        (dict(found)["GPU_I_ID"], dict(found)["GPU_I_PROFILE"])
        for _, found in of(DCGM, reading)
    }
    assert instances == {("2", "3g.40gb"), ("9", "1g.10gb")}
    first = values(DCGM, "DCGM_FI_", reading, GPU_I_ID="2", pci_bus_id="00010000:C2:00.0")
    assert (first["DEV_FB_USED"], first["DEV_FB_FREE"]) == (512, 40448)
    assert first["PROF_PIPE_TENSOR_ACTIVE"] == 0.4
    # Of the whole GPU.
    assert (first["DEV_GPU_TEMP"], first["DEV_POWER_USAGE"]) == (40, 90)
    # The whole GPU's memory is not the instance's.
    assert values(DCGM, "DCGM_FI_", reading, GPU_I_ID="9") == {
        "DEV_GPU_TEMP": 40,
        "DEV_POWER_USAGE": 90,
    }


@pytest.mark.parametrize(
    ("is_watched", "expected"), [(True, {"DEV_XID_ERRORS": 0}), (False, {})]
)
def test_dcgms_last_xid_is_0_where_one_would_have_been_seen(
    is_watched: bool, expected: dict[str, float]
) -> None:
    gpu = replace(BARE, is_xid_watched=is_watched)
    assert values(DCGM, "DCGM_FI_", make_reading(gpu)) == expected


def test_nvidia_smi_has_bytes_hertz_joules_and_ratios() -> None:
    found = values(NVIDIA_SMI, "nvidia_smi_", make_reading(FULL))
    of_processes_and_xids = {
        "compute_app_info",
        "compute_app_used_memory_bytes",
        "xid_errors_total",
        "xid_last_timestamp_seconds",
    }
    assert {name: found[name] for name in found.keys() - of_processes_and_xids} == {
        "gpu_info": 1,
        "index": 0,
        "count": 1,
        "pstate": 2,
        "persistence_mode": 1,
        "compute_mode": 3,
        "fabric_state": 3,
        "gpu_recovery_action": 1,
        "temperature_gpu": 41,
        "temperature_memory": 54,
        "fan_speed_ratio": 0.3,
        "power_draw_watts": 300.5,
        "enforced_power_limit_watts": 600,
        "power_limit_watts": 650,
        "power_default_limit_watts": 700,
        "power_min_limit_watts": 200,
        "power_max_limit_watts": 700,
        "energy_joules_total": 123_456.789,
        "utilization_gpu_ratio": 0.55,
        "utilization_memory_ratio": 0.07,
        "utilization_encoder_ratio": 0.01,
        "utilization_decoder_ratio": 0.02,
        "utilization_jpeg_ratio": 0.03,
        "utilization_ofa_ratio": 0.04,
        "memory_total_bytes": 81920 * 2**20,
        "memory_used_bytes": 2048 * 2**20 + 5,
        "memory_free_bytes": 79000 * 2**20 + 7,
        "memory_reserved_bytes": 872 * 2**20,
        "clocks_current_graphics_clock_hz": 1.755e9,
        "clocks_current_sm_clock_hz": 1.98e9,
        "clocks_current_memory_clock_hz": 2.619e9,
        "clocks_current_video_clock_hz": 1.545e9,
        "clocks_max_graphics_clock_hz": 1.98e9,
        "clocks_max_sm_clock_hz": 1.98e9,
        "clocks_max_memory_clock_hz": 2.619e9,
        "clocks_event_reasons_active": 0x44,
        "clocks_event_reasons_supported": 0x1FF,
        "clocks_event_reasons_gpu_idle": 0,
        "clocks_event_reasons_applications_clocks_setting": 0,
        "clocks_event_reasons_sw_power_cap": 1,
        "clocks_event_reasons_hw_slowdown": 0,
        "clocks_event_reasons_sync_boost": 0,
        "clocks_event_reasons_sw_thermal_slowdown": 0,
        "clocks_event_reasons_hw_thermal_slowdown": 1,
        "clocks_event_reasons_hw_power_brake_slowdown": 0,
        "encoder_stats_session_count": 2,
        "encoder_stats_average_fps": 60,
        "encoder_stats_average_latency": 1500,
        "ecc_mode_current": 1,
        "ecc_mode_pending": 0,
        "ecc_errors_corrected_volatile_total": 2,
        "ecc_errors_corrected_aggregate_total": 12,
        "ecc_errors_uncorrected_volatile_total": 1,
        "ecc_errors_uncorrected_aggregate_total": 3,
        "retired_pages_single_bit_ecc_count": 6,
        "retired_pages_double_bit_count": 7,
        "retired_pages_pending": 0,
        "remapped_rows_correctable": 4,
        "remapped_rows_uncorrectable": 5,
        "remapped_rows_pending": 1,
        "remapped_rows_failure": 0,
        "remapped_rows_histogram_max": 2558,
        "remapped_rows_histogram_high": 1,
        "remapped_rows_histogram_partial": 1,
        "remapped_rows_histogram_low": 0,
        "remapped_rows_histogram_none": 0,
        "pcie_link_gen_current": 4,
        "pcie_link_gen_max": 5,
        "pcie_link_width_current": 8,
        "pcie_link_width_max": 16,
        "pcie_throughput_tx_bytes_per_second": 1e9,
        "pcie_throughput_rx_bytes_per_second": 2e9,
        "mig_mode_current": 0,
        "mig_mode_pending": 1,
        "compute_apps": 3,
        "last_collect_success": 1,
        "compute_apps_last_collect_success": 1,
    }


def test_nvidia_smis_uuid_is_without_its_prefix_and_the_rest_is_on_gpu_info() -> None:
    reading = make_reading(replace(FULL, processes=(), xids=()))
    labels = {name: dict(found) for name, found in of(NVIDIA_SMI, reading)}
    assert labels.pop("nvidia_smi_gpu_info") == {
        "uuid": "11111111-aaaa",
        "name": "NVIDIA H100 80GB HBM3",
        "driver_model_current": "[N/A]",
        "driver_model_pending": "[N/A]",
        "vbios_version": "96.00.A5.00.01",
        "driver_version": "550.54",
        "pci_bus_id": "00000000:C1:00.0",
        "serial": "1650823001234",
        "compute_cap": "9.0",
        "index": "0",
        "cuda_version": "12.4",
    }
    assert labels.pop("nvidia_smi_last_collect_success") == {}
    assert labels.pop("nvidia_smi_compute_apps_last_collect_success") == {}
    assert all(found == {"uuid": "11111111-aaaa"} for found in labels.values())


def test_nvidia_smi_has_processes_that_may_be_named_and_xids_by_number() -> None:
    found = {
        (name.removeprefix("nvidia_smi_"), *(dict(labels).get(key, "") for key in keys)): value
        for (name, labels), value in of(NVIDIA_SMI, make_reading(FULL)).items()
        for keys in [("pid", "process_name", "xid")]
        if "_app_" in name or "_xid_" in name
    }
    assert found == {
        ("compute_app_info", "100", "python3", ""): 1,
        ("compute_app_used_memory_bytes", "100", "python3", ""): 1000,
        # Its memory is not told.
        ("compute_app_info", "101", "./gpu_burn", ""): 1,
        ("xid_errors_total", "", "", "79"): 1,
        ("xid_last_timestamp_seconds", "", "", "79"): 1_700_000_000,
        ("xid_errors_total", "", "", "31"): 4,
        ("xid_last_timestamp_seconds", "", "", "31"): 1_700_000_500,
    }


def test_nvidia_smi_has_mig_devices_by_name_and_gpu_instances_by_what_they_use() -> None:
    found = {
        (name.removeprefix("nvidia_smi_mig_"), labels): value
        for (name, labels), value in of(NVIDIA_SMI, make_reading(SPLIT)).items()
        if "_mig_" in name and "_mode_" not in name
    }
    uuid = ("uuid", "22222222-bbbb")
    first = frozenset({uuid, ("gpu_instance_id", "2")})
    expected = {
        ("memory_total_bytes", first): 40960 * 2**20,
        ("memory_used_bytes", first): 512 * 2**20,
        ("memory_free_bytes", first): 40448 * 2**20,
        ("memory_reserved_bytes", first): 0,
        ("graphics_activity_ratio", first): 0.9,
        ("sm_activity_ratio", first): 0.8,
        ("sm_occupancy_ratio", first): 0.5,
        ("tensor_activity_ratio", first): 0.4,
        ("pcie_throughput_tx_bytes_per_second", first): 1e9,
        ("pcie_throughput_rx_bytes_per_second", first): 2e9,
    }
    for name, profile, gpu_instance, compute_instance in (
        ("MIG-a", "1c.3g.40gb", "2", "0"),
        ("MIG-b", "2c.3g.40gb", "2", "1"),
        ("MIG-c", "1g.10gb", "9", "0"),
    ):
        device = {
            "mig_uuid": name,
            "profile": profile,
            "gpu_instance_id": gpu_instance,
            "compute_instance_id": compute_instance,
        }
        expected["info", frozenset({uuid, *device.items()})] = 1
    assert found == expected


def test_what_a_gpu_does_not_tell_has_no_sample() -> None:
    assert values(DCGM, "DCGM_FI_", make_reading(BARE)) == {}
    assert values(NVIDIA_SMI, "nvidia_smi_", make_reading(BARE)) == {
        "gpu_info": 1,
        "index": 2,
        "count": 1,
        "last_collect_success": 1,
        "compute_apps_last_collect_success": 0,
    }


def test_a_reason_that_the_gpu_cannot_tell_is_not_shown_as_inactive() -> None:
    gpu = replace(FULL, facts=replace(FULL.facts, throttle_reasons_supported=0x05))
    found = values(NVIDIA_SMI, "nvidia_smi_", make_reading(gpu))
    assert {name for name in found if name.startswith("clocks_event_reasons_")} == {
        "clocks_event_reasons_active",
        "clocks_event_reasons_supported",
        "clocks_event_reasons_gpu_idle",
        "clocks_event_reasons_sw_power_cap",
    }


def test_the_reasons_have_nvmls_bits() -> None:
    for name, bit in THROTTLE_REASONS.items():
        words = "".join(word.capitalize() for word in name.split("_"))
        assert bit == getattr(pynvml, f"nvmlClocksEventReason{words}"), name


def test_a_lost_gpu_shows_nothing_of_what_it_could_do() -> None:
    uuid = BARE.facts.uuid.lower().removeprefix("gpu-")
    bare, full = (
        values(NVIDIA_SMI, "nvidia_smi_", make_reading(Gpu(facts, is_lost=True)), uuid=uuid)
        for facts in (BARE.facts, replace(FULL.facts, uuid=BARE.facts.uuid))
    )
    assert full.keys() == bare.keys() >= {"gpu_info", "index"}


def test_a_reading_with_problems_is_no_success() -> None:
    found = values(NVIDIA_SMI, "nvidia_smi_", make_reading(FULL, problems=("GPU 0: lost",)))
    assert found["last_collect_success"] == 0


@pytest.mark.parametrize("compat", [DCGM, NVIDIA_SMI])
def test_every_family_is_given_by_some_gpu_and_none_without_one(compat: Compat) -> None:
    samples = compat.samples(make_reading(FULL, SPLIT))
    assert {one.metric for one in samples} == set(compat.metrics)
    assert compat.samples(make_reading()) == []
