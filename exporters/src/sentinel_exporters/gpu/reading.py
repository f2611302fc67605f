"""One reading of all NVIDIA GPUs, as values in NVML's own units. Asks and decides nothing.

Everywhere None, or a key that is missing, is a reading that there is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ..accelerator import DeviceProcess

# Why there is no reading. "old_driver": the library has no such function.
Reason = Literal["not_supported", "no_permission", "old_driver", "no_data", "error"]

# Why the clocks are where they are: nvmlClocksEventReasons' bits, of nvml.h.
THROTTLE_REASONS: Mapping[str, int] = {
    "gpu_idle": 0x01,
    "applications_clocks_setting": 0x02,
    "sw_power_cap": 0x04,
    "hw_slowdown": 0x08,
    "sync_boost": 0x10,
    "sw_thermal_slowdown": 0x20,
    "hw_thermal_slowdown": 0x40,
    "hw_power_brake_slowdown": 0x80,
    "display_clock_setting": 0x100,
}


@dataclass(frozen=True)
class Facts:
    """What does not change until the driver starts anew; asked once."""

    uuid: str
    index: int
    model: str = ""
    # domain:bus:device.function, as in 0000:C1:00.0
    bus_id: str = ""
    # N of /dev/nvidiaN.
    minor: int | None = None
    serial: str | None = None
    vbios_version: str | None = None
    # As in "9.0".
    compute_capability: str | None = None
    # By "shutdown", "slowdown", "memory_max", "gpu_max".
    temperature_thresholds_celsius: Mapping[str, int] = field(default_factory=dict)
    # By the keys of Gpu.clocks_mhz.
    clocks_max_mhz: Mapping[str, int] = field(default_factory=dict)
    power_limit_default_milliwatts: int | None = None
    power_limit_min_milliwatts: int | None = None
    power_limit_max_milliwatts: int | None = None
    pcie_generation_max: int | None = None
    pcie_width_max: int | None = None
    fan_count: int = 0
    # Links that the chip has, used or not.
    nvlink_count: int = 0
    # Whether it has counters of its parts' activity.
    has_activity: bool = False
    # The bits of THROTTLE_REASONS that it can report.
    throttle_reasons_supported: int | None = None
    unavailable: Mapping[str, Reason] = field(default_factory=dict)


@dataclass(frozen=True)
class Memory:
    """Device memory. `used` leaves out `reserved` where the driver tells that."""

    total_bytes: int
    used_bytes: int
    free_bytes: int
    reserved_bytes: int | None = None


@dataclass(frozen=True)
class Ecc:
    """Errors by "corrected" and "uncorrected"; located: by type, counter, location.

    counter is "volatile" (since the driver was loaded) or "aggregate" (in the device's life).
    """

    is_enabled: bool | None = None
    is_pending: bool | None = None
    volatile: Mapping[str, int] = field(default_factory=dict)
    aggregate: Mapping[str, int] = field(default_factory=dict)
    located: Mapping[tuple[str, str, str], int] = field(default_factory=dict)


@dataclass(frozen=True)
class RemappedRows:
    """Rows of memory that were replaced by spare ones, by the type of error."""

    corrected: int
    uncorrected: int
    is_pending: bool
    has_failed: bool


@dataclass(frozen=True)
class RetiredPages:
    """Pages out of use, for several single-bit errors or for one double-bit error."""

    single_bit: int | None
    double_bit: int | None
    is_pending: bool | None


@dataclass(frozen=True)
class Pcie:
    """The link as it is now."""

    replays: int | None = None
    generation: int | None = None
    width: int | None = None


@dataclass(frozen=True)
class NvLinks:
    """`is_up` and `link_errors` by link; `errors` by type over all links.

    Bytes are payload since the driver was loaded, over all links.
    """

    is_up: Mapping[int, bool] = field(default_factory=dict)
    errors: Mapping[str, int] = field(default_factory=dict)
    link_errors: Mapping[int, int] = field(default_factory=dict)
    transmitted_bytes: int | None = None
    received_bytes: int | None = None


@dataclass(frozen=True)
class Activity:
    """Means since the reading before, from the chip's own counters (NVML's GPM; Hopper on).

    `ratios` from 0 to 1 by "graphics", "sm", "sm_occupancy", "tensor", "dram", "fp64", "fp32",
    "fp16", "integer".
    """

    ratios: Mapping[str, float]
    pcie_transmitted_bytes_per_s: float | None = None
    pcie_received_bytes_per_s: float | None = None
    # Over all NVLinks.
    nvlink_transmitted_bytes_per_s: float | None = None
    nvlink_received_bytes_per_s: float | None = None


@dataclass(frozen=True)
class Instance:
    """One MIG device: a compute instance (`compute_instance`) of a GPU instance."""

    uuid: str
    # As in "1g.10gb"; "" where the driver does not tell.
    profile: str
    gpu_instance: int
    compute_instance: int
    memory: Memory | None = None
    utilization_percent: int | None = None
    activity: Activity | None = None
    processes: tuple[DeviceProcess, ...] | None = None


@dataclass(frozen=True)
class Mig:
    """Whether the GPU is split, whether it will be after a reset, and its instances."""

    is_enabled: bool
    is_pending: bool
    instances: tuple[Instance, ...] = ()


@dataclass(frozen=True)
class Xid:
    """The XID errors of one number since the exporter started; `last_at` in Unix time."""

    number: int
    count: int
    last_at: float


@dataclass(frozen=True)
class Gpu:
    """One GPU."""

    facts: Facts
    utilization_percent: int | None = None
    memory_busy_percent: int | None = None
    # By "encoder", "decoder", "jpeg", "optical_flow".
    engine_percents: Mapping[str, int] = field(default_factory=dict)
    encoder_sessions: int | None = None
    encoder_fps: int | None = None
    encoder_latency_us: int | None = None
    activity: Activity | None = None
    memory: Memory | None = None
    temperature_celsius: int | None = None
    memory_temperature_celsius: int | None = None
    power_milliwatts: int | None = None
    # What is enforced, which may be lower than what was set.
    power_limit_milliwatts: int | None = None
    power_limit_set_milliwatts: int | None = None
    energy_millijoules: int | None = None
    # By "graphics", "sm", "memory", "video".
    clocks_mhz: Mapping[str, int] = field(default_factory=dict)
    # The bits of THROTTLE_REASONS, and perhaps newer ones.
    throttle_reasons: int | None = None
    # By "power", "thermal", "sync_boost", "board_limit", "low_utilization", "reliability".
    throttled_ns: Mapping[str, int] = field(default_factory=dict)
    fan_percent: int | None = None
    # By the fan's number, where there are several.
    fan_percents: Mapping[int, int] = field(default_factory=dict)
    performance_state: int | None = None
    is_persistent: bool | None = None
    # Of nvmlComputeMode_t, nvmlGpuFabricState_t and nvmlDeviceGpuRecoveryAction_t.
    compute_mode: int | None = None
    fabric_state: int | None = None
    recovery_action: int | None = None
    ecc: Ecc = Ecc()
    remapped_rows: RemappedRows | None = None
    # By "max", "high", "partial", "low", "none".
    row_remap_banks: Mapping[str, int] = field(default_factory=dict)
    retired_pages: RetiredPages | None = None
    pcie: Pcie = Pcie()
    nvlinks: NvLinks = NvLinks()
    mig: Mig | None = None
    # None: the driver does not tell. Those of MIG instances are among them.
    processes: tuple[DeviceProcess, ...] | None = None
    is_lost: bool = False
    # Whether XID errors are being counted; `xids` may be of a time when they were.
    is_xid_watched: bool = False
    xids: tuple[Xid, ...] = ()
    # The name of the reading's series without `accelerator_`: why it is not there.
    unavailable: Mapping[str, Reason] = field(default_factory=dict)

    @property
    def abilities(self) -> Facts:
        """The facts about what it can do; what a lost GPU once could do would only mislead."""
        return Facts("", 0) if self.is_lost else self.facts

    def told_throttle_reasons(self) -> dict[str, bool]:
        """Return for each reason that the GPU can report whether it holds the clocks now."""
        if self.throttle_reasons is None:
            return {}
        supported = self.facts.throttle_reasons_supported
        return {
            reason: bool(self.throttle_reasons & bit)
            for reason, bit in THROTTLE_REASONS.items()
            if supported is None or supported & bit
        }

    @property
    def last_xid(self) -> Xid | None:
        """The XID error that was seen last."""
        return max(self.xids, key=lambda xid: xid.last_at, default=None)


@dataclass(frozen=True)
class Reading:
    """All GPUs at one time."""

    driver_version: str
    gpus: tuple[Gpu, ...]
    # The owners of the processes that could be seen.
    owners: Mapping[int, str]
    # The names of the processes that have series of their own, by pid.
    process_names: Mapping[int, str] = field(default_factory=dict)
    # Of the driver's own CUDA, as in "12.4"; "" where it does not tell.
    cuda_version: str = ""
    problems: tuple[str, ...] = ()
