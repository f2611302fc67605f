"""Turn what NVML says of NVIDIA GPUs into samples. Only read() asks the driver."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import pynvml
from pydantic import Field

from ..accelerator import DeviceProcess
from ..compat.dcgm import DCGM
from ..compat.nvidia_smi import NVIDIA_SMI
from ..core import CollectorSettings, Compat, Device, DeviceReport, Sample, Scrape
from ..gpu import samples as native
from ..gpu.activity import ActivityMeters
from ..gpu.asking import Device as Asked
from ..gpu.device import read_gpu
from ..gpu.facts import FactsCache
from ..gpu.memory import read_memory
from ..gpu.reading import Facts, Gpu, Reading
from ..gpu.seldom import Seldom
from ..gpu.xids import XidWatch
from ..nvml import Nvml, is_installed
from ..owners import find_names, find_owners

METRICS = native.METRICS
COMPAT: Mapping[str, Compat] = {"dcgm": DCGM, "nvidia_smi": NVIDIA_SMI}


class Settings(CollectorSettings):
    """The section `[gpu]`."""

    # How many processes of each GPU have a series of their own, those with most memory first.
    pid_series: Annotated[int, Field(ge=0, le=1000)] = 0
    # Whether XID errors are waited for, which needs a thread.
    xids: bool = True
    # Whether the chip's own activity counters are read.
    activity: bool = True
    # How long an answer stands that is costly and changes seldom; 0: ask at each read.
    seldom_s: Annotated[float, Field(ge=0, le=3600)] = 60.0
    # Where the kernel's driver lists the cards.
    kernel_list: Path = Path("/proc/driver/nvidia/gpus")


_nvml = Nvml()
_facts = FactsCache()
_xids = XidWatch(_nvml)
_meters = ActivityMeters()
_seldom = Seldom()
_nvml.before_close.append(_meters.release)


def is_present(_settings: Settings) -> bool:
    """Whether the driver's library is installed."""
    return is_installed()


def read(settings: Settings) -> Reading:
    """Ask the driver for every GPU.

    Raises CollectorError when the driver is not there or not running.
    """
    problems: list[str] = []
    meters = _meters if settings.activity else None
    with _nvml.session(settings.kernel_list):
        known = _identify_all(problems)
        versions = _facts.read_versions(_nvml, problems)
        _seldom.begin(_nvml.generation, settings.seldom_s)
        gpus = [read_gpu(device, facts, meters, _seldom) for device, facts in known]
        _meters.keep(_uuids_in_use(gpus))
        if settings.xids:
            _xids.leave_out(frozenset(gpu.facts.uuid for gpu in gpus if gpu.is_lost))
            _xids.start()
        # Here: nobody is watched while the library is being closed.
        gpus = [_with_xids(gpu) for gpu in gpus]
    pids = {process.pid for gpu in gpus for process in gpu.processes or ()}
    shown = [
        process.pid
        for gpu in gpus
        for process in _largest(gpu.processes or (), settings.pid_series)
    ]
    return Reading(
        driver_version=versions.driver,
        gpus=tuple(gpus),
        owners=find_owners(pids),
        process_names=find_names(shown),
        cuda_version=versions.cuda,
        problems=tuple(problems),
    )


def parse(reading: Reading) -> Scrape:
    """Return the GPUs' samples; what a GPU does not tell has none."""
    samples: list[Sample] = []
    for gpu in reading.gpus:
        samples += native.gpu_samples(gpu, reading)
    return Scrape(samples, reading.problems)


def read_devices(settings: Settings) -> DeviceReport:
    """Return the GPUs; `minor` N is /dev/nvidiaN, which need not be the index."""
    problems: list[str] = []
    devices = []
    with _nvml.session(settings.kernel_list):
        for device, facts in _identify_all(problems):
            memory = read_memory(device)
            total = memory.total_bytes if memory else None
            devices.append(_describe(facts, total))
    return DeviceReport(devices, problems)


def _describe(facts: Facts, memory_bytes: int | None) -> Device:
    return Device(
        vendor="nvidia",
        uuid=facts.uuid,
        index=facts.index,
        minor=facts.minor,
        model=facts.model,
        bus_id=facts.bus_id,
        memory_bytes=memory_bytes,
    )


def _identify_all(problems: list[str]) -> list[tuple[Asked, Facts]]:
    """Return every GPU with its facts; one of which nothing is known is a problem."""
    _facts.begin(_nvml.generation)
    count = pynvml.nvmlDeviceGetCount()
    devices = [Asked(_nvml, index, problems) for index in range(count)]
    facts = {device.index: _facts.read(device) for device in devices}
    found = {one.uuid for one in facts.values() if one is not None}
    known = []
    for device in devices:
        # One that is lost now is still known, unless the cards have changed places.
        one = facts[device.index] or _facts.recall(device.index, found)
        if one is None:
            problems.append(f"GPU {device.index}: has no uuid")
        else:
            known.append((device, one))
    _facts.forget_beyond(count)
    return known


def _with_xids(gpu: Gpu) -> Gpu:
    return replace(
        gpu,
        is_xid_watched=_xids.is_watched(gpu.facts.uuid),
        xids=_xids.counted(gpu.facts.uuid),
    )


def _uuids_in_use(gpus: Iterable[Gpu]) -> set[str]:
    uuids = set()
    for gpu in gpus:
        uuids.add(gpu.facts.uuid)
        uuids |= {instance.uuid for instance in (gpu.mig.instances if gpu.mig else ())}
    return uuids


def _largest(processes: Iterable[DeviceProcess], count: int) -> list[DeviceProcess]:
    return sorted(processes, key=lambda process: (-(process.memory_bytes or 0), process.pid))[
        :count
    ]
