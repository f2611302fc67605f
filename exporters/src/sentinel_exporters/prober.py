"""Run probes, which ask other machines, as many side by side as permitted. Keeps no result."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from .catalog import Collector
from .core import CollectorSettings, Target
from .errors import BadTarget, ExporterError
from .outcome import Outcome
from .run import Run, start_run, summarize
from .runner import read_once

log = logging.getLogger(__name__)


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
        self._lock = threading.Lock()
        self._runs: dict[tuple[str, str, str], Run] = {}

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
                work = partial(read_once, collector, settings, target)
                run = self._runs[key] = start_run(name, work)
        run.wait(run.started + timeout_s)
        outcome = summarize(name, run)
        if isinstance(run.error, BadTarget):
            raise run.error
        if outcome.problems:
            # Not an error of ours: the series say it, and a dead target would fill the log.
            log.info(
                "probe failed probe=%s target=%s module=%s reason=%s",
                name, address, module, "; ".join(outcome.problems),
            )  # fmt: skip
        return outcome
