"""Remember how each target that was probed fared, and log when that changes. Probes none."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import NamedTuple

from .outcome import Outcome, is_news

log = logging.getLogger(__name__)

# Whoever may ask chooses the targets, and what they are called.
_MAX_TARGETS = 4096
_MAX_LENGTH = 300
# One that was not asked for so long is no longer somebody's target.
_RECENT_S = 3600.0


class Asked(NamedTuple):
    """What is asked for: the probe's collector, and the request's target and module."""

    collector: str
    address: str
    module: str


@dataclass(frozen=True)
class LastProbe:
    """How a target fared when it was last asked, which was `ago_s` ago.

    The names are such as may stand in the log; no `reason`: all could be read, the last time at
    `success_at` in Unix time.
    """

    asked: Asked
    reason: str
    series: int
    duration_s: float
    ago_s: float = 0.0
    success_at: float | None = None


class Probed:
    """How the targets fared. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # With the time on the monotonic clock; the one that was asked longest ago is first.
        self._last: OrderedDict[Asked, tuple[LastProbe, float]] = OrderedDict()

    def note(self, asked: Asked, outcome: Outcome) -> float | None:
        """Remember the outcome, and log when a failure begins, changes and ends.

        Returns when all could be read for the last time, in Unix time.
        """
        reason = outcome.reason
        with self._lock:
            before, _ = self._last.pop(asked, (None, 0.0))
            names = before.asked if before else Asked(*map(_write_word, asked))
            success_at = before.success_at if before else None
            if outcome.is_success:
                success_at = time.time()
            last = LastProbe(
                names, reason, len(outcome.samples), outcome.duration_s, success_at=success_at
            )
            self._last[asked] = last, time.monotonic()
            if len(self._last) > _MAX_TARGETS:
                self._last.popitem(last=False)
        if not is_news(reason, before.reason if before else ""):
            return success_at
        # Not an error of ours: the series say it. And not each time, as the dead targets of a
        # big site would fill the log.
        if reason:
            log.info("probe failed probe=%s target=%s module=%s reason=%s", *names, reason)
        else:
            log.info("probe recovered probe=%s target=%s module=%s", *names)
        return success_at

    def recent(self) -> list[LastProbe]:
        """Return the targets that are still asked, those that fail first, by their names."""
        now = time.monotonic()
        with self._lock:
            last = list(self._last.values())
        recent = [replace(one, ago_s=now - at) for one, at in last if now - at <= _RECENT_S]
        return sorted(recent, key=lambda one: (not one.reason, one.asked))


def _write_word(text: str) -> str:
    """Return what was asked for as one word: whoever asked could else write lines of ours.

    The probe refuses such targets, but may not have come to it when its time is over.
    """
    return "".join(
        one if one.isprintable() and one != " " else "?" for one in text[:_MAX_LENGTH]
    )
