"""A collector whose source is held, made to fail and counted by the test. Asserts nothing."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from sentinel_exporters.catalog import Collector
from sentinel_exporters.core import CollectorSettings, Compat, Metric, Sample, Scrape, Target
from sentinel_exporters.outcome import Outcome
from sentinel_exporters.runner import Runner

VALUE = Metric("toy_value", "gauge", "A toy.", ("name",))
SHORT = CollectorSettings(timeout_s=0.2)
LONG = CollectorSettings(timeout_s=60)


@dataclass
class Source:
    """What a toy collector reads: it counts its reads and may be held or made to fail."""

    name: str
    reads: int = 0
    is_held: bool = False
    error: Exception | None = None
    problems: tuple[str, ...] = ()
    samples: tuple[Sample, ...] | None = None
    is_present: bool = True
    gate: threading.Event = field(default_factory=threading.Event)
    is_probe: bool = False
    compat: Mapping[str, Compat] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.gate.set()

    def read(self, _settings: CollectorSettings, target: Target | None = None) -> str:
        self.reads += 1
        self.is_held = not self.gate.is_set()
        self.gate.wait(30)
        self.is_held = False
        if self.error:
            raise self.error
        return target.address if target else self.name

    def parse(self, reading: str) -> Scrape:
        samples = (VALUE.sample(1, reading),) if self.samples is None else self.samples
        return Scrape(samples, self.problems)

    def collector(self) -> Collector:
        return Collector(
            self.name,
            (VALUE,),
            CollectorSettings,
            lambda _settings: self.is_present,
            self.read,
            self.parse,
            None,
            self.is_probe,
            self.compat,
            unread=lambda _settings, target: (VALUE.sample(0, target.address),),
        )


def make_runner(
    *sources: Source, settings: CollectorSettings = LONG, is_auto: bool = False
) -> Runner:
    return Runner(
        [source.collector() for source in sources],
        {source.name: settings for source in sources},
        is_auto=is_auto,
    )


def collect(runner: Runner, limit_s: float = 30) -> dict[str, Outcome]:
    return {outcome.collector: outcome for outcome in runner.collect(limit_s)}


def own(outcome: Outcome) -> dict[str, float]:
    return {sample.metric.name: sample.value for sample in outcome.own_samples()}
