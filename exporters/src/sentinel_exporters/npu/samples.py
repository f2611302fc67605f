"""Turn a reading of the chips into samples of the native family. Reads nothing."""

from __future__ import annotations

from collections.abc import Iterator

from .. import accelerator as family
from ..accelerator import Identity, process_samples
from ..core import Sample
from .reading import Chip, Details, Ecc, Reading

VENDOR = "ascend"
METRICS = (
    family.INFO,
    family.TOOL_INFO,
    family.UTILIZATION,
    family.ENGINE_UTILIZATION,
    family.MEMORY_USED,
    family.MEMORY_TOTAL,
    family.MEMORY_BANDWIDTH,
    family.TEMPERATURE,
    family.MEMORY_TEMPERATURE,
    family.POWER,
    family.VOLTAGE,
    family.CLOCK,
    family.CORES,
    family.ECC_ERRORS,
    family.ECC_ERRORS_VOLATILE,
    family.RETIRED_PAGES,
    family.HEALTHY,
    family.HEALTH_INFO,
    family.ERROR_CODE,
    family.NETWORK_HEALTHY,
    family.NETWORK_HEALTH_INFO,
    family.NETWORK_THROUGHPUT,
    family.HUGEPAGES_USED,
    family.HUGEPAGES_TOTAL,
    family.VNPU_INFO,
    family.VNPU_IN_USE,
    family.VNPU_CORES,
    family.VNPU_MEMORY,
    family.VNPU_FREE_CORES,
    family.PROCESS_QUERY_SUPPORTED,
    family.PROCESSES,
    family.USER_PROCESSES,
    family.PROCESS_MEMORY,
)

# OK, Warning, Alarm, Critical or UNKNOWN; of the last nothing can be said.
_NO_HEALTH = frozenset({"NA", "-", "UNKNOWN"})
# The detection of the network has not begun, as without a peer's address: no verdict.
_NO_NETWORK_VERDICT = frozenset({"INIT"})


def make_samples(reading: Reading) -> list[Sample]:
    """Return the chips' samples; what the source does not tell has none."""
    samples = [family.TOOL_INFO.sample(1, VENDOR, reading.tool, reading.tool_version)]
    for chip in reading.chips:
        identity = Identity(chip.uuid, chip.logic_id, VENDOR)
        samples += identity.sample(
            family.INFO, 1, chip.model, chip.bus_id or "", reading.driver_version
        )
        samples += _of_table(identity, chip)
        samples += _of_details(identity, chip.details)
        samples += _of_vnpus(identity, chip.details)
        known = chip.processes is not None
        samples += identity.sample(family.PROCESS_QUERY_SUPPORTED, float(known))
        if chip.processes is not None:
            samples += process_samples(identity, chip.processes, reading.owners)
    return samples


def _of_table(identity: Identity, chip: Chip) -> Iterator[Sample]:
    yield from identity.sample(family.UTILIZATION, _ratio(chip.aicore_percent))
    if chip.memory:
        yield from identity.sample(family.MEMORY_USED, chip.memory.used)
        yield from identity.sample(family.MEMORY_TOTAL, chip.memory.total)
    if chip.hugepages:
        yield from identity.sample(family.HUGEPAGES_USED, chip.hugepages.used)
        yield from identity.sample(family.HUGEPAGES_TOTAL, chip.hugepages.total)
    yield from identity.sample(family.TEMPERATURE, chip.temperature_celsius)
    yield from identity.sample(family.POWER, chip.power_watts)
    if chip.health.upper() not in _NO_HEALTH:
        yield from identity.sample(family.HEALTHY, float(chip.health.upper() == "OK"))
        yield from identity.sample(family.HEALTH_INFO, 1, chip.health)


def _of_details(identity: Identity, details: Details) -> Iterator[Sample]:
    for engine, percent in (details.engines or {}).items():
        yield from identity.sample(family.ENGINE_UTILIZATION, percent / 100, engine)
    yield from identity.sample(family.MEMORY_BANDWIDTH, _ratio(details.bandwidth_percent))
    yield from identity.sample(family.MEMORY_TEMPERATURE, details.memory_celsius)
    yield from identity.sample(family.VOLTAGE, details.voltage_volts)
    yield from identity.sample(family.CLOCK, details.aicore_hertz, "aicore")
    yield from identity.sample(family.CORES, details.aicores)
    yield from _of_ecc(identity, [one for one in (details.hbm_ecc, details.ddr_ecc) if one])
    for code in details.error_codes or ():
        yield from identity.sample(family.ERROR_CODE, 1, code)
    if details.network is not None:
        yield from identity.sample(family.NETWORK_HEALTH_INFO, 1, details.network)
        if details.network.upper() not in _NO_NETWORK_VERDICT:
            is_healthy = details.network.upper() == "SUCCESS"
            yield from identity.sample(family.NETWORK_HEALTHY, float(is_healthy))
    for direction, rate in (
        ("transmit", details.network_transmitted_bytes_per_s),
        ("receive", details.network_received_bytes_per_s),
    ):
        yield from identity.sample(family.NETWORK_THROUGHPUT, rate, direction)


def _of_ecc(identity: Identity, memories: list[Ecc]) -> Iterator[Sample]:
    """Yield the errors of all memory that the chip has; a 910A has two kinds."""
    bits = ("corrected", "uncorrected")
    for metric, names, pairs in (
        (family.ECC_ERRORS, bits, [one.lifetime for one in memories]),
        (family.ECC_ERRORS_VOLATILE, bits, [one.recent for one in memories]),
        (family.RETIRED_PAGES, ("single_bit", "double_bit"), [one.pages for one in memories]),
    ):
        told = [pair for pair in pairs if pair is not None]
        for at, name in enumerate(names):
            count = sum(pair[at] for pair in told) if told else None
            yield from identity.sample(metric, count, name)


def _of_vnpus(identity: Identity, details: Details) -> Iterator[Sample]:
    for vnpu in details.vnpus or ():
        name = str(vnpu.vnpu_id)
        yield from identity.sample(
            family.VNPU_INFO, 1, name, vnpu.group, vnpu.template, vnpu.container
        )
        if vnpu.is_used is not None:
            yield from identity.sample(family.VNPU_IN_USE, float(vnpu.is_used), name)
        template = (details.templates or {}).get(vnpu.template)
        if template is not None:
            yield from identity.sample(family.VNPU_CORES, template.aicores, name)
            yield from identity.sample(family.VNPU_MEMORY, template.memory_bytes, name)
    if details.vnpus:
        yield from identity.sample(family.VNPU_FREE_CORES, details.free_aicores)


def _ratio(percent: float | None) -> float | None:
    return None if percent is None else percent / 100
