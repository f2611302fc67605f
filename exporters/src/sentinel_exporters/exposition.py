"""Turn samples into the families that prometheus_client prints. Reads nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client.core import Metric as Family

from .core import Metric, Sample


class Page:
    """One answer to a scrape; what prometheus_client's encoders take for a registry."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._samples = tuple(samples)

    def collect(self) -> Iterator[Family]:
        """Yield each family once, with its samples together, as both formats demand."""
        by_metric: dict[Metric, list[Sample]] = {}
        for sample in self._samples:
            by_metric.setdefault(sample.metric, []).append(sample)
        for metric, samples in sorted(by_metric.items(), key=lambda item: item[0].name):
            # OpenMetrics names a counter's family without the _total of its samples, and
            # permits a unit only where the family's name ends with it.
            base = (
                metric.name.removesuffix("_total") if metric.type == "counter" else metric.name
            )
            unit = metric.unit if metric.unit and base.endswith(f"_{metric.unit}") else ""
            family = Family(base, metric.help, metric.type, unit)
            for sample in samples:
                labels = dict(zip(metric.labels, sample.labels, strict=True))
                family.add_sample(metric.name, labels, sample.value)
            yield family
