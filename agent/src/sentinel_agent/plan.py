"""What has to be done to sessions: who has access, who is warned, who is ended.

Pure: values in, actions out; it reads no clock and touches no process.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from .policy import Grant, Policy

# A clock that was put back a little must not end what it has just let in.
START_TOLERANCE = timedelta(seconds=60)


@dataclass(frozen=True)
class Presence:
    """What a user who is subject to the lock has on the node now."""

    user: str
    uid: int
    connections: int
    processes: int


@dataclass(frozen=True)
class Warn:
    """Tell the user that the access ends at `ends`, in about `minutes`.

    `due` is which of the warnings it is, in minutes before the end.
    """

    user: str
    uid: int
    ends: datetime
    minutes: int
    due: int


@dataclass(frozen=True)
class Close:
    """Tell the user that the access is over and the session ends in `seconds`."""

    user: str
    uid: int
    seconds: float


@dataclass(frozen=True)
class End:
    """End every process of the user; `is_first`: politely, since nobody asked them before."""

    user: str
    uid: int
    is_first: bool


Action = Warn | Close | End


@dataclass(frozen=True)
class Memory:
    """What was said before, so that nobody hears it twice; losing it costs no more than that.

    `warned`: user, end and minutes of each warning given.
    `closing`: user and the monotonic time in seconds from which the sessions are ended.
    `swept`: users whose processes were ended since they lost access.
    """

    warned: frozenset[tuple[str, datetime, int]] = frozenset()
    closing: Mapping[str, float] = field(default_factory=dict)
    swept: frozenset[str] = frozenset()

    def without(self, warning: Warn) -> Memory:
        """Return the memory without a warning that nobody has seen."""
        entry = (warning.user, warning.ends, warning.due)
        return replace(self, warned=self.warned - {entry})


def grants_at(policy: Policy, now: datetime) -> list[Grant]:
    """Return the grants that open the door at `now`: none once the policy has expired."""
    if now >= policy.expires_at:
        return []
    return [grant for grant in policy.grants if grant.not_before <= now < grant.not_after]


def access_end(policy: Policy, user: str, now: datetime) -> datetime | None:
    """Return when the user's present access ends, None without access.

    Grants that overlap or touch are one access. It is about sessions that are open: they
    outlive the policy's own expiry, since the server being away ends nobody's reservation, and
    a grant counts as begun when the policy was made after its start, whatever this node's
    clock says.
    """
    begun_by = max(now, policy.generated_at) + START_TOLERANCE
    ends = None
    for grant in sorted(policy.grants, key=lambda grant: grant.not_before):
        if grant.user != user or grant.not_after <= now:
            continue
        if grant.not_before <= (begun_by if ends is None else ends):
            ends = max(ends or grant.not_after, grant.not_after)
    return ends


def make_plan(
    policy: Policy,
    present: Sequence[Presence],
    granted: Collection[str],
    memory: Memory,
    *,
    now: datetime,
    monotonic_s: float,
    warn_minutes: Sequence[int],
    grace_s: float,
) -> tuple[list[Action], Memory]:
    """Return what to do now, in order, and what to remember.

    `present` holds only users who are subject to the lock. Without access those are ended who
    are connected by SSH, or who are in `granted`: they held a reservation here before, and what
    they left behind must not run in somebody else's.
    """
    actions: list[Action] = []
    warned = {entry for entry in memory.warned if entry[1] > now - timedelta(minutes=1)}
    closing: dict[str, float] = {}
    swept: set[str] = set()
    for presence in present:
        user = presence.user
        ends = access_end(policy, user, now)
        if ends is not None:
            due = _due_warning(ends - now, warn_minutes)
            if due is not None and (user, ends, due) not in warned:
                warned.add((user, ends, due))
                minutes = math.ceil((ends - now) / timedelta(minutes=1))
                actions.append(Warn(user, presence.uid, ends, minutes, due))
            continue
        if presence.connections == 0 and user not in granted:
            continue
        deadline = memory.closing.get(user)
        if deadline is None:
            was_told = any(entry[0] == user and entry[1] <= now for entry in warned)
            seconds = 0 if was_told else grace_s
            deadline = monotonic_s + seconds
            actions.append(Close(user, presence.uid, seconds))
        closing[user] = deadline
        if monotonic_s >= deadline:
            actions.append(End(user, presence.uid, is_first=user not in memory.swept))
            swept.add(user)
    # Who is gone for the moment may come in late: a login that was under way at the sweep.
    for user, deadline in memory.closing.items():
        if user not in closing and access_end(policy, user, now) is None:
            closing[user] = deadline
    swept |= memory.swept & closing.keys()
    return actions, Memory(frozenset(warned), closing, frozenset(swept))


def _due_warning(left: timedelta, warn_minutes: Sequence[int]) -> int | None:
    """Return the warning that fits the time left: the smallest that is not smaller."""
    due = [minutes for minutes in warn_minutes if left <= timedelta(minutes=minutes)]
    return min(due, default=None)


def utc(seconds: float) -> datetime:
    """Return the aware datetime of seconds since 1970."""
    return datetime.fromtimestamp(seconds, UTC)
