"""Read a GPU's MIG mode and the MIG devices that it is split into. Makes no sample."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import pynvml

from ..accelerator import DeviceProcess
from .activity import ActivityMeters
from .asking import Device
from .memory import read_memory
from .processes import read_processes
from .reading import Instance, Mig


def read_mig(device: Device, meters: ActivityMeters | None) -> Mig | None:
    """Return the MIG mode and the MIG devices; None where the GPU knows no MIG."""
    mode = device.ask("mig_enabled", pynvml.nvmlDeviceGetMigMode)
    if mode is None:
        return None
    is_enabled = mode[0] == pynvml.NVML_DEVICE_MIG_ENABLE
    instances = []
    if is_enabled:
        count = device.ask("mig_info", pynvml.nvmlDeviceGetMaxMigDeviceCount) or 0
        for index in range(count):
            instance = _read_instance(device, index, meters)
            if instance is not None:
                instances.append(instance)
    return Mig(is_enabled, mode[1] == pynvml.NVML_DEVICE_MIG_ENABLE, tuple(instances))


def _read_instance(
    parent: Device, index: int, meters: ActivityMeters | None
) -> Instance | None:
    """Return the MIG device at the index, or None: most indices are of none."""
    handle = parent.ask("mig_devices", pynvml.nvmlDeviceGetMigDeviceHandleByIndex, index)
    parent.unavailable.pop("mig_devices", None)
    if handle is None:
        return None
    device = parent.of(handle)
    uuid = device.ask("uuid", pynvml.nvmlDeviceGetUUID)
    gpu_instance = device.ask("gpu_instance", pynvml.nvmlDeviceGetGpuInstanceId)
    compute_instance = device.ask("compute_instance", pynvml.nvmlDeviceGetComputeInstanceId)
    if uuid is None or gpu_instance is None or compute_instance is None:
        return None
    rates = device.ask("mig_utilization_ratio", pynvml.nvmlDeviceGetUtilizationRates)
    instance = Instance(
        uuid=uuid,
        profile=_read_profile(device),
        gpu_instance=gpu_instance,
        compute_instance=compute_instance,
        memory=read_memory(device),
        utilization_percent=rates.gpu if rates else None,
        activity=meters.measure(parent, uuid, gpu_instance) if meters else None,
        processes=read_processes(device),
    )
    parent.is_lost = parent.is_lost or device.is_lost
    return instance


def _read_profile(device: Device) -> str:
    """Return the profile as nvidia-smi writes it, `1g.10gb`, or "".

    It ends the MIG device's name (`NVIDIA A100-SXM4-80GB MIG 1g.10gb`); where it does not, it
    is made of the slices and the memory, which a profile's name rounds up to GiB.
    """
    name = device.ask("model", pynvml.nvmlDeviceGetName) or ""
    _, _, profile = name.partition(" MIG ")
    if profile:
        return str(profile)
    attributes = device.ask("profile", pynvml.nvmlDeviceGetAttributes)
    if attributes is None:
        return ""
    slices, computing = attributes.gpuInstanceSliceCount, attributes.computeInstanceSliceCount
    part = f"{computing}c." if computing != slices else ""
    return f"{part}{slices}g.{-(-attributes.memorySizeMB // 1024)}gb"


def with_instances(
    own: tuple[DeviceProcess, ...] | None, instances: Iterable[Instance]
) -> tuple[DeviceProcess, ...] | None:
    """Return the GPU's processes with those of its MIG devices.

    A process on several MIG devices holds the sum. The GPU itself may tell the same processes
    (to root), some of them, or none; None where it tells none and not each MIG device does.
    """
    of_each = [instance.processes for instance in instances]
    told = [processes for processes in of_each if processes is not None]
    if not told or (own is None and len(told) < len(of_each)):
        return own
    sums: dict[int, int | None] = defaultdict(int)
    for process in (process for processes in told for process in processes):
        so_far = sums[process.pid]
        sums[process.pid] = (
            None
            if so_far is None or process.memory_bytes is None
            else so_far + process.memory_bytes
        )
    for process in own or ():
        if process.pid not in sums:
            sums[process.pid] = process.memory_bytes
    return tuple(DeviceProcess(pid, size) for pid, size in sums.items())
