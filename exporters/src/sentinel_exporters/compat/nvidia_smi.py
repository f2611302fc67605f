"""A reading of the GPUs as nvidia_gpu_exporter would give it. Asks the driver nothing.

The families are in nvidia_smi_families.py; `uuid` is without `GPU-`.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..core import Compat, Sample
from ..gpu.reading import Gpu, Instance, Reading
from .errors import error_counts
from .identity import gpu_instances, nvml_bus_id
from .nvidia_smi_families import ENGINES, ERRORS, EVENT_REASONS, FAMILIES, MIG_RATIOS

_MEGA = 1_000_000
# A reading under the name of its family without nvidia_smi_; None: there is none.
_Values = Iterator[tuple[str, float | None]]


def _samples(reading: Reading) -> list[Sample]:
    """Return the GPUs' samples; with no GPU none, not even of the run."""
    samples: list[Sample] = []
    for gpu in reading.gpus:
        samples += _gpu_samples(gpu, reading)
    if samples:
        are_known = all(gpu.processes is not None for gpu in reading.gpus)
        samples += [
            FAMILIES["last_collect_success"].sample(float(not reading.problems)),
            FAMILIES["compute_apps_last_collect_success"].sample(float(are_known)),
        ]
    return samples


def _gpu_samples(gpu: Gpu, reading: Reading) -> Iterator[Sample]:
    facts, uuid = gpu.facts, _short_uuid(gpu)
    yield FAMILIES["gpu_info"].sample(
        1, uuid, facts.model,
        # Of Windows; this is what nvidia-smi writes elsewhere.
        "[N/A]", "[N/A]",
        facts.vbios_version or "", reading.driver_version, nvml_bus_id(facts),
        facts.serial or "", facts.compute_capability or "", "", str(facts.index),
        reading.cuda_version,
    )  # fmt: skip
    for name, value in (("count", len(reading.gpus)), *_of_gpu(gpu), *_of_errors(gpu)):
        if value is not None:
            yield FAMILIES[name].sample(float(value), uuid)
    for process in gpu.processes or ():
        # Only those that may have series of their own have a name.
        process_name = reading.process_names.get(process.pid)
        if process_name is None:
            continue
        labels = (str(process.pid), process_name, uuid)
        yield FAMILIES["compute_app_info"].sample(1, *labels)
        if process.memory_bytes is not None:
            yield FAMILIES["compute_app_used_memory_bytes"].sample(
                process.memory_bytes, *labels
            )
    for xid in gpu.xids:
        yield FAMILIES["xid_errors_total"].sample(xid.count, uuid, str(xid.number))
        yield FAMILIES["xid_last_timestamp_seconds"].sample(xid.last_at, uuid, str(xid.number))
    for device in gpu.mig.instances if gpu.mig else ():
        yield FAMILIES["mig_info"].sample(
            1, uuid, device.uuid, str(device.gpu_instance), str(device.compute_instance),
            device.profile,
        )  # fmt: skip
    for instance in gpu_instances(gpu):
        for name, value in _of_instance(instance):
            if value is not None:
                yield FAMILIES[name].sample(value, uuid, str(instance.gpu_instance))


def _short_uuid(gpu: Gpu) -> str:
    return gpu.facts.uuid.lower().removeprefix("gpu-")


def _of_gpu(gpu: Gpu) -> _Values:
    facts = gpu.abilities
    yield "index", gpu.facts.index
    yield "pstate", gpu.performance_state
    yield "persistence_mode", gpu.is_persistent
    yield "compute_mode", gpu.compute_mode
    yield "fabric_state", gpu.fabric_state
    yield "gpu_recovery_action", gpu.recovery_action
    yield "temperature_gpu", gpu.temperature_celsius
    yield "temperature_memory", gpu.memory_temperature_celsius
    yield "fan_speed_ratio", _divide(gpu.fan_percent, 100)
    yield "power_draw_watts", _divide(gpu.power_milliwatts, 1000)
    yield "enforced_power_limit_watts", _divide(gpu.power_limit_milliwatts, 1000)
    yield "power_limit_watts", _divide(gpu.power_limit_set_milliwatts, 1000)
    yield "power_default_limit_watts", _divide(facts.power_limit_default_milliwatts, 1000)
    yield "power_min_limit_watts", _divide(facts.power_limit_min_milliwatts, 1000)
    yield "power_max_limit_watts", _divide(facts.power_limit_max_milliwatts, 1000)
    yield "energy_joules_total", _divide(gpu.energy_millijoules, 1000)
    yield "utilization_gpu_ratio", _divide(gpu.utilization_percent, 100)
    yield "utilization_memory_ratio", _divide(gpu.memory_busy_percent, 100)
    for name, engine in ENGINES.items():
        yield f"utilization_{name}_ratio", _divide(gpu.engine_percents.get(engine), 100)
    if memory := gpu.memory:
        yield "memory_total_bytes", memory.total_bytes
        yield "memory_used_bytes", memory.used_bytes
        yield "memory_free_bytes", memory.free_bytes
        yield "memory_reserved_bytes", memory.reserved_bytes
    for clock in ("graphics", "sm", "memory", "video"):
        if clock in gpu.clocks_mhz:
            yield f"clocks_current_{clock}_clock_hz", gpu.clocks_mhz[clock] * _MEGA
        # nvidia-smi has no maximum of the video clock.
        if clock in facts.clocks_max_mhz and clock != "video":
            yield f"clocks_max_{clock}_clock_hz", facts.clocks_max_mhz[clock] * _MEGA
    yield "clocks_event_reasons_active", gpu.throttle_reasons
    yield "clocks_event_reasons_supported", facts.throttle_reasons_supported
    reasons = gpu.told_throttle_reasons()
    for name in EVENT_REASONS:
        yield f"clocks_event_reasons_{name}", reasons.get(name)
    yield "encoder_stats_session_count", gpu.encoder_sessions
    yield "encoder_stats_average_fps", gpu.encoder_fps
    yield "encoder_stats_average_latency", gpu.encoder_latency_us
    yield "pcie_link_gen_current", gpu.pcie.generation
    yield "pcie_link_gen_max", facts.pcie_generation_max
    yield "pcie_link_width_current", gpu.pcie.width
    yield "pcie_link_width_max", facts.pcie_width_max
    if activity := gpu.activity:
        yield "pcie_throughput_tx_bytes_per_second", activity.pcie_transmitted_bytes_per_s
        yield "pcie_throughput_rx_bytes_per_second", activity.pcie_received_bytes_per_s
    if gpu.mig:
        yield "mig_mode_current", gpu.mig.is_enabled
        yield "mig_mode_pending", gpu.mig.is_pending
    if gpu.processes is not None:
        yield "compute_apps", len(gpu.processes)


def _of_errors(gpu: Gpu) -> _Values:
    yield "ecc_mode_current", gpu.ecc.is_enabled
    yield "ecc_mode_pending", gpu.ecc.is_pending
    errors = error_counts(gpu)
    for name, kind in ERRORS.items():
        yield name, errors.get(kind)
    for name in ("max", "high", "partial", "low", "none"):
        yield f"remapped_rows_histogram_{name}", gpu.row_remap_banks.get(name)


def _of_instance(instance: Instance) -> _Values:
    if memory := instance.memory:
        yield "mig_memory_total_bytes", memory.total_bytes
        yield "mig_memory_used_bytes", memory.used_bytes
        yield "mig_memory_free_bytes", memory.free_bytes
        yield "mig_memory_reserved_bytes", memory.reserved_bytes
    if activity := instance.activity:
        for name, ratio in MIG_RATIOS.items():
            yield f"mig_{name}_ratio", activity.ratios.get(ratio)
        sent, received = (
            activity.pcie_transmitted_bytes_per_s,
            activity.pcie_received_bytes_per_s,
        )
        yield "mig_pcie_throughput_tx_bytes_per_second", sent
        yield "mig_pcie_throughput_rx_bytes_per_second", received


def _divide(value: int | None, divisor: int) -> float | None:
    return None if value is None else value / divisor


NVIDIA_SMI = Compat(tuple(FAMILIES.values()), _samples)
