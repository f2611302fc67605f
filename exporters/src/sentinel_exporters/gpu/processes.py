"""Read which processes are on a GPU or MIG device. Knows nobody's owner."""

from __future__ import annotations

from collections.abc import Iterable

import pynvml

from ..accelerator import DeviceProcess
from .asking import Device, Query

# The newest first. The unversioned functions of pynvml fail on older drivers in a way of their
# own, which is no NVMLError.
_COMPUTE: tuple[Query, ...] = (
    (pynvml.nvmlDeviceGetComputeRunningProcesses_v3, ()),
    (pynvml.nvmlDeviceGetComputeRunningProcesses_v2, ()),
)
_OTHERS: tuple[tuple[Query, ...], ...] = (
    (
        (pynvml.nvmlDeviceGetGraphicsRunningProcesses_v3, ()),
        (pynvml.nvmlDeviceGetGraphicsRunningProcesses_v2, ()),
    ),
    (
        (pynvml.nvmlDeviceGetMPSComputeRunningProcesses_v3, ()),
        (pynvml.nvmlDeviceGetMPSComputeRunningProcesses_v2, ()),
    ),
)


def read_processes(device: Device) -> tuple[DeviceProcess, ...] | None:
    """Return each process once, or None where the driver does not tell the computing ones."""
    computing = device.ask_first("processes", *_COMPUTE)
    if computing is None:
        return None
    found = [DeviceProcess(one.pid, one.usedGpuMemory) for one in computing]
    for queries in _OTHERS:
        for one in device.ask_first("other_processes", *queries) or ():
            found.append(DeviceProcess(one.pid, one.usedGpuMemory))
    # That there is no drawing or sharing here is no reading of its own.
    device.unavailable.pop("other_processes", None)
    return join_same(found)


def join_same(processes: Iterable[DeviceProcess]) -> tuple[DeviceProcess, ...]:
    """Return each process once.

    A process that computes and draws is in two lists, with all its memory in each.
    """
    memory: dict[int, int | None] = {}
    for process in processes:
        known = [memory.get(process.pid), process.memory_bytes]
        memory[process.pid] = max((size for size in known if size is not None), default=None)
    return tuple(DeviceProcess(pid, size) for pid, size in memory.items())
