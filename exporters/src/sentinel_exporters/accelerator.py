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
TEMPERATURE = _family("temperature_celsius", "Temperature of the chip.", unit="celsius")
POWER = _family("power_watts", "Power that is drawn now.", unit="watts")
POWER_LIMIT = _family("power_limit_watts", "Power limit that is enforced.", unit="watts")
ENERGY = _family(
    "energy_joules_total", "Energy since the driver was loaded.", unit="joules", kind="counter"
)
CLOCK = _family("clock_hertz", "Clock frequency now.", "clock", unit="hertz")
FAN_SPEED = _family("fan_speed_ratio", "Fan speed as a share of its maximum.", unit="ratio")
PERFORMANCE_STATE = _family("performance_state", "P-state: 0 is the fastest, 15 the slowest.")
ECC_ERRORS = _family(
    "ecc_errors_total", "Memory errors in the device's life.", "type", kind="counter"
)
HEALTHY = _family("healthy", "1 when the driver reports the device healthy, else 0.")
HEALTH_INFO = _family("health_info", "Always 1; the health in the driver's own word.", "state")
HUGEPAGES_USED = _family("hugepages_used", "Huge pages in use on the device.", unit="pages")
HUGEPAGES_TOTAL = _family("hugepages", "Huge pages that the device has.", unit="pages")
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
