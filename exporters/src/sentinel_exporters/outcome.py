"""How a collector's run ended, and the series that say so. Runs nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .core import Metric, Sample

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
AGE = Metric(
    "sentinel_collector_age_seconds",
    "gauge",
    "Time since the start of the last run that gave a reading; absent when none did.",
    ("collector",),
    "seconds",
)
METRICS = (SUCCESS, DURATION, LAST_SUCCESS, AGE)

# A run that has not ended by then, and one that ended later.
TOO_SLOW = "no answer within the time limit"

_SECONDS = re.compile(r"\d+(?:\.\d+)? s\b")


@dataclass(frozen=True)
class Outcome:
    """How one run ended; `is_absent`: there is no such source here, so nothing is reported.

    `age_s` is the time since the start of the last run that gave a reading, which is this one
    or an earlier one.
    """

    collector: str
    samples: tuple[Sample, ...] = ()
    duration_s: float = 0.0
    problems: tuple[str, ...] = ()
    last_success: float | None = None
    age_s: float | None = None
    is_absent: bool = False

    @property
    def is_success(self) -> bool:
        """Whether everything could be read."""
        return not self.problems and not self.is_absent

    @property
    def reason(self) -> str:
        """All problems in one line; empty where all is well."""
        return "; ".join(self.problems)

    def own_samples(self) -> list[Sample]:
        """Return the series about the run itself."""
        samples = [
            SUCCESS.sample(float(self.is_success), self.collector),
            DURATION.sample(self.duration_s, self.collector),
        ]
        if self.last_success is not None:
            samples.append(LAST_SUCCESS.sample(self.last_success, self.collector))
        if self.age_s is not None:
            samples.append(AGE.sample(self.age_s, self.collector))
        return samples


def is_news(reason: str, before: str) -> bool:
    """Say whether a reason is worth a line of the log after the one before.

    How long was waited differs from time to time, and is none.
    """
    return _SECONDS.sub("… s", reason) != _SECONDS.sub("… s", before)
