"""Read what driver and GPUs are, which is asked once. Reads nothing that changes meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pynvml

from ..nvml import DeviceError, NoReading, Nvml
from .asking import Device
from .reading import Facts

CLOCKS = {
    "graphics": pynvml.NVML_CLOCK_GRAPHICS,
    "sm": pynvml.NVML_CLOCK_SM,
    "memory": pynvml.NVML_CLOCK_MEM,
    "video": pynvml.NVML_CLOCK_VIDEO,
}
_THRESHOLDS = {
    "shutdown": pynvml.NVML_TEMPERATURE_THRESHOLD_SHUTDOWN,
    "slowdown": pynvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN,
    "memory_max": pynvml.NVML_TEMPERATURE_THRESHOLD_MEM_MAX,
    "gpu_max": pynvml.NVML_TEMPERATURE_THRESHOLD_GPU_MAX,
}


@dataclass(frozen=True)
class Versions:
    """Of the driver, and of its own CUDA, as in "12.4"; "" where it does not tell."""

    driver: str = ""
    cuda: str = ""


class FactsCache:
    """The facts of driver and GPUs, asked anew when the library was opened anew."""

    def __init__(self) -> None:
        self._generation = 0
        self._versions: Versions | None = None
        self._by_uuid: dict[str, Facts] = {}
        # A GPU that is lost does not tell any more who it was.
        self._by_index: dict[int, Facts] = {}

    def begin(self, generation: int) -> None:
        """Forget what was told before the library was opened so often."""
        if generation != self._generation:
            self._generation = generation
            self._versions = None
            self._by_uuid = {}

    def read_versions(self, nvml: Nvml, problems: list[str]) -> Versions:
        """Return the versions; to find CUDA's, the driver's library loads that of CUDA."""
        if self._versions is None:
            known = len(problems)
            driver = _ask(nvml, pynvml.nvmlSystemGetDriverVersion, "driver", problems)
            cuda = _ask(nvml, pynvml.nvmlSystemGetCudaDriverVersion_v2, "CUDA", problems)
            # 12040 is 12.4.
            versions = Versions(
                driver or "", f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else ""
            )
            if len(problems) > known:  # what failed is asked again
                return versions
            self._versions = versions
        return self._versions

    def read(self, device: Device) -> Facts | None:
        """Return the GPU's facts, or None when it does not tell who it is."""
        uuid = device.ask("uuid", pynvml.nvmlDeviceGetUUID)
        if uuid is None:
            return None
        facts = self._by_uuid.get(uuid)
        if facts is None or facts.index != device.index:
            facts = _read_facts(device, uuid)
            # What failed is asked again.
            if not device.is_lost and "error" not in facts.unavailable.values():
                self._by_uuid[uuid] = facts
        self._by_index[device.index] = facts
        return facts

    def recall(self, index: int, found: set[str]) -> Facts | None:
        """Return who was at the index, unless it is one of those found, so at another now."""
        facts = self._by_index.get(index)
        return None if facts is None or facts.uuid in found else facts

    def forget_beyond(self, count: int) -> None:
        """Forget who was at places that there are no more."""
        for index in [index for index in self._by_index if index >= count]:
            del self._by_index[index]


# Any: pynvml has no types.
def _ask(nvml: Nvml, function: Callable[[], Any], what: str, problems: list[str]) -> Any:
    try:
        return nvml.ask(function)
    except NoReading:
        return None
    except DeviceError as error:
        problems.append(f"version of {what}: {error}")
        return None


def _read_facts(device: Device, uuid: str) -> Facts:
    pci = device.ask("bus_id", pynvml.nvmlDeviceGetPciInfo)
    limits = device.ask(
        "power_limit_max_watts", pynvml.nvmlDeviceGetPowerManagementLimitConstraints
    )
    capability = device.ask("compute_capability", pynvml.nvmlDeviceGetCudaComputeCapability)
    return Facts(
        uuid=uuid,
        index=device.index,
        model=device.ask("model", pynvml.nvmlDeviceGetName) or "",
        bus_id=f"{pci.domain:04X}:{pci.bus:02X}:{pci.device:02X}.0" if pci else "",
        minor=device.ask("minor", pynvml.nvmlDeviceGetMinorNumber),
        serial=device.ask("serial", pynvml.nvmlDeviceGetSerial),
        vbios_version=device.ask("vbios_version", pynvml.nvmlDeviceGetVbiosVersion),
        compute_capability=f"{capability[0]}.{capability[1]}" if capability else None,
        temperature_thresholds_celsius=device.ask_each(
            "temperature_threshold_celsius",
            pynvml.nvmlDeviceGetTemperatureThreshold,
            _THRESHOLDS,
        ),
        clocks_max_mhz=device.ask_each(
            "clock_max_hertz", pynvml.nvmlDeviceGetMaxClockInfo, CLOCKS
        ),
        power_limit_default_milliwatts=device.ask(
            "power_limit_default_watts", pynvml.nvmlDeviceGetPowerManagementDefaultLimit
        ),
        power_limit_min_milliwatts=limits[0] if limits else None,
        power_limit_max_milliwatts=limits[1] if limits else None,
        pcie_generation_max=device.ask(
            "pcie_link_generation_max", pynvml.nvmlDeviceGetMaxPcieLinkGeneration
        ),
        pcie_width_max=device.ask("pcie_link_width_max", pynvml.nvmlDeviceGetMaxPcieLinkWidth),
        fan_count=device.ask("fan_count", pynvml.nvmlDeviceGetNumFans) or 0,
        nvlink_count=_count_links(device),
        has_activity=_has_activity(device),
        throttle_reasons_supported=device.ask_first(
            "throttle_reasons_supported",
            (pynvml.nvmlDeviceGetSupportedClocksEventReasons, ()),
            (pynvml.nvmlDeviceGetSupportedClocksThrottleReasons, ()),
        ),
        unavailable=dict(device.unavailable),
    )


def _count_links(device: Device) -> int:
    """Return how many NVLinks the chip has: the first one that is not told ends them."""
    for link in range(pynvml.NVML_NVLINK_MAX_LINKS):
        if device.ask("nvlink_up", pynvml.nvmlDeviceGetNvLinkState, link) is None:
            if link:
                device.settle("nvlink_up")
            return link
    return int(pynvml.NVML_NVLINK_MAX_LINKS)


def _has_activity(device: Device) -> bool:
    support = device.ask("activity_ratio", pynvml.nvmlGpmQueryDeviceSupport)
    if support is None:
        return False
    if not support.isSupportedDevice:
        device.unavailable["activity_ratio"] = "not_supported"
    return bool(support.isSupportedDevice)
