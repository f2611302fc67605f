"""Run this machine's collectors side by side, each with its own limits. Makes no sample."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from functools import partial
from typing import Any

from .background import Background
from .catalog import Collector
from .core import CollectorSettings, Sample, Scrape, Target
from .errors import ContractError
from .foreground import Foreground
from .outcome import Outcome, is_news
from .run import describe

log = logging.getLogger(__name__)

# A family's name and the values of its labels.
Series = tuple[str, tuple[str, ...]]


@dataclass(frozen=True)
class LastResult:
    """A collector's last outcome and when it was seen; None: nobody has asked it yet."""

    collector: str
    interval_s: float
    outcome: Outcome | None
    seen_s: float


class Runner:
    """The collectors of this machine. Safe to use from several threads."""

    def __init__(
        self,
        collectors: Iterable[Collector],
        settings: Mapping[str, CollectorSettings],
        *,
        is_auto: bool,
    ) -> None:
        """`is_auto`: a collector joins in when its source is first seen, and then stays."""
        self._collectors = {one.name: one for one in collectors if not one.is_probe}
        self._settings = settings
        self._joined = set() if is_auto else set(self._collectors)
        self._lock = threading.Lock()
        self._foregrounds = {
            name: Foreground(name, partial(self._work, name), settings[name])
            for name in self._collectors
        }
        self._backgrounds: dict[str, Background] = {}
        self._shown: dict[str, tuple[Outcome, float]] = {}

    def start(self) -> None:
        """Begin to read the sources that have an interval; before, all are read when asked."""
        for name in self._collectors:
            if self._settings[name].interval_s > 0:
                work = partial(self._work, name)
                self._backgrounds[name] = Background(name, work, self._settings[name])

    def stop(self) -> None:
        """Begin no further run in the background."""
        for background in self._backgrounds.values():
            background.stop()

    def collect(self, limit_s: float = math.inf) -> list[Outcome]:
        """Return every collector's result: a run's that ends in time, or an earlier one's.

        In time is within its own limit and `limit_s`. A run that an earlier call left behind
        is waited for, not started a second time.
        """
        latest = time.monotonic() + limit_s
        # All are begun before one is waited for.
        runs = {
            name: one.begin()
            for name, one in self._foregrounds.items()
            if name not in self._backgrounds
        }
        outcomes = []
        for name in self._collectors:
            if name in runs:
                outcomes.append(self._foregrounds[name].outcome(runs[name], latest))
            else:
                outcomes.append(self._backgrounds[name].outcome(latest))
        with self._lock:
            for outcome in outcomes:
                self._note(outcome)
        return [outcome for outcome in outcomes if not outcome.is_absent]

    def _work(self, name: str) -> Scrape | None:
        collector, settings = self._collectors[name], self._settings[name]
        # Here and not in collect(): looking for a source can hang as reading it can.
        if name not in self._joined and not collector.is_present(settings):
            return None
        self._joined.add(name)
        return read_once(collector, settings)

    def _note(self, outcome: Outcome) -> None:
        """Log a failure when it begins, changes and ends."""
        name, reason = outcome.collector, outcome.reason
        before = self._shown[name][0].reason if name in self._shown else ""
        if not is_news(reason, before):
            pass
        elif reason:
            log.error("collector failed collector=%s reason=%s", name, reason)
        else:
            log.info("collector recovered collector=%s", name)
        self._shown[name] = (outcome, time.monotonic())

    def last_results(self) -> list[LastResult]:
        """Return what the last scrape saw of each collector, or the background sees now."""
        now = time.monotonic()
        with self._lock:
            shown = dict(self._shown)
        results = []
        for name in self._collectors:
            interval_s = self._settings[name].interval_s
            outcome, seen = shown.get(name, (None, now))
            if name in self._backgrounds:
                outcome, seen = self._backgrounds[name].last_outcome(), now
            results.append(LastResult(name, interval_s, outcome, now - seen))
        return results


def read_once(collector: Collector, settings: CollectorSettings, *target: Target) -> Scrape:
    """Return what the collector finds now, with the other exporters' families that it has.

    Raises what `read` and `parse` raise, and ContractError for samples that spoil the page.
    """
    return judge(collector, settings, collector.read(settings, *target))


def judge(collector: Collector, settings: CollectorSettings, reading: Any) -> Scrape:
    """Return what a reading says; raises like `read_once`. Any: each has its own type."""
    scrape = collector.parse(reading)
    samples, problems = list(scrape.samples), list(scrape.problems)
    shown = check_scrape(collector, Scrape(samples))
    for name, compat in collector.compat.items():
        # Each by itself: what is made for other dashboards must not take our own away.
        try:
            more = list(compat.samples(reading))
            shown = check_scrape(collector, Scrape(more), shown)
        except Exception as error:
            problems.append(f"compat {name}: {describe(error)}")
        else:
            samples += more
    if len(samples) > settings.max_series:
        samples = _most_important(collector, samples, settings.max_series)
        problems.append(
            f"more than {settings.max_series} series (max_series); not all are shown"
        )
    return Scrape(samples, problems)


def _most_important(
    collector: Collector, samples: Iterable[Sample], count: int
) -> list[Sample]:
    """Return so many samples: the families that are declared first, and by labels in each.

    The same ones each time, whatever order they were found in: a series that comes and goes
    costs Prometheus more than one that stays.
    """
    place = collector.families
    return sorted(samples, key=lambda one: (place[one.metric], one.labels))[:count]


def check_scrape(
    collector: Collector, scrape: Scrape, shown: Set[Series] = frozenset()
) -> set[Series]:
    """Return the series of the scrape and `shown`, which are those that the page has already.

    Raises ContractError for a sample that would spoil the page. All of them are written here,
    as what cannot be written is its collector's failure and not the page's.
    """
    families, found = collector.families, set(shown)
    for sample in scrape.samples:
        metric = sample.metric
        if metric not in families:
            raise ContractError(f"{metric.name} is not in METRICS")
        if not math.isfinite(sample.value):
            raise ContractError(f"{metric.name} is {sample.value}")
        try:
            _ = sample.line
        except TypeError as error:  # a label that is no text
            raise ContractError(f"{metric.name}{list(sample.labels)}: {error}") from None
        # The line says the same, but takes longer to be looked up, and there are many.
        count = len(found)
        found.add((metric.name, sample.labels))
        if len(found) == count:
            raise ContractError(f"{sample.line.rpartition(' ')[0]} is there twice")
    return found
