"""A collector whose source is held, made to fail and counted by the test. Asserts nothing."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import pytest

from sentinel_exporters.catalog import Collector
from sentinel_exporters.core import CollectorSettings, Compat, Metric, Sample, Scrape, Target
from sentinel_exporters.outcome import Outcome
from sentinel_exporters.prober import Prober
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
    error: BaseException | None = None
    problems: tuple[str, ...] = ()
    samples: tuple[Sample, ...] | None = None
    is_present: bool = True
    gate: threading.Event = field(default_factory=threading.Event)
    is_probe: bool = False
    compat: Mapping[str, Compat] = field(default_factory=dict)
    # A probe that begins without waiting: each call of `begun` ends one.
    begins: bool = False
    begun: list[Callable[[], None]] = field(default_factory=list)
    begin_error: Exception | None = None

    def __post_init__(self) -> None:
        self.gate.set()

    def read(self, _settings: CollectorSettings, target: Target | None = None) -> str:
        self.reads += 1
        self.is_held = not self.gate.is_set()
        self.gate.wait(30)
        self.is_held = False
        return self.answer(target)

    def answer(self, target: Target | None) -> str:
        if self.error:
            raise self.error
        return target.address if target else self.name

    def begin(
        self,
        _settings: CollectorSettings,
        target: Target,
        done: Callable[[Callable[[], str]], None],
    ) -> bool:
        if self.begin_error:
            raise self.begin_error
        self.begun.append(partial(done, partial(self.answer, target)))
        return True

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
            begin=self.begin if self.begins else None,
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


def make_prober(
    source: Source,
    max_probes: int = 8,
    timeout_s: float = 30,
    unread: Callable[[CollectorSettings, Target], Sequence[Sample]] | None = None,
) -> Prober:
    source.is_probe = True
    settings = {source.name: CollectorSettings(timeout_s=timeout_s)}
    collector = source.collector()
    if unread is not None:
        collector = replace(collector, unread=unread)
    return Prober([collector], settings, max_probes)


def in_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def is_waiting(thread: threading.Thread) -> bool:
    """Whether the thread waits for another's event."""
    frame = sys._current_frames().get(thread.ident or 0)
    return frame is not None and frame.f_code is threading.Condition.wait.__code__


def refuse_threads(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let the system have no thread of this name."""
    start = threading.Thread.start

    def start_others(thread: threading.Thread) -> None:
        if thread.name == name:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_others)
