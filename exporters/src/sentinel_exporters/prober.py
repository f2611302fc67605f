"""Run probes, which ask other machines, as many side by side as permitted. Keeps no sample."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, KeysView, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from .catalog import Collector
from .core import CollectorSettings, Scrape, Target
from .errors import BadTarget, ExporterError
from .outcome import Outcome
from .probed import Asked, LastProbe, Probed
from .run import Run, describe, start_run, summarize
from .runner import check_scrape, judge, read_once

log = logging.getLogger(__name__)


class TooManyProbes(ExporterError):
    """As many targets as permitted are being probed already."""


@dataclass(frozen=True)
class _Probe:
    """A run, and how much time the probe was given for it."""

    run: Run
    timeout_s: float


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
        self._running: dict[Asked, _Probe] = {}
        self._probed = Probed()

    @property
    def names(self) -> KeysView[str]:
        """The probes that are served."""
        return self._collectors.keys()

    def last_results(self) -> list[LastProbe]:
        """Return how the targets fared that are asked, those that fail first."""
        return self._probed.recent()

    def probe(self, name: str, address: str, module: str, limit_s: float = math.inf) -> Outcome:
        """Probe one target and wait for the answer at most its own limit and `limit_s`.

        A target that is being probed is waited for, not asked a second time: only when that
        failed and was given less time than there is here.
        Raises KeyError for an unknown probe, BadTarget for an unknown target or module, and
        TooManyProbes.
        """
        settings = self._settings[name]
        asked = Asked(name, address, module)
        latest = time.monotonic() + limit_s
        left_s = limit_s
        while True:
            timeout_s = min(settings.timeout_s, left_s)
            probe, is_anothers = self._join_or_start(asked, timeout_s)
            run = probe.run
            run.wait(min(latest, run.started + settings.timeout_s))
            left_s = latest - time.monotonic()
            had_less_time = is_anothers and probe.timeout_s < timeout_s
            has_failed = run.is_done and bool(run.problems)
            if not (had_less_time and has_failed and left_s > 0):
                return self._finish(asked, run)

    def _join_or_start(self, asked: Asked, timeout_s: float) -> tuple[_Probe, bool]:
        """Return the probe of this target, and whether it was another's request."""
        with self._lock:
            known = self._running.get(asked)
            if known is not None and not known.run.is_done:
                return known, True
            if not self._has_room():
                raise TooManyProbes(f"{self._max_probes} probes are running")
            name = asked.collector
            target = Target(asked.address, asked.module, timeout_s)
            work = partial(read_once, self._collectors[name], self._settings[name], target)
            probe = self._running[asked] = _Probe(start_run(name, work), timeout_s)
            return probe, False

    def begin(
        self,
        name: str,
        address: str,
        module: str,
        limit_s: float,
        done: Callable[[Callable[[], Outcome]], None],
    ) -> bool:
        """Begin to probe without waiting; False where that is not possible now.

        `done` is called once, from any thread, with a function that returns the outcome or
        raises BadTarget. Raises KeyError for an unknown probe.
        """
        collector, settings = self._collectors[name], self._settings[name]
        if collector.begin is None:
            return False
        asked = Asked(name, address, module)
        target = Target(address, module, min(settings.timeout_s, limit_s))
        run = Run()

        def end(reading: Callable[[], Any]) -> None:
            run.execute(lambda: judge(collector, settings, reading()))
            done(partial(self._finish, asked, run))

        # Held, so that nobody joins a run that has not begun; it may have ended already.
        with self._lock:
            known = self._running.get(asked)
            if (known is not None and not known.run.is_done) or not self._has_room():
                return False
            self._running[asked] = _Probe(run, target.timeout_s)
            has_begun = False
            try:
                has_begun = collector.begin(settings, target, end)
            except Exception:  # the boundary of a collector; its probe() may say more
                log.exception("probe not begun probe=%s", name)
            if not has_begun and not run.is_done:
                del self._running[asked]
            return has_begun or run.is_done

    def _has_room(self) -> bool:
        if len(self._running) >= self._max_probes:
            # Those that nobody waited for to their end are there still.
            self._running = {
                at: one for at, one in self._running.items() if not one.run.is_done
            }
        return len(self._running) < self._max_probes

    def _finish(self, asked: Asked, run: Run) -> Outcome:
        """Return how the run stands, which somebody waited for; raises BadTarget."""
        if run.is_done:
            with self._lock:
                known = self._running.get(asked)
                if known is not None and known.run is run:
                    del self._running[asked]
        if isinstance(run.error, BadTarget):
            raise run.error
        outcome = summarize(asked.collector, run)
        outcome = replace(outcome, last_success=self._probed.note(asked, outcome))
        if outcome.problems and not outcome.samples:
            return self._add_unread(asked, outcome)
        return outcome

    def _add_unread(self, asked: Asked, outcome: Outcome) -> Outcome:
        collector, settings = self._collectors[asked.collector], self._settings[asked.collector]
        try:
            target = Target(asked.address, asked.module, timeout_s=0.0)
            unread = Scrape(collector.unread(settings, target))
            check_scrape(collector, unread)
        except Exception as error:  # the boundary of a collector
            return replace(outcome, problems=(*outcome.problems, describe(error)))
        return replace(outcome, samples=tuple(unread.samples))
