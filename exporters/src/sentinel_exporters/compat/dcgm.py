"""The families of NVIDIA's dcgm-exporter, from a reading of the GPUs. Asks the driver nothing.

Names, labels and units are those of its etc/default-counters.csv, with the lines that are
comments there, and of etc/dcp-metrics-included.csv. DCGM reads its profiling fields (PROF) of
Hopper and newer GPUs from the same counters as the reading does (NVML's GPM). Those of older
GPUs come from a part of DCGM that NVML has nothing like: they have no sample.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping

from ..core import Compat, Metric, Sample
from ..gpu.reading import Activity, Gpu, Instance, Memory, Reading
from .errors import error_counts
from .identity import gpu_instance_profile, gpu_instances, nvml_bus_id

_LABELS = (
    "gpu",
    "UUID",
    "pci_bus_id",
    "device",
    "modelName",
    "GPU_I_PROFILE",
    "GPU_I_ID",
    "Hostname",
    "DCGM_FI_DRIVER_VERSION",
)
# Once, at the start, as dcgm-exporter does.
_HOSTNAME = socket.gethostname()
_MEBIBYTE = 2**20
_FAMILIES: Mapping[str, Metric] = {
    name: Metric(f"DCGM_FI_{name}", "gauge", help_text, _LABELS)
    for name, help_text in {
        "DEV_SM_CLOCK": "SM clock in MHz.",
        "DEV_MEM_CLOCK": "Memory clock in MHz.",
        "DEV_VIDEO_CLOCK": "Video clock in MHz.",
        "DEV_GPU_TEMP": "Temperature of the chip in degrees Celsius.",
        "DEV_MEMORY_TEMP": "Temperature of the memory in degrees Celsius.",
        "DEV_POWER_USAGE": "Power that is drawn, in watts.",
        "DEV_ENFORCED_POWER_LIMIT": "Power limit that is enforced, in watts.",
        "DEV_POWER_MGMT_LIMIT": "Power limit that was set, in watts.",
        "DEV_TOTAL_ENERGY_CONSUMPTION": "Energy since the driver was loaded, in millijoules.",
        "DEV_FAN_SPEED": "Fan speed in percent.",
        "DEV_PSTATE": "P-state: 0 is the fastest, 15 the slowest.",
        "DEV_GPU_UTIL": "Utilisation in percent.",
        "DEV_MEM_COPY_UTIL": "Time in which the memory was read or written, in percent.",
        "DEV_ENC_UTIL": "Utilisation of the video encoder in percent.",
        "DEV_DEC_UTIL": "Utilisation of the video decoder in percent.",
        "DEV_FB_TOTAL": "Memory installed, in MiB.",
        "DEV_FB_USED": "Memory in use, in MiB.",
        "DEV_FB_FREE": "Memory that is free, in MiB.",
        "DEV_FB_RESERVED": "Memory that the driver keeps for itself, in MiB.",
        "DEV_XID_ERRORS": "Number of the last XID error since the exporter started; 0: none.",
        "DEV_PCIE_REPLAY_COUNTER": "Packets that were sent again over PCIe.",
        "DEV_NVLINK_BANDWIDTH_TOTAL": "Traffic over all NVLinks, in thousands of KiB a second.",
        "DEV_CLOCK_THROTTLE_REASONS": "Why the clocks are where they are: NVML's bits.",
        "DEV_CLOCKS_EVENT_REASONS": "Why the clocks are where they are: NVML's bits.",
        "DEV_POWER_VIOLATION": "Time throttled for the power limit, in ns.",
        "DEV_THERMAL_VIOLATION": "Time throttled for the temperature, in ns.",
        "DEV_SYNC_BOOST_VIOLATION": "Time throttled by another GPU of its group, in ns.",
        "DEV_BOARD_LIMIT_VIOLATION": "Time throttled for the board's limits, in ns.",
        "DEV_LOW_UTIL_VIOLATION": "Time throttled for low utilisation, in ns.",
        "DEV_RELIABILITY_VIOLATION": "Time throttled for reliability, in ns.",
        "DEV_ECC_SBE_VOL_TOTAL": "Corrected memory errors since the driver was loaded.",
        "DEV_ECC_DBE_VOL_TOTAL": "Uncorrected memory errors since the driver was loaded.",
        "DEV_ECC_SBE_AGG_TOTAL": "Corrected memory errors in the GPU's life.",
        "DEV_ECC_DBE_AGG_TOTAL": "Uncorrected memory errors in the GPU's life.",
        "DEV_RETIRED_SBE": "Memory pages out of use for corrected errors.",
        "DEV_RETIRED_DBE": "Memory pages out of use for an uncorrected error.",
        "DEV_RETIRED_PENDING": "1 when pages wait for a restart to be taken out of use.",
        "DEV_CORRECTABLE_REMAPPED_ROWS": "Memory rows replaced for corrected errors.",
        "DEV_UNCORRECTABLE_REMAPPED_ROWS": "Memory rows replaced for uncorrected errors.",
        "DEV_ROW_REMAP_PENDING": "1 when rows wait for a reset to be replaced.",
        "DEV_ROW_REMAP_FAILURE": "1 when a row could not be replaced.",
        "PROF_GR_ENGINE_ACTIVE": "Share of time in which the GPU computed or drew.",
        "PROF_SM_ACTIVE": "Share of the multiprocessors that were busy.",
        "PROF_SM_OCCUPANCY": "Warps that were active, as a share of the most possible.",
        "PROF_PIPE_TENSOR_ACTIVE": "Share of time in which the tensor cores worked.",
        "PROF_PIPE_FP64_ACTIVE": "Share of time of 64-bit arithmetic by the other cores.",
        "PROF_PIPE_FP32_ACTIVE": "Share of time of 32-bit arithmetic by the other cores.",
        "PROF_PIPE_FP16_ACTIVE": "Share of time of 16-bit arithmetic by the other cores.",
        "PROF_DRAM_ACTIVE": "Bandwidth of the memory in use, as a share of the most possible.",
        "PROF_PCIE_TX_BYTES": "PCIe traffic from the GPU in bytes a second.",
        "PROF_PCIE_RX_BYTES": "PCIe traffic to the GPU in bytes a second.",
        "PROF_NVLINK_TX_BYTES": "NVLink traffic from the GPU in bytes a second.",
        "PROF_NVLINK_RX_BYTES": "NVLink traffic to the GPU in bytes a second.",
    }.items()
}
# DCGM's name of a ratio of Activity.
_RATIOS = {
    "PROF_GR_ENGINE_ACTIVE": "graphics",
    "PROF_SM_ACTIVE": "sm",
    "PROF_SM_OCCUPANCY": "sm_occupancy",
    "PROF_PIPE_TENSOR_ACTIVE": "tensor",
    "PROF_PIPE_FP64_ACTIVE": "fp64",
    "PROF_PIPE_FP32_ACTIVE": "fp32",
    "PROF_PIPE_FP16_ACTIVE": "fp16",
    "PROF_DRAM_ACTIVE": "dram",
}
# DCGM's name of a count of error_counts().
_ERRORS = {
    "DEV_ECC_SBE_VOL_TOTAL": "volatile corrected",
    "DEV_ECC_DBE_VOL_TOTAL": "volatile uncorrected",
    "DEV_ECC_SBE_AGG_TOTAL": "aggregate corrected",
    "DEV_ECC_DBE_AGG_TOTAL": "aggregate uncorrected",
    "DEV_RETIRED_SBE": "single-bit pages",
    "DEV_RETIRED_DBE": "double-bit pages",
    "DEV_RETIRED_PENDING": "pages pending",
    "DEV_CORRECTABLE_REMAPPED_ROWS": "corrected rows",
    "DEV_UNCORRECTABLE_REMAPPED_ROWS": "uncorrected rows",
    "DEV_ROW_REMAP_PENDING": "rows pending",
    "DEV_ROW_REMAP_FAILURE": "rows failed",
}
# A reading under the name of its family without DCGM_FI_; None: there is none.
_Values = Iterator[tuple[str, float | None]]


def _samples(reading: Reading) -> list[Sample]:
    """Return the GPUs' samples.

    A GPU that is split has its series at each GPU instance and none without one, as
    dcgm-exporter has them: what the driver tells of the whole GPU stands at every instance.
    """
    samples: list[Sample] = []
    for gpu in reading.gpus:
        whole = dict(_of_gpu(gpu))
        instances = gpu_instances(gpu)
        if not instances:
            whole |= {**dict(_of_memory(gpu.memory)), **dict(_of_activity(gpu.activity))}
            samples += _make_samples(whole, _labels(gpu, reading))
        for instance in instances:
            own = {
                **dict(_of_memory(instance.memory)),
                **dict(_of_activity(instance.activity)),
            }
            samples += _make_samples(whole | own, _labels(gpu, reading, instance))
    return samples


def _labels(gpu: Gpu, reading: Reading, instance: Instance | None = None) -> tuple[str, ...]:
    facts = gpu.facts
    return (
        str(facts.index),
        facts.uuid,
        nvml_bus_id(facts),
        f"nvidia{facts.index}",
        facts.model,
        gpu_instance_profile(instance) if instance else "",
        str(instance.gpu_instance) if instance else "",
        _HOSTNAME,
        reading.driver_version,
    )


def _make_samples(
    values: Mapping[str, float | None], labels: tuple[str, ...]
) -> Iterator[Sample]:
    for name, value in values.items():
        if value is not None:
            yield _FAMILIES[name].sample(float(value), *labels)


def _of_gpu(gpu: Gpu) -> _Values:
    yield "DEV_SM_CLOCK", gpu.clocks_mhz.get("sm")
    yield "DEV_MEM_CLOCK", gpu.clocks_mhz.get("memory")
    yield "DEV_VIDEO_CLOCK", gpu.clocks_mhz.get("video")
    yield "DEV_GPU_TEMP", gpu.temperature_celsius
    yield "DEV_MEMORY_TEMP", gpu.memory_temperature_celsius
    yield "DEV_POWER_USAGE", _thousandth(gpu.power_milliwatts)
    yield "DEV_ENFORCED_POWER_LIMIT", _thousandth(gpu.power_limit_milliwatts)
    yield "DEV_POWER_MGMT_LIMIT", _thousandth(gpu.power_limit_set_milliwatts)
    yield "DEV_TOTAL_ENERGY_CONSUMPTION", gpu.energy_millijoules
    yield "DEV_FAN_SPEED", gpu.fan_percent
    yield "DEV_PSTATE", gpu.performance_state
    yield "DEV_GPU_UTIL", gpu.utilization_percent
    yield "DEV_MEM_COPY_UTIL", gpu.memory_busy_percent
    yield "DEV_ENC_UTIL", gpu.engine_percents.get("encoder")
    yield "DEV_DEC_UTIL", gpu.engine_percents.get("decoder")
    if gpu.last_xid or gpu.is_xid_watched:
        yield "DEV_XID_ERRORS", gpu.last_xid.number if gpu.last_xid else 0
    yield "DEV_PCIE_REPLAY_COUNTER", gpu.pcie.replays
    # Two names: DCGM 3.3 gave the field another one.
    yield "DEV_CLOCK_THROTTLE_REASONS", gpu.throttle_reasons
    yield "DEV_CLOCKS_EVENT_REASONS", gpu.throttle_reasons
    yield "DEV_POWER_VIOLATION", gpu.throttled_ns.get("power")
    yield "DEV_THERMAL_VIOLATION", gpu.throttled_ns.get("thermal")
    yield "DEV_SYNC_BOOST_VIOLATION", gpu.throttled_ns.get("sync_boost")
    yield "DEV_BOARD_LIMIT_VIOLATION", gpu.throttled_ns.get("board_limit")
    yield "DEV_LOW_UTIL_VIOLATION", gpu.throttled_ns.get("low_utilization")
    yield "DEV_RELIABILITY_VIOLATION", gpu.throttled_ns.get("reliability")
    errors = error_counts(gpu)
    for name, kind in _ERRORS.items():
        yield name, errors.get(kind)
    yield "DEV_NVLINK_BANDWIDTH_TOTAL", _nvlink_bandwidth(gpu.activity)


def _of_memory(memory: Memory | None) -> _Values:
    if memory:
        # Whole MiB, as DCGM has them.
        yield "DEV_FB_TOTAL", memory.total_bytes // _MEBIBYTE
        yield "DEV_FB_USED", memory.used_bytes // _MEBIBYTE
        yield "DEV_FB_FREE", memory.free_bytes // _MEBIBYTE
        if memory.reserved_bytes is not None:
            yield "DEV_FB_RESERVED", memory.reserved_bytes // _MEBIBYTE


def _of_activity(activity: Activity | None) -> _Values:
    if activity:
        for name, ratio in _RATIOS.items():
            yield name, activity.ratios.get(ratio)
        yield "PROF_PCIE_TX_BYTES", activity.pcie_transmitted_bytes_per_s
        yield "PROF_PCIE_RX_BYTES", activity.pcie_received_bytes_per_s
        yield "PROF_NVLINK_TX_BYTES", activity.nvlink_transmitted_bytes_per_s
        yield "PROF_NVLINK_RX_BYTES", activity.nvlink_received_bytes_per_s


def _nvlink_bandwidth(activity: Activity | None) -> float | None:
    if activity is None:
        return None
    sent = activity.nvlink_transmitted_bytes_per_s
    received = activity.nvlink_received_bytes_per_s
    if sent is None or received is None:
        return None
    # DCGM divides the KiB a second of NVML by 1000 (ReadAndCacheNvLinkBandwidth).
    return (sent + received) / 1024 / 1000


def _thousandth(value: int | None) -> float | None:
    return None if value is None else value / 1000


DCGM = Compat(tuple(_FAMILIES.values()), _samples)
