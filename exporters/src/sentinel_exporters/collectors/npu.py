"""Turn what npu-smi says of Ascend NPUs into samples. Only read() runs commands."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from .. import accelerator as family
from ..accelerator import DeviceProcess, Identity, process_samples
from ..core import CollectorSettings, Device, DeviceReport, Sample, Scrape, TimeoutS
from ..npu_smi.command import is_installed, run_npu_smi
from ..npu_smi.errors import NpuSmiError
from ..npu_smi.identity import NamedChip, name_chips
from ..npu_smi.info import Chip, Info, Usage, parse_info
from ..npu_smi.mapping import parse_mapping
from ..owners import find_owners

VENDOR = "ascend"
METRICS = (
    family.INFO,
    family.TOOL_INFO,
    family.UTILIZATION,
    family.MEMORY_USED,
    family.MEMORY_TOTAL,
    family.TEMPERATURE,
    family.POWER,
    family.HEALTHY,
    family.HEALTH_INFO,
    family.HUGEPAGES_USED,
    family.HUGEPAGES_TOTAL,
    family.PROCESS_QUERY_SUPPORTED,
    family.PROCESSES,
    family.USER_PROCESSES,
    family.PROCESS_MEMORY,
)


class Settings(CollectorSettings):
    """The section `[npu]`."""

    # npu-smi takes about a second for each eight cards, and more on a busy machine.
    timeout_s: TimeoutS = 9.0
    # The program, with arguments if need be; no shell is involved.
    command: str = "npu-smi"


@dataclass(frozen=True)
class Reading:
    """What one run of npu-smi said; `problems` is what else went wrong meanwhile."""

    info: Info
    mapping: Mapping[tuple[int, int], int] | None
    owners: Mapping[int, str]
    problems: tuple[str, ...] = ()


def is_present(settings: Settings) -> bool:
    """Whether npu-smi is installed."""
    return is_installed(settings.command)


def read(settings: Settings) -> Reading:
    """Run `npu-smi info` and `npu-smi info -m`, and look up the owners of the processes.

    Raises NpuSmiError when the first gives no table.
    """
    deadline = time.monotonic() + settings.timeout_s
    info = parse_info(run_npu_smi(settings.command, "info", timeout_s=settings.timeout_s))
    mapping, problems = None, []
    try:
        left_s = max(0.1, deadline - time.monotonic())
        mapping = parse_mapping(run_npu_smi(settings.command, "info", "-m", timeout_s=left_s))
    except NpuSmiError as error:
        problems.append(str(error))
    owners = find_owners(process.pid for process in info.processes)
    return Reading(info, mapping, owners, tuple(problems))


def parse(reading: Reading) -> Scrape:
    """Return the chips' samples; what the table does not tell has none."""
    info = reading.info
    chips, problems = name_chips(info.chips, reading.mapping)
    samples = [family.TOOL_INFO.sample(1, VENDOR, "npu-smi", info.tool_version)]
    for named in chips:
        samples += _chip_samples(named, info)
    for named in chips:
        processes = _find_processes(named.chip, info)
        identity = _identity(named)
        samples += identity.sample(family.PROCESS_QUERY_SUPPORTED, float(processes is not None))
        if processes is not None:
            samples += process_samples(identity, processes, reading.owners)
    return Scrape(samples, (*info.problems, *reading.problems, *problems))


def read_devices(settings: Settings) -> DeviceReport:
    """Return the chips; index and minor are the logic id.

    Where the tool has logic ids and does not tell them now, there is no device: access is
    granted by /dev/davinciN, and a guess could open another's card.
    """
    reading = read(settings)
    chips, naming_problems = name_chips(reading.info.chips, reading.mapping)
    problems = (*reading.info.problems, *reading.problems, *naming_problems)
    places = {(named.chip.npu_id, named.chip.chip_id) for named in chips}
    if reading.problems or (reading.mapping is not None and not places <= set(reading.mapping)):
        return DeviceReport((), problems)
    devices = [
        Device(
            vendor="ascend",
            uuid=named.uuid,
            index=named.logic_id,
            minor=named.logic_id,
            model=_model(named.chip),
            bus_id=named.chip.bus_id or "",
            memory_bytes=memory.total if (memory := _memory(named.chip)) else None,
        )
        for named in chips
    ]
    return DeviceReport(devices, problems)


def _chip_samples(named: NamedChip, info: Info) -> list[Sample]:
    chip, identity = named.chip, _identity(named)
    memory = _memory(chip)
    samples = identity.sample(
        family.INFO, 1, _model(chip), chip.bus_id or "", info.driver_version
    )
    if chip.aicore_percent is not None:
        samples += identity.sample(family.UTILIZATION, chip.aicore_percent / 100)
    if memory:
        samples += identity.sample(family.MEMORY_USED, memory.used)
        samples += identity.sample(family.MEMORY_TOTAL, memory.total)
    if chip.hugepages:
        samples += identity.sample(family.HUGEPAGES_USED, chip.hugepages.used)
        samples += identity.sample(family.HUGEPAGES_TOTAL, chip.hugepages.total)
    samples += identity.sample(family.TEMPERATURE, chip.temperature_celsius)
    samples += identity.sample(family.POWER, chip.power_watts)
    # OK, Warning, Alarm, Critical or UNKNOWN; of the last nothing can be said.
    if chip.health.upper() not in {"NA", "-", "UNKNOWN"}:
        samples += identity.sample(family.HEALTHY, float(chip.health == "OK"))
        samples += identity.sample(family.HEALTH_INFO, 1, chip.health)
    return samples


def _find_processes(chip: Chip, info: Info) -> list[DeviceProcess] | None:
    """Return the chip's processes, or None where the output does not tell them."""
    if chip.npu_id not in info.counted_npus:
        return None
    on_card = [process for process in info.processes if process.npu_id == chip.npu_id]
    chips_on_card = [other for other in info.chips if other.npu_id == chip.npu_id]
    if len(chips_on_card) > 1 and any(process.chip_id is None for process in on_card):
        return None  # the row names the card alone, and could be either chip's
    return [
        DeviceProcess(process.pid, process.memory_bytes)
        for process in on_card
        if process.chip_id in {None, chip.chip_id}
    ]


def _identity(named: NamedChip) -> Identity:
    return Identity(named.uuid, named.logic_id, VENDOR)


def _model(chip: Chip) -> str:
    return chip.name if chip.name.startswith("Ascend") else f"Ascend {chip.name}"


def _memory(chip: Chip) -> Usage | None:
    """Return the memory that programs compute in: HBM where the chip has it, else DDR."""
    return chip.hbm or chip.ddr
