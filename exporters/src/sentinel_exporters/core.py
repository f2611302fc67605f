"""The collector contract: what a module in collectors/ offers. Runs nothing and does no IO.

A collector is one module in `collectors/`; its file name is its name. It offers

- `METRICS`: every Metric that it may emit; `sentinel_…` are the exporter's own names.
- `read(settings)`: does the IO and returns a reading of any type. It may block: the runner
  gives it a thread of its own and stops waiting after `settings.timeout_s`.
- `parse(reading)`: pure; turns the reading into a Scrape.
- `is_present(settings)`, optional: whether this machine has the source; must be quick. With
  `collectors = "auto"` only present collectors run. Without it the collector always runs.
- `Settings`, optional: a CollectorSettings with the collector's own options, which become the
  section `[<name>]` of the configuration file.
- `read_devices(settings)`, optional: a DeviceReport for `sentinel-exporter devices`.
- `COMPAT`, optional: by the name for the setting `compat`, another exporter's families, made of
  the same reading.

A probe is a collector that asks other machines: it has `probe(settings, target)` instead of
`read`, and is served at `/<name>?target=…&module=…` where it is enabled by name; "auto" enables
none. Several targets are probed at the same time, so `probe` must not share state between calls
without a lock. It raises BadTarget for a target or module that it does not serve (HTTP 400).

A probe may also have `begin(settings, target, done)`, for when many targets are asked at once:
it begins without waiting for anything and returns True, or returns False where that is not
possible now, and `probe` is called instead. It calls `done` once, from any thread, with a
function that returns the reading or raises, as `probe` does.

`unread(settings, target)`, optional for a probe too, returns the samples of a target of which
there is no reading, because `probe` raised or has not ended in time.

`read`, `probe` and `parse` raise CollectorError, or anything else, when nothing is usable; what
is usable in part goes into a Scrape with `problems`. A missing reading has no sample.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

MetricType = Literal["gauge", "counter"]


@dataclass(frozen=True, eq=False)
class Metric:
    """One family. `unit` is its base unit, "" where it has none; counters end in `_total`.

    It is equal to itself only, which makes it a quick key.
    """

    name: str
    type: MetricType
    help: str
    labels: tuple[str, ...] = ()
    unit: str = ""

    def sample(self, value: float, *labels: str) -> Sample:
        """Return one sample; `labels` are the values in the order of `self.labels`.

        Raises ValueError when their number differs.
        """
        if len(labels) != len(self.labels):
            raise ValueError(f"{self.name}: {len(labels)} values for labels {self.labels}")
        return Sample(self, labels, value)


@dataclass(frozen=True)
class Sample:
    """One value of a family; never NaN: a missing reading has no sample."""

    metric: Metric
    labels: tuple[str, ...]
    value: float

    @cached_property
    def line(self) -> str:
        """The sample's line on a page, the same in every form of page.

        It is kept, since a collector may keep samples: of two hundred BMCs that are read at
        once, most sensors say what others have said before.
        """
        value = repr(float(self.value))
        if not self.labels:
            return f"{self.metric.name} {value}\n"
        pairs = zip(self.metric.labels, self.labels, strict=True)
        labels = ",".join([f'{name}="{escape_label(text)}"' for name, text in pairs])
        return f"{self.metric.name}{{{labels}}} {value}\n"


def escape_label(text: str) -> str:
    """Return a label's value, or a help text of OpenMetrics, as it stands between quotes."""
    if "\\" in text or "\n" in text or '"' in text:
        return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
    return text


@dataclass(frozen=True)
class Scrape:
    """What one run found. A problem makes the run count as failed; the samples go out still."""

    samples: Sequence[Sample]
    problems: Sequence[str] = field(default=())


@dataclass(frozen=True)
class Compat:
    """Another exporter's families, under its names and in its units; all of them gauges.

    Upper-case names and labels are permitted, and `_total`, which OpenMetrics keeps for
    counters. `samples` is pure and takes what `read` returned: Any, since only the collector
    knows its type.
    """

    metrics: tuple[Metric, ...]
    samples: Callable[[Any], Sequence[Sample]]


@dataclass(frozen=True)
class Target:
    """What a probe was asked for. `timeout_s` is what is left: later answers are not used."""

    address: str
    module: str
    timeout_s: float


@dataclass(frozen=True)
class Device:
    """One accelerator chip, in the form of docs/architecture.md; `minor` N: /dev/nvidiaN."""

    vendor: Literal["nvidia", "ascend"]
    uuid: str
    index: int
    minor: int | None
    model: str
    bus_id: str
    memory_bytes: int | None


@dataclass(frozen=True)
class DeviceReport:
    """The devices that were found, and why the list may not be complete."""

    devices: Sequence[Device]
    problems: Sequence[str] = field(default=())


# How long a run may take; a collector that has another default says `timeout_s: TimeoutS = …`.
TimeoutS = Annotated[float, Field(gt=0, le=300)]
# How many series a run may give; `max_series: MaxSeries = …` where more is usual.
MaxSeries = Annotated[int, Field(ge=1)]
# How often the source is read in the background; `interval_s: IntervalS = …` for slow sources.
IntervalS = Annotated[float, Field(ge=0, le=3600)]


class CollectorSettings(BaseModel):
    """What every collector's section of the configuration file has."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # A run that takes longer is reported as failed.
    timeout_s: TimeoutS = 5.0
    # 0: read at each scrape. Above: read that often, whoever asks, and a scrape gets the last
    # result. Probes are always read when they are asked.
    interval_s: IntervalS = 0.0
    # Prometheus keeps each series in memory for hours. What is above is left out, and the run
    # counts as failed. Of a probe: for each target.
    max_series: MaxSeries = 10_000
