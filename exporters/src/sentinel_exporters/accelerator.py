"""The native family `accelerator_*`, which the GPU and NPU collectors share. Reads nothing.

Base units, ratios from 0 to 1. Every series of a device carries `uuid`, `index` and `vendor`;
what else identifies it sits on `accelerator_info`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .core import Metric, MetricType, Sample

_IDENTITY = ("uuid", "index", "vendor")


def _family(
    name: str, help_text: str, *labels: str, unit: str = "", kind: MetricType = "gauge"
) -> Metric:
    return Metric(f"accelerator_{name}", kind, help_text, (*_IDENTITY, *labels), unit)


INFO = _family("info", "Always 1; what the device is.", "model", "bus_id", "driver_version")
TOOL_INFO = Metric(
    "accelerator_tool_info",
    "gauge",
    "Always 1; the vendor's tool that was asked, and its version.",
    ("vendor", "tool", "version"),
)
UTILIZATION = _family("utilization_ratio", "Share of time in which it computed.", unit="ratio")
MEMORY_BUSY = _family(
    "memory_busy_ratio", "Share of time in which its memory was read or written.", unit="ratio"
)
MEMORY_USED = _family("memory_used_bytes", "Device memory in use.", unit="bytes")
MEMORY_TOTAL = _family("memory_total_bytes", "Device memory installed.", unit="bytes")
MEMORY_RESERVED = _family(
    "memory_reserved_bytes", "Device memory that the driver keeps for itself.", unit="bytes"
)
ENGINE_UTILIZATION = _family(
    "engine_utilization_ratio", "Share of time in which a part of the device worked.", "engine",
    unit="ratio",
)  # fmt: skip
ENCODER_SESSIONS = _family("encoder_sessions", "Video encoder sessions that are open.")
ACTIVITY = _family(
    "activity_ratio",
    "Mean activity of a part of the chip since the read before, from its own counters.",
    "part",
    unit="ratio",
)
TEMPERATURE = _family("temperature_celsius", "Temperature of the chip.", unit="celsius")
MEMORY_TEMPERATURE = _family(
    "memory_temperature_celsius", "Temperature of the device memory.", unit="celsius"
)
TEMPERATURE_THRESHOLD = _family(
    "temperature_threshold_celsius", "Temperature at which the driver acts.", "threshold",
    unit="celsius",
)  # fmt: skip
POWER = _family("power_watts", "Power that is drawn now.", unit="watts")
POWER_LIMIT = _family("power_limit_watts", "Power limit that is enforced.", unit="watts")
POWER_LIMIT_DEFAULT = _family(
    "power_limit_default_watts", "Power limit after a start of the driver.", unit="watts"
)
POWER_LIMIT_MIN = _family(
    "power_limit_min_watts", "Lowest limit that can be set.", unit="watts"
)
POWER_LIMIT_MAX = _family(
    "power_limit_max_watts", "Highest limit that can be set.", unit="watts"
)
ENERGY = _family(
    "energy_joules_total", "Energy since the driver was loaded.", unit="joules", kind="counter"
)
CLOCK = _family("clock_hertz", "Clock frequency now.", "clock", unit="hertz")
CLOCK_MAX = _family("clock_max_hertz", "Highest clock frequency.", "clock", unit="hertz")
THROTTLE_REASON = _family(
    "throttle_reason", "1 while the clocks are held where they are for the reason.", "reason"
)
THROTTLED = _family(
    "throttled_seconds_total",
    "Time in which the clocks were held down by the policy.",
    "policy",
    unit="seconds",
    kind="counter",
)
FAN_SPEED = _family("fan_speed_ratio", "Fan speed as a share of its maximum.", unit="ratio")
FAN_UNIT_SPEED = _family(
    "fan_unit_speed_ratio", "Speed of each fan, where there are several.", "fan", unit="ratio"
)
PERFORMANCE_STATE = _family("performance_state", "P-state: 0 is the fastest, 15 the slowest.")
ECC_ERRORS = _family(
    "ecc_errors_total", "Memory errors in the device's life.", "type", kind="counter"
)
ECC_ERRORS_VOLATILE = _family(
    "ecc_errors_volatile_total",
    "Memory errors since the driver was loaded.",
    "type",
    kind="counter",
)
ECC_ERRORS_LOCATED = _family(
    "ecc_errors_located_total",
    "Memory errors by where they were; counter: volatile or aggregate.",
    "type",
    "counter",
    "location",
    kind="counter",
)
ECC_ENABLED = _family("ecc_enabled", "1 when errors of the memory are corrected, else 0.")
ECC_ENABLED_PENDING = _family("ecc_enabled_pending", "As ecc_enabled, after the next restart.")
REMAPPED_ROWS = _family(
    "remapped_rows_total",
    "Memory rows that were replaced by spare ones, by the type of error.",
    "type",
    kind="counter",
)
ROW_REMAP_PENDING = _family(
    "row_remap_pending", "1 when a row waits for a reset of the device to be replaced, else 0."
)
ROW_REMAP_FAILURE = _family(
    "row_remap_failure", "1 when a row could not be replaced: change the device. Else 0."
)
ROW_REMAP_BANKS = _family(
    "row_remap_banks", "Memory banks by how many spare rows they have left.", "availability"
)
RETIRED_PAGES = _family(
    "retired_pages_total", "Memory pages taken out of use, by cause.", "cause", kind="counter"
)
PAGE_RETIREMENT_PENDING = _family(
    "page_retirement_pending", "1 when a page waits for a reset to be taken out of use, else 0."
)
XID_WATCHED = _family(
    "xid_watched",
    "1 when XID errors of the device are being counted; 0: none shown means nothing.",
)
XID_EVENTS = _family(
    "xid_events_total", "XID errors of all kinds since the exporter started.", kind="counter"
)
XID_ERRORS = _family(
    "xid_errors_total",
    "XID errors since the exporter started, by number.",
    "xid",
    kind="counter",
)
XID_LAST = _family(
    "xid_last_timestamp_seconds",
    "When the last XID error of the number was seen, in Unix time.",
    "xid",
    unit="seconds",
)
PCIE_REPLAYS = _family(
    "pcie_replays_total", "Packets that were sent again over PCIe.", kind="counter"
)
PCIE_THROUGHPUT = _family(
    "pcie_throughput_bytes_per_second",
    "Mean PCIe traffic since the read before; direction as the device sees it.",
    "direction",
)
PCIE_GENERATION = _family("pcie_link_generation", "PCIe generation of the link now.")
PCIE_GENERATION_MAX = _family(
    "pcie_link_generation_max", "Highest PCIe generation of device and slot."
)
PCIE_WIDTH = _family("pcie_link_width", "PCIe lanes in use now.")
PCIE_WIDTH_MAX = _family("pcie_link_width_max", "Most PCIe lanes of device and slot.")
NVLINK_UP = _family("nvlink_up", "1 when the NVLink is active, else 0.", "link")
NVLINK_BYTES = _family(
    "nvlink_bytes_total",
    "Payload over all NVLinks; direction as the device sees it.",
    "direction",
    unit="bytes",
    kind="counter",
)
NVLINK_ERRORS = _family(
    "nvlink_errors_total", "Errors over all NVLinks, by type.", "type", kind="counter"
)
NVLINK_LINK_ERRORS = _family(
    "nvlink_link_errors_total", "Errors of all types, by NVLink.", "link", kind="counter"
)
MIG_ENABLED = _family("mig_enabled", "1 when the device can be split into instances, else 0.")
MIG_ENABLED_PENDING = _family("mig_enabled_pending", "As mig_enabled, after the next reset.")
MIG_INFO = _family(
    "mig_info",
    "Always 1; what the MIG instance is.",
    "instance",
    "profile",
    "gpu_instance",
    "compute_instance",
)
MIG_UTILIZATION = _family(
    "mig_utilization_ratio",
    "Share of time in which the MIG instance computed.",
    "instance",
    unit="ratio",
)
MIG_MEMORY_USED = _family(
    "mig_memory_used_bytes", "Memory of the MIG instance in use.", "instance", unit="bytes"
)
MIG_MEMORY_TOTAL = _family(
    "mig_memory_total_bytes", "Memory of the MIG instance.", "instance", unit="bytes"
)
MIG_USER_PROCESSES = _family(
    "mig_user_processes",
    "Processes that use the MIG instance, by the owner's name.",
    "instance",
    "user",
)
MIG_PROCESS_MEMORY = _family(
    "mig_process_memory_bytes",
    "Memory of the MIG instance that is held by processes, by the owner's name.",
    "instance",
    "user",
    unit="bytes",
)
PERSISTENCE_MODE = _family(
    "persistence_mode", "1 when the driver keeps the device started while unused, else 0."
)
RECOVERY_ACTION = _family(
    "recovery_action", "What the driver wants to be done: 0 nothing, 1 a reset; see the docs."
)
READING_UNAVAILABLE = _family(
    "reading_unavailable",
    "1 for each reading that the device or its driver does not give, and why.",
    "reading",
    "reason",
)
HEALTHY = _family("healthy", "1 when the driver reports the device healthy, else 0.")
HEALTH_INFO = _family("health_info", "Always 1; the health in the driver's own word.", "state")
HUGEPAGES_USED = _family("hugepages_used", "Huge pages in use on the device.", unit="pages")
HUGEPAGES_TOTAL = _family("hugepages", "Huge pages that the device has.", unit="pages")
MEMORY_BANDWIDTH = _family(
    "memory_bandwidth_ratio", "Memory bandwidth in use, as a share of the most.", unit="ratio"
)
VOLTAGE = _family("voltage_volts", "Voltage of the chip.", unit="volts")
CORES = _family("cores", "AI cores of the chip.")
ERROR_CODE = _family(
    "error_code", "Always 1; a fault that there is now, by the driver's code.", "code"
)
NETWORK_HEALTHY = _family(
    "network_healthy", "1 when the chip's own network reaches its peer, else 0."
)
NETWORK_HEALTH_INFO = _family(
    "network_health_info", "Always 1; the network's health in the driver's own word.", "state"
)
NETWORK_THROUGHPUT = _family(
    "network_throughput_bytes_per_second",
    "Traffic of the chip's own network, over the driver's own moment of measuring.",
    "direction",
)
VNPU_INFO = _family(
    "vnpu_info",
    "Always 1; a share that the chip is split into, and the container that has it.",
    "vnpu",
    "group",
    "template",
    "container",
)
VNPU_IN_USE = _family("vnpu_in_use", "1 when a container has the vNPU, else 0.", "vnpu")
VNPU_CORES = _family("vnpu_cores", "AI cores of the vNPU.", "vnpu")
VNPU_MEMORY = _family("vnpu_memory_bytes", "Memory of the vNPU.", "vnpu", unit="bytes")
VNPU_FREE_CORES = _family("vnpu_free_cores", "AI cores that no vNPU of the chip has yet.")
PROCESS_QUERY_SUPPORTED = _family(
    "process_query_supported",
    "1 when the driver tells the processes; 0: that none are shown means nothing.",
)
PROCESSES = _family("processes", "Processes that use the device.")
USER_PROCESSES = _family(
    "user_processes", "Processes that use the device, by the owner's name.", "user"
)
PROCESS_MEMORY = _family(
    "process_memory_bytes",
    "Device memory that is held by processes, by the owner's name.",
    "user",
    unit="bytes",
)
PID_MEMORY = _family(
    "pid_memory_bytes",
    "Device memory that a process holds; only with the setting for it.",
    "user",
    "pid",
    "name",
    unit="bytes",
)


@dataclass(frozen=True)
class Identity:
    """Who a device is; `index` is the vendor's own number for it."""

    uuid: str
    index: int
    vendor: str

    def sample(self, metric: Metric, value: float | None, *labels: str) -> list[Sample]:
        """Return the device's sample, or none where there is no reading."""
        if value is None:
            return []
        return [metric.sample(value, self.uuid, str(self.index), self.vendor, *labels)]


@dataclass(frozen=True)
class DeviceProcess:
    """A process on a device; `memory_bytes` is None where the driver does not tell."""

    pid: int
    memory_bytes: int | None


def process_samples(
    identity: Identity, processes: Iterable[DeviceProcess], owners: Mapping[int, str]
) -> list[Sample]:
    """Return the count of processes, and count and memory by owner.

    A process without a known owner counts under the user "". An owner's memory has a sample
    only when the driver tells it for each of the owner's processes.
    """
    found = list(processes)
    counts: Counter[str] = Counter()
    memory: dict[str, int | None] = {}
    for process in found:
        user = owners.get(process.pid, "")
        counts[user] += 1
        so_far = memory.get(user, 0)
        if so_far is None or process.memory_bytes is None:
            memory[user] = None
        else:
            memory[user] = so_far + process.memory_bytes
    samples = identity.sample(PROCESSES, len(found))
    for user, count in sorted(counts.items()):
        samples += identity.sample(USER_PROCESSES, count, user)
        samples += identity.sample(PROCESS_MEMORY, memory[user], user)
    return samples
