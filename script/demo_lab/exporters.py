"""Simulated exporters: each node's two metrics pages on a loopback address of its own."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from script.demo_lab.lab import GIB, DemoNode
from script.demo_lab.readings import read_device, wander

_LABELS = ["uuid", "index", "vendor"]


@dataclass
class NodeState:
    """What a simulated node is doing; the agent's side changes it, the pages read it."""

    node: DemoNode
    uuids: list[str]
    # Who uses which device now, and how eagerly (0–1).
    users: dict[str, tuple[str, float]] = field(default_factory=dict)


class Accelerators(Collector):
    """The `sentinel` page: what sentinel-exporter would say of such a node."""

    def __init__(self, state: NodeState) -> None:
        self._state = state

    def collect(self) -> Iterable[Metric]:
        """Yield the families at this moment."""
        now = time.time()
        model = self._state.node.model
        sessions = GaugeMetricFamily("ssh_sessions", "SSH connections", labels=["user", "type"])
        for user in sorted({user for user, _ in self._state.users.values()}):
            sessions.add_metric([user, "pty"], 1 + int(wander(user, now, 1800) * 2))
        yield sessions
        success = GaugeMetricFamily(
            "sentinel_collector_success", "1 if it worked", labels=["collector"]
        )
        for collector in ("ssh", *([] if model is None else [_COLLECTORS[model.vendor]])):
            success.add_metric([collector], 1)
        yield success
        if model is None:
            return
        info = GaugeMetricFamily(
            "accelerator_info",
            "Identity",
            labels=[*_LABELS, "model", "bus_id", "driver_version"],
        )
        gauges = {
            name: GaugeMetricFamily(f"accelerator_{name}", help_text, labels=_LABELS)
            for name, help_text in _GAUGES.items()
        }
        processes = GaugeMetricFamily(
            "accelerator_process_memory_bytes", "Memory by user", labels=[*_LABELS, "user"]
        )
        for index, uuid in enumerate(self._state.uuids):
            user, eagerness = self._state.users.get(uuid, ("", None))
            reading = read_device(uuid, model, now, eagerness)
            labels = [uuid, str(index), model.vendor]
            info.add_metric([*labels, model.name, uuid, "demo"], 1)
            gauges["utilization_ratio"].add_metric(labels, reading.utilization_ratio)
            gauges["memory_used_bytes"].add_metric(labels, reading.memory_used_bytes)
            gauges["memory_total_bytes"].add_metric(labels, model.memory_bytes)
            gauges["temperature_celsius"].add_metric(labels, reading.temperature_celsius)
            gauges["power_watts"].add_metric(labels, reading.power_watts)
            # One card of the lab is broken, so that an alert is there to be seen.
            broken = (self._state.node.name, index) == ("ascend-04", 5)
            gauges["healthy"].add_metric(labels, 0 if broken else 1)
            if user and eagerness:
                processes.add_metric([*labels, user], reading.memory_used_bytes)
        yield info
        yield from gauges.values()
        yield processes


_COLLECTORS = {"nvidia": "gpu", "ascend": "npu"}
_GAUGES = {
    "utilization_ratio": "Share of time that the device computed",
    "memory_used_bytes": "Memory in use",
    "memory_total_bytes": "Memory there is",
    "temperature_celsius": "Temperature of the chip",
    "power_watts": "Power drawn",
    "healthy": "1 if the driver calls the device healthy",
}


class Host(Collector):
    """The `node` page: the few node_exporter series that the pages and dashboards use."""

    def __init__(self, state: NodeState) -> None:
        self._state = state
        self._boot = time.time() - 86400 * 12

    def collect(self) -> Iterable[Metric]:
        """Yield the families at this moment."""
        now = time.time()
        name = self._state.node.name
        cores = 192
        busy = 0.02 + 0.1 * len(self._state.users) / 8
        load = cores * busy * (0.6 + wander(name, now, 1200))
        for metric, help_text, value in (
            ("node_load1", "1 m load average", round(load, 2)),
            ("node_memory_MemTotal_bytes", "Memory", 1024 * GIB),
            ("node_memory_MemAvailable_bytes", "Free memory", int((1 - 2 * busy) * 1024 * GIB)),
            ("node_boot_time_seconds", "Boot time", self._boot),
            ("node_time_seconds", "The clock", now),
        ):
            yield GaugeMetricFamily(metric, help_text, value=value)
        up_s = now - self._boot
        seconds = CounterMetricFamily(
            "node_cpu_seconds", "CPU time by mode", labels=["cpu", "mode"]
        )
        for cpu in range(4):
            seconds.add_metric([str(cpu), "user"], up_s * busy)
            seconds.add_metric([str(cpu), "idle"], up_s * (1 - busy))
        yield seconds
        for direction, speed in (("receive", 21e6), ("transmit", 14e6)):
            traffic = CounterMetricFamily(
                f"node_network_{direction}_bytes", "Traffic", labels=["device"]
            )
            # The integral of a speed that sways by ±40% around its mean.
            traffic.add_metric(["eth0"], speed * (up_s + 60 * 0.4 * wander(name, now, 377)))
            yield traffic


def serve(
    state: NodeState, address: str, sentinel_port: int, node_port: int
) -> list[WSGIServer]:
    """Serve both pages of a node from threads of this process until they are shut down."""
    servers = []
    for port, collector in ((sentinel_port, Accelerators(state)), (node_port, Host(state))):
        registry = CollectorRegistry()
        registry.register(collector)
        server, _ = start_http_server(port, addr=address, registry=registry)
        servers.append(server)
    return servers
