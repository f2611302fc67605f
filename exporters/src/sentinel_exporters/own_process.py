"""What the exporter itself takes of the machine, as prometheus_client tells it of a process."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import ProcessCollector
from prometheus_client.core import Metric as Family

from .core import Metric, Sample

# Of no registry: it is asked here.
_COLLECTOR = ProcessCollector(registry=None)
_UNITS = ("bytes", "seconds")


def _declare(family: Family) -> Metric:
    is_counter = family.type == "counter"
    unit = next((one for one in _UNITS if family.name.endswith(f"_{one}")), "")
    return Metric(
        family.name + ("_total" if is_counter else ""),
        "counter" if is_counter else "gauge",
        family.documentation,
        unit=unit,
    )


METRICS = tuple(_declare(family) for family in _COLLECTOR.collect())
_BY_NAME = {metric.name: metric for metric in METRICS}


def samples() -> Iterator[Sample]:
    """Yield processor time, memory and open files of this process as they are now."""
    for family in _COLLECTOR.collect():
        for one in family.samples:
            if one.name in _BY_NAME:
                yield _BY_NAME[one.name].sample(one.value)
