"""Run collectors side by side, each with its own time limit. Knows no metric but its own."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from .catalog import Collector
from .core import CollectorSettings, Metric, Sample, Scrape, Target
from .errors import BadTarget, CollectorError, ContractError, ExporterError

log = logging.getLogger(__name__)

SUCCESS = Metric(
    "sentinel_collector_success",
    "gauge",
    "1 when the collector's last run read all that it should, else 0.",
    ("collector",),
)
DURATION = Metric(
    "sentinel_collector_duration_seconds",
    "gauge",
    "How long the collector's last run took, or has been running.",
    ("collector",),
    "seconds",
)
LAST_SUCCESS = Metric(
    "sentinel_collector_last_success_timestamp_seconds",
    "gauge",
    "When the collector last succeeded, in Unix time; absent when it never did.",
    ("collector",),
    "seconds",
)
METRICS = (SUCCESS, DURATION, LAST_SUCCESS)


class TooManyProbes(ExporterError):
    """As many targets as permitted are being probed already."""


@dataclass(frozen=True)
class Outcome:
    """How one run ended; `is_absent`: there is no such source here, so nothing is reported."""

    collector: str
    samples: tuple[Sample, ...] = ()
    duration_s: float = 0.0
    problems: tuple[str, ...] = ()
    last_success: float | None = None
    is_absent: bool = False

    @property
    def is_success(self) -> bool:
        """Whether everything could be read."""
        return not self.problems and not self.is_absent

    def own_samples(self) -> list[Sample]:
        """Return the series about the run itself."""
        samples = [
            SUCCESS.sample(float(self.is_success), self.collector),
            DURATION.sample(self.duration_s, self.collector),
        ]
        if self.last_success is not None:
            samples.append(LAST_SUCCESS.sample(self.last_success, self.collector))
        return samples


class _Run:
    """One run in a thread of its own, which is abandoned when it takes too long."""

    def __init__(self, name: str, work: Callable[[], Scrape | None]) -> None:
        self.started = time.monotonic()
        self.scrape: Scrape | None = None
        self.error: Exception | None = None
        self.ended = 0.0
        self._work = work
        self._done = threading.Event()
        # A daemon, because a driver call that never returns must not keep the process alive.
        threading.Thread(target=self._main, name=f"collector-{name}", daemon=True).start()

    def _main(self) -> None:
        try:
            self.scrape = self._work()
        except Exception as error:  # the boundary of a collector: its failure is its result
            self.error = error
        self.ended = time.monotonic()
        self._done.set()

    @property
    def is_done(self) -> bool:
        return self._done.is_set()

    def outcome(self, name: str, deadline: float) -> Outcome:
        """Wait until `deadline` (monotonic) and say how the run stands then."""
        if not self._done.wait(max(0.0, deadline - time.monotonic())):
            took = time.monotonic() - self.started
            return Outcome(name, duration_s=took, problems=("no answer within the time limit",))
        took = self.ended - self.started
        if self.error is not None:
            return Outcome(name, duration_s=took, problems=(describe(self.error),))
        if self.scrape is None:
            return Outcome(name, duration_s=took, is_absent=True)
        return Outcome(name, tuple(self.scrape.samples), took, tuple(self.scrape.problems))


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
        self._runs: dict[str, _Run] = {}
        self._last_success: dict[str, float] = {}
        self._reasons: dict[str, tuple[str, ...]] = {}

    def collect(self, limit_s: float = math.inf) -> list[Outcome]:
        """Run every collector and return what ended within its own limit and `limit_s`.

        A run that an earlier call left behind is waited for, not started a second time.
        """
        latest = time.monotonic() + limit_s
        with self._lock:
            runs = {name: self._start(name) for name in self._collectors}
        outcomes = [
            run.outcome(name, min(latest, run.started + self._settings[name].timeout_s))
            for name, run in runs.items()
        ]
        with self._lock:
            return [self._keep(outcome) for outcome in outcomes if not outcome.is_absent]

    def _start(self, name: str) -> _Run:
        run = self._runs.get(name)
        if run is None or run.is_done:
            run = self._runs[name] = _Run(name, lambda: self._work(name))
        return run

    def _work(self, name: str) -> Scrape | None:
        collector, settings = self._collectors[name], self._settings[name]
        # Here and not in collect(): looking for a source can hang as reading it can.
        if name not in self._joined and not collector.is_present(settings):
            return None
        self._joined.add(name)
        return check_scrape(collector, collector.parse(collector.read(settings)))

    def _keep(self, outcome: Outcome) -> Outcome:
        """Remember a success, and log a failure when it begins, changes and ends."""
        name = outcome.collector
        if outcome.is_success:
            self._last_success[name] = time.time()
        before = self._reasons.get(name, ())
        if outcome.problems and outcome.problems != before:
            log.error(
                "collector failed collector=%s reason=%s", name, "; ".join(outcome.problems)
            )
        elif before and not outcome.problems:
            log.info("collector recovered collector=%s", name)
        self._reasons[name] = outcome.problems
        return Outcome(
            name,
            outcome.samples,
            outcome.duration_s,
            outcome.problems,
            self._last_success.get(name),
        )

    def reasons(self) -> dict[str, tuple[str, ...]]:
        """Return, for each collector that has run, its last problems; () is a success."""
        with self._lock:
            return dict(self._reasons)


class Prober:
    """The probes of other machines. Safe to use from several threads."""

    def __init__(
        self,
        collectors: Iterable[Collector],
        settings: Mapping[str, CollectorSettings],
        max_probes: int,
    ) -> None:
        self._collectors = {one.name: one for one in collectors if one.is_probe}
        self._settings = settings
        self._max_probes = max_probes
        self._lock = threading.Lock()
        self._runs: dict[tuple[str, str, str], _Run] = {}

    @property
    def names(self) -> Sequence[str]:
        """The probes that are served."""
        return tuple(self._collectors)

    def probe(self, name: str, address: str, module: str, limit_s: float = math.inf) -> Outcome:
        """Probe one target and wait for the answer at most its own limit and `limit_s`.

        A target that is being probed is waited for, not asked a second time.
        Raises KeyError for an unknown probe, BadTarget for an unknown target or module, and
        TooManyProbes.
        """
        collector, settings = self._collectors[name], self._settings[name]
        timeout_s = min(settings.timeout_s, limit_s)
        target = Target(address, module, timeout_s)
        key = (name, address, module)
        with self._lock:
            self._runs = {at: run for at, run in self._runs.items() if not run.is_done}
            run = self._runs.get(key)
            if run is None:
                if len(self._runs) >= self._max_probes:
                    raise TooManyProbes(f"{self._max_probes} probes are running")
                run = self._runs[key] = _Run(
                    name,
                    lambda: check_scrape(
                        collector, collector.parse(collector.read(settings, target))
                    ),
                )
        outcome = run.outcome(name, run.started + timeout_s)
        if isinstance(run.error, BadTarget):
            raise run.error
        if outcome.problems:
            # Not an error of ours: the series say it, and a dead target would fill the log.
            log.info(
                "probe failed probe=%s target=%s module=%s reason=%s",
                name, address, module, "; ".join(outcome.problems),
            )  # fmt: skip
        return outcome


def check_scrape(collector: Collector, scrape: Scrape) -> Scrape:
    """Return the scrape; raises ContractError when its samples would spoil the page."""
    seen: set[tuple[str, tuple[str, ...]]] = set()
    for sample in scrape.samples:
        if sample.metric not in collector.metrics:
            raise ContractError(f"{sample.metric.name} is not in METRICS")
        if not math.isfinite(sample.value):
            raise ContractError(f"{sample.metric.name} is {sample.value}")
        if (sample.metric.name, sample.labels) in seen:
            raise ContractError(f"{sample.metric.name}{list(sample.labels)} is there twice")
        seen.add((sample.metric.name, sample.labels))
    return scrape


def describe(error: Exception) -> str:
    """Return the error in one line; an unexpected one with its type."""
    text = " ".join(str(error).split())
    if isinstance(error, CollectorError):
        return text
    return f"{type(error).__name__}: {text}"
