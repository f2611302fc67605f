"""Read what memory a GPU or MIG device has: sizes, errors, rows and pages out of use."""

from __future__ import annotations

from collections.abc import Mapping

import pynvml

from .asking import Device
from .reading import Ecc, Memory, RemappedRows, RetiredPages
from .seldom import Seldom

_ECC_TYPES = {
    "corrected": pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED,
    "uncorrected": pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
}
_ECC_COUNTERS = {
    "volatile": pynvml.NVML_VOLATILE_ECC,
    "aggregate": pynvml.NVML_AGGREGATE_ECC,
}
# The GPUs of the last years count by these two; older ones by cache and register file, too.
_ECC_LOCATIONS = {
    "dram": pynvml.NVML_MEMORY_LOCATION_DRAM,
    "sram": pynvml.NVML_MEMORY_LOCATION_SRAM,
}


def read_memory(device: Device) -> Memory | None:
    """Return the memory's use.

    The second version does not count what the driver keeps for itself as used, as nvidia-smi
    does not; drivers before 510 only have the first.
    """
    memory = device.ask_first(
        "memory_used_bytes",
        (pynvml.nvmlDeviceGetMemoryInfo, (pynvml.nvmlMemory_v2,)),
        (pynvml.nvmlDeviceGetMemoryInfo, ()),
    )
    if memory is None:
        return None
    return Memory(memory.total, memory.used, memory.free, getattr(memory, "reserved", None))


def read_ecc(device: Device, uuid: str, seldom: Seldom) -> Ecc:
    """Return the counts of memory errors; where errors are not corrected there are none."""
    mode = device.ask("ecc_enabled", pynvml.nvmlDeviceGetEccMode)
    return Ecc(
        is_enabled=bool(mode[0]) if mode else None,
        is_pending=bool(mode[1]) if mode else None,
        volatile=_read_totals(device, "ecc_errors_volatile_total", "volatile"),
        aggregate=_read_totals(device, "ecc_errors_total", "aggregate"),
        located=seldom.ask(device, uuid, "located errors", _read_located)
        if mode and mode[0]
        else {},
    )


def _read_totals(device: Device, reading: str, counter: str) -> Mapping[str, int]:
    return device.ask_each(
        reading,
        lambda handle, kind: pynvml.nvmlDeviceGetTotalEccErrors(
            handle, kind, _ECC_COUNTERS[counter]
        ),
        _ECC_TYPES,
    )


def _read_located(device: Device) -> dict[tuple[str, str, str], int]:
    places = {
        (kind, counter, location): (_ECC_TYPES[kind], _ECC_COUNTERS[counter], at)
        for kind in _ECC_TYPES
        for counter in _ECC_COUNTERS
        for location, at in _ECC_LOCATIONS.items()
    }
    found: dict[tuple[str, str, str], int] = {}
    for place, arguments in places.items():
        count = device.ask(
            "ecc_errors_located_total", pynvml.nvmlDeviceGetMemoryErrorCounter, *arguments
        )
        if count is not None:
            found[place] = count
    if found:
        device.settle("ecc_errors_located_total")
    return found


def read_remapped_rows(device: Device) -> RemappedRows | None:
    """Return the rows that were replaced (Ampere and later)."""
    rows = device.ask("remapped_rows_total", pynvml.nvmlDeviceGetRemappedRows)
    if rows is None:
        return None
    corrected, uncorrected, is_pending, has_failed = rows
    return RemappedRows(corrected, uncorrected, bool(is_pending), bool(has_failed))


def read_row_remap_banks(device: Device) -> dict[str, int]:
    """Return how many banks of the memory have how many spare rows left."""
    banks = device.ask("row_remap_banks", pynvml.nvmlDeviceGetRowRemapperHistogram)
    if banks is None:
        return {}
    return {name: getattr(banks, name) for name in ("max", "high", "partial", "low", "none")}


def read_retired_pages(device: Device) -> RetiredPages | None:
    """Return the pages out of use (before Ampere)."""
    single = device.ask(
        "retired_pages_total",
        pynvml.nvmlDeviceGetRetiredPages,
        pynvml.NVML_PAGE_RETIREMENT_CAUSE_MULTIPLE_SINGLE_BIT_ECC_ERRORS,
    )
    if single is None:
        return None
    double = device.ask(
        "retired_pages_total",
        pynvml.nvmlDeviceGetRetiredPages,
        pynvml.NVML_PAGE_RETIREMENT_CAUSE_DOUBLE_BIT_ECC_ERROR,
    )
    pending = device.ask(
        "page_retirement_pending", pynvml.nvmlDeviceGetRetiredPagesPendingStatus
    )
    return RetiredPages(
        single_bit=len(single),
        double_bit=None if double is None else len(double),
        is_pending=None if pending is None else bool(pending),
    )
