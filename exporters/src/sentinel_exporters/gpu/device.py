"""Read one GPU: load, power, temperature, clocks, and the rest by its own modules."""

from __future__ import annotations

import ctypes
from dataclasses import replace
from typing import Any

import pynvml

from .activity import ActivityMeters
from .asking import Device
from .facts import CLOCKS
from .instances import read_mig, with_instances
from .links import read_links
from .memory import (
    read_ecc,
    read_memory,
    read_remapped_rows,
    read_retired_pages,
    read_row_remap_banks,
)
from .processes import read_processes
from .reading import Facts, Gpu, Pcie
from .seldom import Seldom

_POLICIES = {
    "power": pynvml.NVML_PERF_POLICY_POWER,
    "thermal": pynvml.NVML_PERF_POLICY_THERMAL,
    "sync_boost": pynvml.NVML_PERF_POLICY_SYNC_BOOST,
    "board_limit": pynvml.NVML_PERF_POLICY_BOARD_LIMIT,
    "low_utilization": pynvml.NVML_PERF_POLICY_LOW_UTILIZATION,
    "reliability": pynvml.NVML_PERF_POLICY_RELIABILITY,
}
_ENGINES = {
    "encoder": pynvml.nvmlDeviceGetEncoderUtilization,
    "decoder": pynvml.nvmlDeviceGetDecoderUtilization,
    "jpeg": pynvml.nvmlDeviceGetJpgUtilization,
    "optical_flow": pynvml.nvmlDeviceGetOfaUtilization,
}
# Numbers above 250 are of no use: they have meant other fields in other releases.
_FIELDS = {
    "memory_temperature_celsius": pynvml.NVML_FI_DEV_MEMORY_TEMP,
    "recovery_action": pynvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION,
}


def read_gpu(
    device: Device, facts: Facts, meters: ActivityMeters | None, seldom: Seldom
) -> Gpu:
    """Return all that the GPU tells now; without `meters` nothing of its parts' activity."""
    if device.is_lost or device.handle is None:
        return Gpu(facts, is_lost=True)
    rates = device.ask("utilization_ratio", pynvml.nvmlDeviceGetUtilizationRates)
    sessions = device.ask("encoder_sessions", pynvml.nvmlDeviceGetEncoderStats)
    if not facts.has_activity:
        meters = None
    mig = read_mig(device, meters)
    is_split = mig is not None and mig.is_enabled
    state = device.ask("performance_state", pynvml.nvmlDeviceGetPerformanceState)
    instances = mig.instances if mig else ()
    fields = _read_fields(device)
    gpu = Gpu(
        facts=facts,
        utilization_percent=rates.gpu if rates else None,
        memory_busy_percent=rates.memory if rates else None,
        engine_percents=_read_engines(device),
        encoder_sessions=sessions[0] if sessions else None,
        encoder_fps=sessions[1] if sessions else None,
        encoder_latency_us=sessions[2] if sessions else None,
        # A GPU that is split counts for its instances only.
        activity=meters.measure(device, facts.uuid) if meters and not is_split else None,
        memory=read_memory(device),
        temperature_celsius=_read_temperature(device),
        memory_temperature_celsius=fields["memory_temperature_celsius"],
        power_milliwatts=device.ask("power_watts", pynvml.nvmlDeviceGetPowerUsage),
        power_limit_milliwatts=device.ask(
            "power_limit_watts", pynvml.nvmlDeviceGetEnforcedPowerLimit
        ),
        power_limit_set_milliwatts=device.ask(
            "power_limit_set_watts", pynvml.nvmlDeviceGetPowerManagementLimit
        ),
        energy_millijoules=device.ask(
            "energy_joules_total", pynvml.nvmlDeviceGetTotalEnergyConsumption
        ),
        clocks_mhz=device.ask_each("clock_hertz", pynvml.nvmlDeviceGetClockInfo, CLOCKS),
        throttle_reasons=device.ask_first(
            "throttle_reason",
            (pynvml.nvmlDeviceGetCurrentClocksEventReasons, ()),
            (pynvml.nvmlDeviceGetCurrentClocksThrottleReasons, ()),
        ),
        throttled_ns=_read_throttled(device),
        fan_percent=device.ask("fan_speed_ratio", pynvml.nvmlDeviceGetFanSpeed),
        fan_percents=_read_fans(device, facts.fan_count),
        performance_state=None if state == pynvml.NVML_PSTATE_UNKNOWN else state,
        is_persistent=_as_claim(
            device.ask("persistence_mode", pynvml.nvmlDeviceGetPersistenceMode)
        ),
        compute_mode=device.ask("compute_mode", pynvml.nvmlDeviceGetComputeMode),
        fabric_state=_read_fabric_state(device),
        recovery_action=fields["recovery_action"],
        ecc=read_ecc(device, facts.uuid, seldom),
        remapped_rows=read_remapped_rows(device),
        row_remap_banks=seldom.ask(device, facts.uuid, "banks", read_row_remap_banks),
        retired_pages=seldom.ask(device, facts.uuid, "pages", read_retired_pages),
        pcie=Pcie(
            replays=device.ask("pcie_replays_total", pynvml.nvmlDeviceGetPcieReplayCounter),
            generation=device.ask(
                "pcie_link_generation", pynvml.nvmlDeviceGetCurrPcieLinkGeneration
            ),
            width=device.ask("pcie_link_width", pynvml.nvmlDeviceGetCurrPcieLinkWidth),
        ),
        nvlinks=read_links(device, facts, seldom),
        mig=mig,
        processes=with_instances(read_processes(device), instances),
    )
    return replace(
        gpu, is_lost=device.is_lost, unavailable={**facts.unavailable, **device.unavailable}
    )


def _read_engines(device: Device) -> dict[str, int]:
    """Return how busy the video engines are; each answer has the sampling period beside it."""
    found: dict[str, int] = {}
    for name, function in _ENGINES.items():
        answer = device.ask("engine_utilization_ratio", function)
        if answer is not None:
            found[name] = answer[0]
    if found:
        device.settle("engine_utilization_ratio")
    return found


def _read_temperature(device: Device) -> int | None:
    # NVIDIA says that the first goes with CUDA 14; drivers before 560 do not have the second.
    celsius: int | None = device.ask_first(
        "temperature_celsius",
        (pynvml.nvmlDeviceGetTemperature, (pynvml.NVML_TEMPERATURE_GPU,)),
        (pynvml.nvmlDeviceGetTemperatureV1, (pynvml.NVML_TEMPERATURE_GPU,)),
    )
    return celsius


def _read_fields(device: Device) -> dict[str, int | None]:
    """Return what has no function of its own."""
    values = device.ask_fields(*((name, field, 0) for name, field in _FIELDS.items()))
    return dict(zip(_FIELDS, values, strict=True))


def _read_fabric_state(device: Device) -> int | None:
    info = pynvml.c_nvmlGpuFabricInfo_t()

    def ask(handle: object) -> int:
        pynvml.nvmlDeviceGetGpuFabricInfo(handle, ctypes.byref(info))
        return int(info.state)

    state: int | None = device.ask("fabric_state", ask)
    return state


def _read_throttled(device: Device) -> dict[str, int]:
    return device.ask_each(
        "throttled_seconds_total",
        lambda handle, policy: (
            pynvml.nvmlDeviceGetViolationStatus(handle, policy).violationTime
        ),
        _POLICIES,
    )


def _read_fans(device: Device, count: int) -> dict[int, int]:
    if count < 2:
        return {}
    found = {
        fan: device.ask("fan_unit_speed_ratio", pynvml.nvmlDeviceGetFanSpeed_v2, fan)
        for fan in range(count)
    }
    if any(percent is not None for percent in found.values()):
        device.settle("fan_unit_speed_ratio")
    return {fan: percent for fan, percent in found.items() if percent is not None}


def _as_claim(value: Any) -> bool | None:  # Any: pynvml has no types
    return None if value is None else bool(value)
