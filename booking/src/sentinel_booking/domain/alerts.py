"""What a posted alert does to the history. Knows neither HTTP nor tables."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class PostedAlert:
    """One alert of a webhook; `ends_at` is None while it fires."""

    fingerprint: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    starts_at: dt.datetime
    ends_at: dt.datetime | None

    @property
    def firing(self) -> tuple[str, dt.datetime]:
        """What names this firing: the history has one row for it, however often it comes."""
        return (self.fingerprint, self.starts_at)


def resolved_at(
    starts_at: dt.datetime, ends_at: dt.datetime, received_at: dt.datetime
) -> dt.datetime:
    """Return when a resolved alert ended.

    Alertmanager writes year 1 for "not known", and a node's clock may be behind: an
    end before the start says nothing, so the time of arrival stands in.
    """
    return ends_at if ends_at >= starts_at else max(starts_at, received_at)


def in_order(alerts: Iterable[PostedAlert]) -> list[PostedAlert]:
    """Return the alerts in one order that all processes share.

    Two Alertmanagers of a cluster post the same alerts at the same time; rows that are
    locked in different orders would deadlock.
    """
    return sorted(alerts, key=lambda alert: alert.firing)
