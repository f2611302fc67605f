"""One run of one collector, in whatever thread. Decides neither when nor how long to wait."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial

from .core import Scrape
from .errors import CollectorError
from .outcome import TOO_SLOW, Outcome

log = logging.getLogger(__name__)

# What a run does; None: there is no such source here.
Work = Callable[[], Scrape | None]


class Run:
    """One run, in the thread that calls `execute`; its result may be read once it is done."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.ended = math.inf
        self.ended_at = math.inf  # Unix time, for people
        self.scrape: Scrape | None = None
        self.error: BaseException | None = None
        self._done = threading.Event()

    def execute(self, work: Work) -> None:
        """Do the work; returns when it does, which may be never."""
        try:
            self.scrape = work()
        # The boundary of a collector: its failure is its result. A library's sys.exit() is one
        # too, as nobody would start the next run.
        except BaseException as error:
            self.error = error
            log.debug("run failed", exc_info=True)
        self.ended = time.monotonic()
        self.ended_at = time.time()
        self._done.set()

    @property
    def is_done(self) -> bool:
        """Whether it has ended."""
        return self._done.is_set()

    @property
    def duration_s(self) -> float:
        """How long it took, or has been running."""
        return min(self.ended, time.monotonic()) - self.started

    @property
    def problems(self) -> tuple[str, ...]:
        """What went wrong, once it is done."""
        if self.error is not None:
            return (describe(self.error),)
        return tuple(map(_in_one_line, self.scrape.problems)) if self.scrape else ()

    def wait(self, deadline: float) -> bool:
        """Wait for its end until `deadline` (monotonic); say whether it has ended."""
        return self._done.wait(max(0.0, deadline - time.monotonic()))


class LastRun:
    """The last run that ended, and when the source last gave something. Not thread-safe."""

    def __init__(self) -> None:
        self.run: Run | None = None
        # The start of the last run that gave a reading, on the monotonic clock.
        self._read: float | None = None
        # Unix time.
        self.success_at: float | None = None

    def keep(self, run: Run, problems: Sequence[str]) -> None:
        """Remember a run that has ended, and what was wrong with it."""
        self.run = run
        if run.scrape is not None:
            self._read = run.started
            if not problems:
                self.success_at = run.ended_at

    @property
    def age_s(self) -> float | None:
        """How old the last reading is."""
        return None if self._read is None else time.monotonic() - self._read


def start_run(name: str, work: Work) -> Run:
    """Start a run in a thread of its own, which is left behind when it takes too long."""
    run = Run()
    # A daemon, because a driver call that never returns must not keep the process alive.
    thread = threading.Thread(
        target=run.execute, args=(work,), name=f"collector-{name}", daemon=True
    )
    try:
        thread.start()
    except RuntimeError as error:  # the system has no thread left; other runs may have theirs
        run.execute(partial(_fail, CollectorError(str(error))))
    return run


def _fail(error: CollectorError) -> None:
    raise error


def summarize(name: str, run: Run) -> Outcome:
    """Return how the run stands now, without what earlier runs did."""
    if not run.is_done:
        return Outcome(name, (), run.duration_s, (TOO_SLOW,))
    if run.scrape is None:
        return Outcome(name, (), run.duration_s, run.problems, is_absent=run.error is None)
    return Outcome(name, tuple(run.scrape.samples), run.duration_s, run.problems)


def describe(error: BaseException) -> str:
    """Return the error in one line; an unexpected one with its type."""
    text = _in_one_line(error)
    if isinstance(error, CollectorError):
        return text
    return f"{type(error).__name__}: {text}"


def _in_one_line(reason: object) -> str:
    """Return the reason as it stands in the log, where each line is to be one of ours."""
    text = " ".join(str(reason).split())
    return "".join(one if one.isprintable() else "?" for one in text)
