"""Read a source again and again, so that no scrape waits for it. Keeps one result, no more."""

from __future__ import annotations

import threading
import time

from .core import CollectorSettings, Sample
from .outcome import TOO_SLOW, Outcome
from .run import LastRun, Run, Work


class Background:
    """A thread that reads every `interval_s`, and the last run that ended.

    A run that fails takes the last one's place, so that nothing is shown that the source no
    longer says. A run that hangs says nothing: the last one's samples stay until they are too
    old, and their age grows.
    """

    def __init__(self, name: str, work: Work, settings: CollectorSettings) -> None:
        """Begin to read; raises RuntimeError where no thread can be had for it."""
        self._name = name
        self._work = work
        self._interval_s = settings.interval_s
        self._timeout_s = settings.timeout_s
        # A run that begins when it is due and takes all of its time is no fault.
        self._keep_s = max(3 * settings.interval_s, settings.interval_s + settings.timeout_s)
        self._stopped = threading.Event()
        self._has_result = threading.Event()
        self._lock = threading.Lock()
        self._current = Run()
        self._last = LastRun()
        # A daemon, because a driver call that never returns must not keep the process alive.
        threading.Thread(target=self._main, name=f"collector-{name}", daemon=True).start()

    def stop(self) -> None:
        """Begin no further run; one that is under way is left to itself."""
        self._stopped.set()

    def _main(self) -> None:
        run = self._current
        while True:
            run.execute(self._work)
            self._keep(run)
            # By the monotonic clock, so that setting the time neither stops nor hurries it.
            # A run that took longer than the interval is followed by the next one at once.
            if self._stopped.wait(max(0.0, run.started + self._interval_s - time.monotonic())):
                return
            run = Run()
            with self._lock:
                self._current = run

    def _keep(self, run: Run) -> None:
        with self._lock:
            self._last.keep(run, self._find_problems(run))
        self._has_result.set()

    def _find_problems(self, run: Run) -> tuple[str, ...]:
        late = (TOO_SLOW,) if run.duration_s > self._timeout_s else ()
        return (*run.problems, *late)

    def last_outcome(self) -> Outcome | None:
        """Return how matters stand; None while the first run is under way and in time."""
        if not self._has_result.is_set() and self._current.duration_s <= self._timeout_s:
            return None
        return self.outcome(0.0)

    def outcome(self, deadline: float) -> Outcome:
        """Return how matters stand; only the first run is waited for, until `deadline`."""
        limit = min(deadline, self._current.started + self._timeout_s)
        self._has_result.wait(max(0.0, limit - time.monotonic()))
        with self._lock:
            last, current = self._last.run, self._current
            success_at, age_s = self._last.success_at, self._last.age_s
        if last is None or current.duration_s > self._timeout_s:
            duration_s, problems = current.duration_s, [TOO_SLOW]
        else:
            duration_s, problems = last.duration_s, []
        samples: tuple[Sample, ...] = ()
        if last is not None:
            problems = list(dict.fromkeys([*self._find_problems(last), *problems]))
            if last.scrape is not None:
                samples = tuple(last.scrape.samples)
                if time.monotonic() - last.started > self._keep_s:
                    samples = ()
                    problems.append(f"the last reading is older than {self._keep_s:g} s")
            elif not problems:
                return Outcome(self._name, is_absent=True)
        return Outcome(self._name, samples, duration_s, tuple(problems), success_at, age_s)
