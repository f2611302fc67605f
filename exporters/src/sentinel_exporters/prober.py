"""Run probes, which ask other machines, as many side by side as permitted. Keeps no sample."""

from __future__ import annotations

import logging
import math
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from .catalog import Collector
from .core import CollectorSettings, Target
from .errors import BadTarget, ExporterError
from .outcome import Outcome
from .run import Run, start_run, summarize
from .runner import judge, read_once

log = logging.getLogger(__name__)

_SECONDS = re.compile(r"\d+(?:\.\d+)? s\b")
# Whoever may ask chooses the targets.
_MAX_REASONS = 4096


class TooManyProbes(ExporterError):
    """As many targets as permitted are being probed already."""


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
        # Reentrant, for a probe that ends at once.
        self._lock = threading.RLock()
        self._runs: dict[tuple[str, str, str], Run] = {}
        # Why the targets that fail do; the one that failed longest ago is first.
        self._reasons: OrderedDict[tuple[str, str, str], str] = OrderedDict()

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
            run = self._runs.get(key)
            if run is None or run.is_done:
                self._make_room()
                work = partial(read_once, collector, settings, target)
                run = self._runs[key] = start_run(name, work)
        run.wait(run.started + timeout_s)
        outcome = self._sum_up(key, run)
        if isinstance(run.error, BadTarget):
            raise run.error
        return outcome

    def begin(
        self,
        name: str,
        address: str,
        module: str,
        limit_s: float,
        done: Callable[[Outcome], None],
    ) -> bool:
        """Begin to probe without waiting; False where that is not possible now.

        `done` is called once, from any thread. Raises KeyError for an unknown probe.
        """
        collector, settings = self._collectors[name], self._settings[name]
        if collector.begin is None:
            return False
        target = Target(address, module, min(settings.timeout_s, limit_s))
        key = (name, address, module)
        readings: list[Callable[[], Any]] = []
        run = Run(lambda: judge(collector, settings, readings.pop()()))

        def end(reading: Callable[[], Any]) -> None:
            readings.append(reading)
            run.execute()
            outcome = self._sum_up(key, run)
            with self._lock:
                if self._runs.get(key) is run:
                    del self._runs[key]
            done(outcome)

        # Held, so that nobody joins a run that has not begun; it may have ended already.
        with self._lock:
            known = self._runs.get(key)
            if known is not None and not known.is_done:
                return False
            try:
                self._make_room()
            except TooManyProbes:
                return False
            self._runs[key] = run
            if collector.begin(settings, target, end):
                return True
            del self._runs[key]
            return False

    def _make_room(self) -> None:
        if len(self._runs) >= self._max_probes:
            self._runs = {at: run for at, run in self._runs.items() if not run.is_done}
        if len(self._runs) >= self._max_probes:
            raise TooManyProbes(f"{self._max_probes} probes are running")

    def _sum_up(self, key: tuple[str, str, str], run: Run) -> Outcome:
        name, address, module = key
        outcome = summarize(name, run)
        if isinstance(run.error, BadTarget):
            return outcome
        if outcome.problems and not outcome.samples:
            target = Target(address, module, timeout_s=0.0)
            unread = self._collectors[name].unread(self._settings[name], target)
            outcome = replace(outcome, samples=tuple(unread))
        reason = "; ".join(outcome.problems)
        words = map(_write_word, key)
        # Not an error of ours: the series say it. And when it begins, changes and ends, as the
        # dead targets of a big site would fill the log.
        if not self._is_news(key, reason):
            pass
        elif reason:
            log.info("probe failed probe=%s target=%s module=%s reason=%s", *words, reason)
        else:
            log.info("probe recovered probe=%s target=%s module=%s", *words)
        return outcome

    def _is_news(self, key: tuple[str, str, str], reason: str) -> bool:
        """Say whether the target's state, whose reason is empty when all is well, is new."""
        # How long it was waited for differs from time to time.
        reason = _SECONDS.sub("… s", reason)
        with self._lock:
            before = self._reasons.pop(key, "")
            if reason:
                self._reasons[key] = reason
                while len(self._reasons) > _MAX_REASONS:
                    self._reasons.popitem(last=False)
        return reason != before


def _write_word(text: str) -> str:
    """Return what was asked for as one word: whoever asked could else write lines of ours.

    The probe refuses such targets, but may not have come to it when its time is over.
    """
    return "".join(one if one.isprintable() and one != " " else "?" for one in text[:300])
