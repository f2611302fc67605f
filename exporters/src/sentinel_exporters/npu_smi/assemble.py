"""Put together what npu-smi said of each chip in its several answers. Pure: runs nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ..accelerator import DeviceProcess
from ..npu import reading
from ..npu.reading import NO_PID, Details
from .identity import NamedChip
from .info import Chip, Info


def assemble(
    info: Info, named: Sequence[NamedChip], details: Mapping[tuple[int, int], Details]
) -> tuple[reading.Chip, ...]:
    """Return the chips with their processes and details, by card and chip."""
    return tuple(
        _assemble(one, info, details.get((one.chip.npu_id, one.chip.chip_id), Details()))
        for one in named
    )


def _assemble(named: NamedChip, info: Info, details: Details) -> reading.Chip:
    chip = named.chip
    processes = _find_processes(chip, info)
    if processes is None:
        processes = details.processes
    power_watts = chip.power_watts
    if power_watts is None and not _shows_power(chip.npu_id, info):
        power_watts = details.power_watts
    return reading.Chip(
        uuid=named.uuid,
        logic_id=named.logic_id,
        physical_id=named.physical_id,
        npu_id=chip.npu_id,
        chip_id=chip.chip_id,
        name=chip.name,
        health=chip.health,
        bus_id=chip.bus_id,
        power_watts=power_watts,
        temperature_celsius=chip.temperature_celsius,
        # Of a chip that is split the table shows 0, and means that the driver cannot tell.
        aicore_percent=None if details.has_utilization is False else chip.aicore_percent,
        ddr=chip.ddr,
        hbm=chip.hbm,
        hugepages=chip.hugepages,
        has_damaged_hbm="hbm-usage" in chip.damaged,
        processes=None if processes is None else _join(processes),
        details=details,
    )


def _join(processes: Iterable[DeviceProcess]) -> tuple[DeviceProcess, ...]:
    """Return each process once, of which the tool may have several rows for a chip.

    Its memory is the sum, and not known where that of one row is not. Those without a number
    cannot be told apart, and stay.
    """
    joined: dict[int, DeviceProcess] = {}
    nameless: list[DeviceProcess] = []
    for one in processes:
        if one.pid == NO_PID:
            nameless.append(one)
            continue
        before = joined.get(one.pid, DeviceProcess(one.pid, 0)).memory_bytes
        memory_bytes = None
        if before is not None and one.memory_bytes is not None:
            memory_bytes = before + one.memory_bytes
        joined[one.pid] = DeviceProcess(one.pid, memory_bytes)
    return (*joined.values(), *nameless)


def _shows_power(npu_id: int, info: Info) -> bool:
    """Whether the table has the card's power, which is then that of both of its chips."""
    return any(
        one.npu_id == npu_id and (one.power_watts is not None or "power" in one.damaged)
        for one in info.chips
    )


def _find_processes(chip: Chip, info: Info) -> tuple[DeviceProcess, ...] | None:
    """Return the chip's processes, or None where the table does not tell them."""
    if chip.npu_id not in info.counted_npus:
        return None
    on_card = [process for process in info.processes if process.npu_id == chip.npu_id]
    chips_on_card = [other for other in info.chips if other.npu_id == chip.npu_id]
    if len(chips_on_card) > 1 and any(process.chip_id is None for process in on_card):
        return None  # the row names the card alone, and could be either chip's
    return tuple(
        DeviceProcess(NO_PID if process.pid is None else process.pid, process.memory_bytes)
        for process in on_card
        if process.chip_id in {None, chip.chip_id}
    )
