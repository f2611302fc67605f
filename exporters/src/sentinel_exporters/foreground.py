"""Read a source when it is asked for, and let nobody wait long for it. Keeps one result."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

from .core import CollectorSettings
from .outcome import Outcome
from .run import LastRun, Run, Work, start_run, summarize

# How long a run is waited for when there is an earlier result to show; others' results are on
# the same page.
PATIENCE_S = 0.5
# How old that result may be: older ones may tell of what is gone.
KEEP_S = 60.0


class Foreground:
    """Runs that scrapes begin, one at a time, and the last one that ended.

    A run that takes long is not waited for while an earlier result is young enough: that one is
    shown, and its age. Thread-safe.
    """

    def __init__(self, name: str, work: Work, settings: CollectorSettings) -> None:
        self._name = name
        self._work = work
        self._timeout_s = settings.timeout_s
        self._lock = threading.Lock()
        self._current: Run | None = None
        self._last = LastRun()

    def begin(self) -> Run:
        """Return the run that is under way, or a new one where there is none."""
        with self._lock:
            if self._current is not None:
                if not self._current.is_done:
                    return self._current
                self._keep(self._current)
            self._current = start_run(self._name, self._work)
            return self._current

    def outcome(self, run: Run, deadline: float) -> Outcome:
        """Return what a run that was begun says by `deadline` (monotonic), or one before it."""
        with self._lock:
            last = self._last.run
        deadline = min(deadline, run.started + self._timeout_s)
        if last is not None and time.monotonic() - last.started <= KEEP_S:
            # Nobody waits twice for a source that was slow the last time.
            patience_s = PATIENCE_S if last.duration_s <= PATIENCE_S else 0.0
            run.wait(min(deadline, run.started + patience_s))
            if not run.is_done and run.duration_s < self._timeout_s:
                return self._describe(last)
        run.wait(deadline)
        with self._lock:
            self._keep(run)
        return self._describe(run)

    def _keep(self, run: Run) -> None:
        last = self._last.run
        if run.is_done and (last is None or run.started > last.started):
            self._last.keep(run, run.problems)

    def _describe(self, run: Run) -> Outcome:
        with self._lock:
            success_at, age_s = self._last.success_at, self._last.age_s
        return replace(summarize(self._name, run), last_success=success_at, age_s=age_s)
