"""Turn one GPU's reading into the samples of `accelerator_*`. Asks nobody."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

from .. import accelerator as family
from ..accelerator import DeviceProcess, Identity, process_samples
from ..core import Metric, Sample
from .reading import Activity, Gpu, Instance, Reading

VENDOR = "nvidia"
METRICS = (
    family.INFO,
    family.UTILIZATION,
    family.MEMORY_BUSY,
    family.ENGINE_UTILIZATION,
    family.ENCODER_SESSIONS,
    family.ACTIVITY,
    family.MEMORY_USED,
    family.MEMORY_TOTAL,
    family.MEMORY_RESERVED,
    family.TEMPERATURE,
    family.MEMORY_TEMPERATURE,
    family.TEMPERATURE_THRESHOLD,
    family.POWER,
    family.POWER_LIMIT,
    family.POWER_LIMIT_DEFAULT,
    family.POWER_LIMIT_MIN,
    family.POWER_LIMIT_MAX,
    family.ENERGY,
    family.CLOCK,
    family.CLOCK_MAX,
    family.THROTTLE_REASON,
    family.THROTTLED,
    family.FAN_SPEED,
    family.FAN_UNIT_SPEED,
    family.PERFORMANCE_STATE,
    family.PERSISTENCE_MODE,
    family.ECC_ENABLED,
    family.ECC_ENABLED_PENDING,
    family.ECC_ERRORS,
    family.ECC_ERRORS_VOLATILE,
    family.ECC_ERRORS_LOCATED,
    family.REMAPPED_ROWS,
    family.ROW_REMAP_PENDING,
    family.ROW_REMAP_FAILURE,
    family.ROW_REMAP_BANKS,
    family.RETIRED_PAGES,
    family.PAGE_RETIREMENT_PENDING,
    family.XID_WATCHED,
    family.XID_EVENTS,
    family.XID_ERRORS,
    family.XID_LAST,
    family.PCIE_REPLAYS,
    family.PCIE_THROUGHPUT,
    family.PCIE_GENERATION,
    family.PCIE_GENERATION_MAX,
    family.PCIE_WIDTH,
    family.PCIE_WIDTH_MAX,
    family.NVLINK_UP,
    family.NVLINK_BYTES,
    family.NVLINK_ERRORS,
    family.NVLINK_LINK_ERRORS,
    family.MIG_ENABLED,
    family.MIG_ENABLED_PENDING,
    family.MIG_INFO,
    family.MIG_UTILIZATION,
    family.MIG_MEMORY_USED,
    family.MIG_MEMORY_TOTAL,
    family.MIG_USER_PROCESSES,
    family.MIG_PROCESS_MEMORY,
    family.RECOVERY_ACTION,
    family.READING_UNAVAILABLE,
    family.HEALTHY,
    family.PROCESS_QUERY_SUPPORTED,
    family.PROCESSES,
    family.USER_PROCESSES,
    family.PROCESS_MEMORY,
    family.PID_MEMORY,
)
_READINGS = {metric.name.removeprefix("accelerator_") for metric in METRICS}


def gpu_samples(gpu: Gpu, reading: Reading) -> list[Sample]:
    """Return the GPU's samples; what it does not tell has none but its reason."""
    identity = Identity(gpu.facts.uuid, gpu.facts.index, VENDOR)
    has_failed = gpu.remapped_rows is not None and gpu.remapped_rows.has_failed
    return [
        *identity.sample(
            family.INFO, 1, gpu.facts.model, gpu.facts.bus_id, reading.driver_version
        ),
        *identity.sample(family.HEALTHY, float(not gpu.is_lost and not has_failed)),
        *_single_samples(identity, gpu),
        *_labelled_samples(identity, gpu),
        *_xid_samples(identity, gpu),
        *_activity_samples(identity, gpu.activity),
        *_mig_samples(identity, gpu, reading),
        *_process_samples(identity, gpu, reading),
    ]


def _single_samples(identity: Identity, gpu: Gpu) -> Iterable[Sample]:
    facts = gpu.abilities
    memory, rows, pages, mig = gpu.memory, gpu.remapped_rows, gpu.retired_pages, gpu.mig
    singles: tuple[tuple[Metric, float | None, int], ...] = (
        (family.UTILIZATION, gpu.utilization_percent, 100),
        (family.MEMORY_BUSY, gpu.memory_busy_percent, 100),
        (family.ENCODER_SESSIONS, gpu.encoder_sessions, 1),
        (family.MEMORY_USED, memory.used_bytes if memory else None, 1),
        (family.MEMORY_TOTAL, memory.total_bytes if memory else None, 1),
        (family.MEMORY_RESERVED, memory.reserved_bytes if memory else None, 1),
        (family.TEMPERATURE, gpu.temperature_celsius, 1),
        (family.MEMORY_TEMPERATURE, gpu.memory_temperature_celsius, 1),
        (family.POWER, gpu.power_milliwatts, 1000),
        (family.POWER_LIMIT, gpu.power_limit_milliwatts, 1000),
        (family.POWER_LIMIT_DEFAULT, facts.power_limit_default_milliwatts, 1000),
        (family.POWER_LIMIT_MIN, facts.power_limit_min_milliwatts, 1000),
        (family.POWER_LIMIT_MAX, facts.power_limit_max_milliwatts, 1000),
        (family.ENERGY, gpu.energy_millijoules, 1000),
        (family.FAN_SPEED, gpu.fan_percent, 100),
        (family.PERFORMANCE_STATE, gpu.performance_state, 1),
        (family.PERSISTENCE_MODE, gpu.is_persistent, 1),
        (family.ECC_ENABLED, gpu.ecc.is_enabled, 1),
        (family.ECC_ENABLED_PENDING, gpu.ecc.is_pending, 1),
        (family.ROW_REMAP_PENDING, rows.is_pending if rows else None, 1),
        (family.ROW_REMAP_FAILURE, rows.has_failed if rows else None, 1),
        (family.PAGE_RETIREMENT_PENDING, pages.is_pending if pages else None, 1),
        (family.PCIE_REPLAYS, gpu.pcie.replays, 1),
        (family.PCIE_GENERATION, gpu.pcie.generation, 1),
        (family.PCIE_GENERATION_MAX, facts.pcie_generation_max, 1),
        (family.PCIE_WIDTH, gpu.pcie.width, 1),
        (family.PCIE_WIDTH_MAX, facts.pcie_width_max, 1),
        (family.MIG_ENABLED, mig.is_enabled if mig else None, 1),
        (family.MIG_ENABLED_PENDING, mig.is_pending if mig else None, 1),
        (family.RECOVERY_ACTION, gpu.recovery_action, 1),
        (family.XID_WATCHED, gpu.is_xid_watched, 1),
    )
    for metric, value, divisor in singles:
        if value is not None:
            yield from identity.sample(metric, value / divisor)


def _labelled_samples(identity: Identity, gpu: Gpu) -> Iterable[Sample]:
    rows, pages, links = gpu.remapped_rows, gpu.retired_pages, gpu.nvlinks
    for metric, values, factor, divisor in (
        (family.ENGINE_UTILIZATION, gpu.engine_percents, 1, 100),
        (family.CLOCK, gpu.clocks_mhz, 1_000_000, 1),
        (family.CLOCK_MAX, {} if gpu.is_lost else gpu.facts.clocks_max_mhz, 1_000_000, 1),
        (
            family.TEMPERATURE_THRESHOLD,
            {} if gpu.is_lost else gpu.facts.temperature_thresholds_celsius,
            1,
            1,
        ),
        (family.THROTTLED, gpu.throttled_ns, 1, 1e9),
        (family.FAN_UNIT_SPEED, gpu.fan_percents, 1, 100),
        (family.ECC_ERRORS, gpu.ecc.aggregate, 1, 1),
        (family.ECC_ERRORS_VOLATILE, gpu.ecc.volatile, 1, 1),
        (
            family.REMAPPED_ROWS,
            {"corrected": rows.corrected, "uncorrected": rows.uncorrected} if rows else {},
            1,
            1,
        ),
        (family.ROW_REMAP_BANKS, gpu.row_remap_banks, 1, 1),
        (
            family.RETIRED_PAGES,
            {"single_bit": pages.single_bit, "double_bit": pages.double_bit} if pages else {},
            1,
            1,
        ),
        (family.NVLINK_UP, links.is_up, 1, 1),
        (family.NVLINK_ERRORS, links.errors, 1, 1),
        (family.NVLINK_LINK_ERRORS, links.link_errors, 1, 1),
        (
            family.NVLINK_BYTES,
            {"transmit": links.transmitted_bytes, "receive": links.received_bytes},
            1,
            1,
        ),
    ):
        for label, value in values.items():
            if value is not None:
                yield from identity.sample(metric, value * factor / divisor, str(label))
    for (kind, counter, location), count in gpu.ecc.located.items():
        yield from identity.sample(family.ECC_ERRORS_LOCATED, count, kind, counter, location)
    for reason, is_active in gpu.told_throttle_reasons().items():
        yield from identity.sample(family.THROTTLE_REASON, float(is_active), reason)
    if not gpu.is_lost:
        for reading, why in gpu.unavailable.items():
            if reading in _READINGS:
                yield from identity.sample(family.READING_UNAVAILABLE, 1, reading, why)


def _xid_samples(identity: Identity, gpu: Gpu) -> Iterable[Sample]:
    if gpu.is_xid_watched or gpu.xids:
        yield from identity.sample(family.XID_EVENTS, sum(xid.count for xid in gpu.xids))
    for xid in gpu.xids:
        yield from identity.sample(family.XID_ERRORS, xid.count, str(xid.number))
        yield from identity.sample(family.XID_LAST, xid.last_at, str(xid.number))


def _activity_samples(identity: Identity, activity: Activity | None) -> Iterable[Sample]:
    if activity is None:
        return
    for part, ratio in activity.ratios.items():
        yield from identity.sample(family.ACTIVITY, ratio, part)
    for direction, rate in (
        ("transmit", activity.pcie_transmitted_bytes_per_s),
        ("receive", activity.pcie_received_bytes_per_s),
    ):
        yield from identity.sample(family.PCIE_THROUGHPUT, rate, direction)


def _mig_samples(identity: Identity, gpu: Gpu, reading: Reading) -> Iterable[Sample]:
    for one in gpu.mig.instances if gpu.mig else ():
        yield from identity.sample(
            family.MIG_INFO, 1, one.uuid, one.profile, str(one.gpu_instance),
            str(one.compute_instance),
        )  # fmt: skip
        yield from identity.sample(family.MIG_UTILIZATION, _mig_utilization(one), one.uuid)
        if one.memory:
            yield from identity.sample(family.MIG_MEMORY_USED, one.memory.used_bytes, one.uuid)
            yield from identity.sample(
                family.MIG_MEMORY_TOTAL, one.memory.total_bytes, one.uuid
            )
        # The rules are the GPU's; a MIG device has other families, and a label more.
        for sample in process_samples(identity, one.processes or (), reading.owners):
            metric = _MIG_PROCESSES.get(sample.metric.name)
            if metric is not None:
                user = sample.labels[-1]
                yield from identity.sample(metric, sample.value, one.uuid, user)


_MIG_PROCESSES = {
    family.USER_PROCESSES.name: family.MIG_USER_PROCESSES,
    family.PROCESS_MEMORY.name: family.MIG_PROCESS_MEMORY,
}


def _mig_utilization(instance: Instance) -> float | None:
    """Return the share of time: of the utilisation if told, else of the activity counters."""
    if instance.utilization_percent is not None:
        return instance.utilization_percent / 100
    return instance.activity.ratios.get("graphics") if instance.activity else None


def _process_samples(identity: Identity, gpu: Gpu, reading: Reading) -> Iterable[Sample]:
    supported = identity.sample(
        family.PROCESS_QUERY_SUPPORTED, float(gpu.processes is not None)
    )
    if gpu.processes is None:
        return supported
    return chain(
        supported,
        process_samples(identity, gpu.processes, reading.owners),
        _pid_samples(identity, gpu.processes, reading),
    )


def _pid_samples(
    identity: Identity, processes: Iterable[DeviceProcess], reading: Reading
) -> Iterable[Sample]:
    for process in processes:
        name = reading.process_names.get(process.pid)
        if name is not None:
            user = reading.owners.get(process.pid, "")
            yield from identity.sample(
                family.PID_MEMORY, process.memory_bytes, user, str(process.pid), name
            )
