"""The charts of a node: their queries, units and labels. Asks Prometheus nothing itself."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# What one chart may cost: points of a series, and series.
MAX_POINTS = 300
MAX_SERIES = 64
MIN_MINUTES, MAX_MINUTES = 5, 60 * 24 * 30

# Below this step a panel would ask for more points than are scraped (every 15 s or slower).
_MIN_STEP_S = 15
# rate() needs at least two scrapes in its window, also when one was missed.
_MIN_WINDOW_S = 120

# Interfaces that carry no traffic of the node's own.
_VIRTUAL = "lo|veth.*|docker.*|br-.*|virbr.*|cni.*|flannel.*"


@dataclass(frozen=True)
class Chart:
    """`query` has `{node}` for the matcher and `{window}` for rate(); `label` names series."""

    unit: str
    query: str
    label: str


@dataclass(frozen=True)
class Window:
    """An aligned range of time: `step_s` apart, from `start` to `end`, both included."""

    start: int
    end: int
    step_s: int

    @property
    def times(self) -> list[int]:
        """The points, in Unix seconds."""
        return list(range(self.start, self.end + 1, self.step_s))


# An exporter that moves to another port makes new series; max by () joins them again.
_BY_DEVICE = "max by (vendor, index, uuid)"
_DEVICE = "{vendor} {index}"

CHARTS: Mapping[str, Chart] = {
    "accelerator-utilization": Chart(
        "ratio", f"{_BY_DEVICE} (accelerator_utilization_ratio{{node}})", _DEVICE
    ),
    "accelerator-memory": Chart(
        "ratio",
        f"{_BY_DEVICE} (accelerator_memory_used_bytes{{node}}"
        " / accelerator_memory_total_bytes{node})",
        _DEVICE,
    ),
    "accelerator-temperature": Chart(
        "celsius", f"{_BY_DEVICE} (accelerator_temperature_celsius{{node}})", _DEVICE
    ),
    "accelerator-power": Chart(
        "watts", f"{_BY_DEVICE} (accelerator_power_watts{{node}})", _DEVICE
    ),
    "cpu-utilization": Chart(
        "ratio",
        '1 - avg by (node) (rate(node_cpu_seconds_total{node,mode="idle"}[{window}]))',
        "CPU",
    ),
    "cpu-load": Chart("load", "max by (node) (node_load1{node})", "load 1m"),
    "memory": Chart(
        "ratio",
        "max by (node) (1 - node_memory_MemAvailable_bytes{node}"
        " / node_memory_MemTotal_bytes{node})",
        "memory",
    ),
    "network": Chart(
        "bytes_per_second",
        "label_replace(sum by (device) (rate(node_network_receive_bytes_total"
        f'{{node,device!~"{_VIRTUAL}"}}[{{window}}])), "way", "in", "", "")'
        " or label_replace(sum by (device) (rate(node_network_transmit_bytes_total"
        f'{{node,device!~"{_VIRTUAL}"}}[{{window}}])), "way", "out", "", "")',
        "{device} {way}",
    ),
    "ssh-sessions": Chart("sessions", "sum by (user) (ssh_sessions{node})", "{user}"),
}


def chart_window(now: float, minutes: int) -> Window:
    """Return the last `minutes` before `now` (Unix seconds), at most MAX_POINTS + 1 points.

    Ends on a multiple of the step, so that a chart's points stay where they are when
    it is drawn again a moment later.
    """
    step = max(_MIN_STEP_S, math.ceil(minutes * 60 / MAX_POINTS))
    end = int(now) // step * step
    return Window(start=end - minutes * 60 // step * step, end=end, step_s=step)


def chart_query(chart: Chart, node: str, window: Window) -> str:
    """Return the PromQL of the chart for one node."""
    rate_s = max(_MIN_WINDOW_S, 2 * window.step_s)
    matcher = f'node="{escape_label_value(node)}"'
    # The template's braces are PromQL's: str.format would need them doubled everywhere.
    return (
        chart.query.replace("{node}", "{" + matcher + "}")
        .replace("{node,", "{" + matcher + ",")
        .replace("{window}", f"{rate_s}s")
    )


def escape_label_value(text: str) -> str:
    """Return `text` as it stands between double quotes in PromQL."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def series_label(chart: Chart, labels: Mapping[str, str]) -> str:
    """Return what the chart calls the series with these labels."""
    text = chart.label
    for name in ("vendor", "index", "device", "way", "user"):
        text = text.replace("{" + name + "}", labels.get(name, ""))
    return text.strip()


def sort_key(labels: Mapping[str, str]) -> tuple[object, ...]:
    """Order series as people count: card 10 comes after card 9."""
    index = labels.get("index", "")
    number = int(index) if index.isascii() and index.isdigit() else 0
    return (labels.get("vendor", ""), number, sorted(labels.items()))


def on_grid(window: Window, points: Sequence[tuple[float, float]]) -> list[float | None]:
    """Return one value for each time of the window; None where there is no reading."""
    found = {round(time): value for time, value in points if math.isfinite(value)}
    return [found.get(time) for time in window.times]
