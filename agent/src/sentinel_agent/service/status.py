"""What the agent's tasks know of each other: problems, sessions, the server's last word.

It only keeps; nothing here acts.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..policy.clock import ServerClock

# What a heartbeat carries at most; a page of problems helps nobody.
PROBLEMS_MAX = 50
PROBLEM_CHARS_MAX = 300


@dataclass
class Status:
    """Shared by all threads; every field is replaced whole, never changed in place.

    Times named `_at` are seconds since 1970, those named `_monotonic_s` of the monotonic clock.
    """

    mode: str = "observe"
    sessions: Mapping[str, int] = field(default_factory=dict)
    last_heartbeat_at: float | None = None
    clock_skew_s: float | None = None
    clock: ServerClock = field(default_factory=ServerClock)
    policy_confirmed_monotonic_s: float | None = None
    reconciled_monotonic_s: float | None = None
    # How long the last round of enforcement took, waiting included.
    round_seconds: float | None = None
    # What sshd and PAM are like: `locked`, `open` or `partial`; None: nobody has looked.
    lock: str | None = None
    # Former holders who outlived the limit of a handover, and the reservations held back now
    # for them or, after the limit, opened all the same.
    unclean: tuple[str, ...] = ()
    waiting: int = 0
    overdue: int = 0
    _problems: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _errors: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def set_problems(self, task: str, problems: Sequence[str]) -> None:
        """Replace what this task reports; an empty list means that all is well."""
        with self._lock:
            self._problems[task] = tuple(problems)

    def note_error(self, task: str, at: float) -> None:
        """Remember when a task failed last."""
        with self._lock:
            self._errors[task] = at

    def last_errors(self) -> dict[str, float]:
        """Return when each task that has failed did so last."""
        with self._lock:
            return dict(self._errors)

    def problems(self) -> list[str]:
        """Return all tasks' problems, each named by its task."""
        with self._lock:
            listed = [
                f"{task}: {text}"[:PROBLEM_CHARS_MAX]
                for task, texts in sorted(self._problems.items())
                for text in texts
            ]
        return listed[:PROBLEMS_MAX]

    def problem_counts(self) -> dict[str, int]:
        """Return how many problems each task reports."""
        with self._lock:
            return {task: len(texts) for task, texts in self._problems.items()}
