"""Turn what NVML says of NVIDIA GPUs into samples. Only read() asks the driver."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pynvml

from .. import accelerator as family
from ..accelerator import DeviceProcess, Identity, process_samples
from ..core import CollectorSettings, Device, DeviceReport, Sample, Scrape
from ..nvml import DeviceError, Nvml, is_installed
from ..owners import find_owners

VENDOR = "nvidia"
METRICS = (
    family.INFO,
    family.UTILIZATION,
    family.MEMORY_BUSY,
    family.MEMORY_USED,
    family.MEMORY_TOTAL,
    family.TEMPERATURE,
    family.POWER,
    family.POWER_LIMIT,
    family.ENERGY,
    family.CLOCK,
    family.FAN_SPEED,
    family.PERFORMANCE_STATE,
    family.ECC_ERRORS,
    family.HEALTHY,
    family.PROCESS_QUERY_SUPPORTED,
    family.PROCESSES,
    family.USER_PROCESSES,
    family.PROCESS_MEMORY,
)

_CLOCKS = {
    "graphics": pynvml.NVML_CLOCK_GRAPHICS,
    "sm": pynvml.NVML_CLOCK_SM,
    "memory": pynvml.NVML_CLOCK_MEM,
    "video": pynvml.NVML_CLOCK_VIDEO,
}
_ECC_TYPES = {
    "corrected": pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED,
    "uncorrected": pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
}
_PROCESS_LISTS = (
    pynvml.nvmlDeviceGetComputeRunningProcesses,
    pynvml.nvmlDeviceGetGraphicsRunningProcesses,
    pynvml.nvmlDeviceGetMPSComputeRunningProcesses,
)


class Settings(CollectorSettings):
    """The section `[gpu]`."""


@dataclass(frozen=True)
class Gpu:
    """One GPU as NVML tells it, in NVML's units; None is a reading that it does not have."""

    index: int
    uuid: str
    model: str
    bus_id: str
    minor: int | None
    utilization_percent: int | None = None
    memory_busy_percent: int | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    temperature_celsius: int | None = None
    power_milliwatts: int | None = None
    power_limit_milliwatts: int | None = None
    energy_millijoules: int | None = None
    clocks_mhz: Mapping[str, int] = field(default_factory=dict)
    fan_percent: int | None = None
    performance_state: int | None = None
    ecc_errors: Mapping[str, int] = field(default_factory=dict)
    is_healthy: bool = True
    processes: tuple[DeviceProcess, ...] | None = None


@dataclass(frozen=True)
class Reading:
    """All GPUs at one time."""

    driver_version: str
    gpus: tuple[Gpu, ...]
    owners: Mapping[int, str]
    problems: tuple[str, ...] = ()


_nvml = Nvml()
# By index: a GPU that is lost does not tell any more who it was.
_identities: dict[int, Gpu] = {}


def is_present(_settings: Settings) -> bool:
    """Whether the driver's library is installed."""
    return is_installed()


def read(_settings: Settings) -> Reading:
    """Ask the driver for every GPU.

    Raises CollectorError when the driver is not there or not running.
    """
    gpus: list[Gpu] = []
    problems: list[str] = []
    with _nvml.session():
        driver_version = _nvml.ask(pynvml.nvmlSystemGetDriverVersion) or ""
        for index in range(pynvml.nvmlDeviceGetCount()):
            gpu = _read_gpu(index, problems)
            if gpu is not None:
                gpus.append(gpu)
    owners = find_owners(process.pid for gpu in gpus for process in gpu.processes or ())
    return Reading(driver_version, tuple(gpus), owners, tuple(problems))


class _Device:
    """One GPU that is being asked; what goes wrong is noted, and a lost one asked no more."""

    def __init__(self, index: int, problems: list[str]) -> None:
        self.index = index
        self.is_lost = False
        self._problems = problems
        self._handle = self._try(pynvml.nvmlDeviceGetHandleByIndex, index)

    # Any: pynvml has no types; each caller knows what the function returns.
    def ask(self, function: Callable[..., Any], *arguments: object) -> Any:
        """Return what the function says, or None."""
        if self.is_lost or self._handle is None:
            return None
        return self._try(function, self._handle, *arguments)

    def _try(self, function: Callable[..., Any], *arguments: object) -> Any:
        try:
            return _nvml.ask(function, *arguments)
        except DeviceError as error:
            self.is_lost = error.is_lost
            self._problems.append(f"GPU {self.index}: {error}")
            return None


def _read_gpu(index: int, problems: list[str]) -> Gpu | None:
    """Return the GPU with what could be read of it, or None when not even its name could."""
    device = _Device(index, problems)
    identity = _read_identity(device)
    if identity is None:
        identity = _identities.get(index)
    if identity is None:
        problems.append(f"GPU {index}: has no uuid")
        return None
    _identities[index] = identity
    rates = device.ask(pynvml.nvmlDeviceGetUtilizationRates)
    memory = _read_memory(device)
    state = device.ask(pynvml.nvmlDeviceGetPerformanceState)
    remapped = device.ask(pynvml.nvmlDeviceGetRemappedRows)
    gpu = replace(
        identity,
        utilization_percent=rates.gpu if rates else None,
        memory_busy_percent=rates.memory if rates else None,
        memory_used_bytes=memory.used if memory else None,
        memory_total_bytes=memory.total if memory else None,
        temperature_celsius=device.ask(
            pynvml.nvmlDeviceGetTemperature, pynvml.NVML_TEMPERATURE_GPU
        ),
        power_milliwatts=device.ask(pynvml.nvmlDeviceGetPowerUsage),
        power_limit_milliwatts=device.ask(pynvml.nvmlDeviceGetEnforcedPowerLimit),
        energy_millijoules=device.ask(pynvml.nvmlDeviceGetTotalEnergyConsumption),
        clocks_mhz=_ask_each(device, pynvml.nvmlDeviceGetClockInfo, _CLOCKS),
        fan_percent=device.ask(pynvml.nvmlDeviceGetFanSpeed),
        performance_state=None if state == pynvml.NVML_PSTATE_UNKNOWN else state,
        ecc_errors=_ask_each(
            device,
            lambda handle, kind: pynvml.nvmlDeviceGetTotalEccErrors(
                handle, kind, pynvml.NVML_AGGREGATE_ECC
            ),
            _ECC_TYPES,
        ),
        processes=_read_processes(device),
    )
    # The last of (correctable, uncorrectable, pending, failed): no spare row was left.
    has_failed = remapped is not None and bool(remapped[3])
    return replace(gpu, is_healthy=not device.is_lost and not has_failed)


def _read_identity(device: _Device) -> Gpu | None:
    uuid = device.ask(pynvml.nvmlDeviceGetUUID)
    pci = device.ask(pynvml.nvmlDeviceGetPciInfo)
    model = device.ask(pynvml.nvmlDeviceGetName)
    minor = device.ask(pynvml.nvmlDeviceGetMinorNumber)
    if device.is_lost or uuid is None:
        return None
    bus_id = f"{pci.domain:04X}:{pci.bus:02X}:{pci.device:02X}.0" if pci else ""
    return Gpu(device.index, uuid, model or "", bus_id, minor)


def _read_memory(device: _Device) -> Any:  # Any: one of pynvml's two structures
    # The second version does not count what the driver keeps for itself as used, as nvidia-smi
    # does not; drivers before 510 only have the first.
    return device.ask(pynvml.nvmlDeviceGetMemoryInfo, pynvml.nvmlMemory_v2) or device.ask(
        pynvml.nvmlDeviceGetMemoryInfo
    )


def _ask_each(
    device: _Device, function: Callable[..., Any], kinds: Mapping[str, int]
) -> dict[str, int]:
    answers = {name: device.ask(function, kind) for name, kind in kinds.items()}
    return {name: answer for name, answer in answers.items() if answer is not None}


def _read_processes(device: _Device) -> tuple[DeviceProcess, ...] | None:
    """Return each process once, or None where the driver does not tell the computing ones."""
    lists = [device.ask(function) for function in _PROCESS_LISTS]
    if lists[0] is None:
        return None
    memory: dict[int, int | None] = {}
    for process in (process for found in lists for process in found or ()):
        # A process that computes and draws is in two lists, with all its memory in each.
        known = [memory.get(process.pid), process.usedGpuMemory]
        memory[process.pid] = max((size for size in known if size is not None), default=None)
    return tuple(DeviceProcess(pid, size) for pid, size in memory.items())


def parse(reading: Reading) -> Scrape:
    """Return the GPUs' samples; what a GPU does not tell has none."""
    samples: list[Sample] = []
    for gpu in reading.gpus:
        samples += _gpu_samples(gpu, reading)
    return Scrape(samples, reading.problems)


def read_devices(settings: Settings) -> DeviceReport:
    """Return the GPUs; `minor` N is /dev/nvidiaN, which need not be the index."""
    reading = read(settings)
    devices = [
        Device(
            "nvidia", gpu.uuid, gpu.index, gpu.minor, gpu.model, gpu.bus_id,
            gpu.memory_total_bytes,
        )
        for gpu in reading.gpus
    ]  # fmt: skip
    return DeviceReport(devices, reading.problems)


def _gpu_samples(gpu: Gpu, reading: Reading) -> list[Sample]:
    identity = Identity(gpu.uuid, gpu.index, VENDOR)
    samples = identity.sample(family.INFO, 1, gpu.model, gpu.bus_id, reading.driver_version)
    for metric, value, divisor in (
        (family.UTILIZATION, gpu.utilization_percent, 100),
        (family.MEMORY_BUSY, gpu.memory_busy_percent, 100),
        (family.MEMORY_USED, gpu.memory_used_bytes, 1),
        (family.MEMORY_TOTAL, gpu.memory_total_bytes, 1),
        (family.TEMPERATURE, gpu.temperature_celsius, 1),
        (family.POWER, gpu.power_milliwatts, 1000),
        (family.POWER_LIMIT, gpu.power_limit_milliwatts, 1000),
        (family.ENERGY, gpu.energy_millijoules, 1000),
        (family.FAN_SPEED, gpu.fan_percent, 100),
        (family.PERFORMANCE_STATE, gpu.performance_state, 1),
        (family.HEALTHY, gpu.is_healthy, 1),
    ):
        if value is not None:
            samples += identity.sample(metric, value / divisor)
    for clock, mhz in gpu.clocks_mhz.items():
        samples += identity.sample(family.CLOCK, mhz * 1_000_000, clock)
    for kind, count in gpu.ecc_errors.items():
        samples += identity.sample(family.ECC_ERRORS, count, kind)
    samples += identity.sample(family.PROCESS_QUERY_SUPPORTED, float(gpu.processes is not None))
    if gpu.processes is not None:
        samples += process_samples(identity, gpu.processes, reading.owners)
    return samples
