"""When the enforcing task must look again. Pure: it waits for nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from ..policy.model import Policy
from .plan import Closing

# While somebody is being ended, or waits for that, it is looked often; after an ending for a
# while too: a login that was under way has no session yet.
SOON_S = 0.1
WAITING_S = 0.5
WATCH_S = 1.0
WATCHED_S = 15.0
# A boundary is passed, not just reached, when the pause is over.
AFTER = timedelta(milliseconds=2)


def pause_s(
    *,
    rest_s: float,
    now: datetime,
    monotonic_s: float,
    boundaries: Iterable[datetime],
    closing: Collection[Closing],
    is_somebody_waiting: bool,
    ended_s: float | None,
) -> float:
    """Return the seconds to wait before the next look; at most `rest_s`, for quiet times.

    `boundaries`: times at which something begins or ends. `ended_s`: when, by the monotonic
    clock, somebody's processes were ended last.
    """
    pauses = [rest_s]
    pauses += [(when + AFTER - now).total_seconds() for when in boundaries if when > now]
    pauses += _stages(closing, monotonic_s)
    if is_somebody_waiting:
        pauses.append(WAITING_S)
    if ended_s is not None and monotonic_s - ended_s < WATCHED_S:
        pauses.append(WATCH_S)
    return max(min(pauses), 0.0)


def boundaries_of(
    policy: Policy, opens: Mapping[int, datetime], warn_minutes: Sequence[int]
) -> Iterator[datetime]:
    """Yield the times at which a policy lets in, warns, or ends."""
    yield policy.expires_at
    yield from opens.values()
    for grant in policy.grants:
        yield grant.not_before
        yield grant.not_after
        for minutes in warn_minutes:
            yield grant.not_after - timedelta(minutes=minutes)


def _stages(closing: Collection[Closing], monotonic_s: float) -> Iterator[float]:
    for state in closing:
        if monotonic_s < state.deadline_s:
            yield state.deadline_s - monotonic_s
        elif state.kills:
            # What does not end by a KILL is in the kernel; that may take any time.
            yield SOON_S * 2.0 ** min(state.kills - 1, 10)
        elif state.asks and not state.is_swept:
            yield SOON_S
