"""What has to be done to sessions: who has access, who is warned, who is ended.

Pure: values in, actions out; it reads no clock and touches no process.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from signal import Signals

from ..policy.model import Grant, Policy

# A clock that was put back a little must not end what it has just let in.
START_TOLERANCE = timedelta(seconds=60)


@dataclass(frozen=True)
class Presence:
    """What a user who is subject to the lock has on the node now.

    `names`: further names of the same account. `more_uids`: uids that are the user's besides
    the account's own, and that have processes: those of containers without root.
    """

    user: str
    uid: int
    connections: int
    processes: int
    names: frozenset[str] = frozenset()
    more_uids: tuple[int, ...] = ()

    @property
    def all_names(self) -> frozenset[str]:
        """Every name of the account."""
        return self.names | {self.user}

    @property
    def uids(self) -> tuple[int, ...]:
        """Every uid of the user's."""
        return (self.uid, *self.more_uids)


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
    """Send the signal to every process of these uids of the user's.

    `is_first`: what is there now has come since something of the user's was ended last.
    """

    user: str
    uids: tuple[int, ...]
    signal: Signals
    is_first: bool


Action = Warn | Close | End


@dataclass(frozen=True)
class Closing:
    """How far the end of a user without access has come; times of the monotonic clock.

    `deadline_s`: until then there is grace. `asked_s`: when HUP was sent, None before. `asks`:
    signals sent so far. `is_swept`: KILL was sent. `kills`: rounds in a row that sent it, to
    what was still there. `was_away`: all was gone when it was looked last,
    and nothing was sent since.
    """

    deadline_s: float
    asked_s: float | None = None
    asks: int = 0
    is_swept: bool = False
    kills: int = 0
    was_away: bool = False


@dataclass(frozen=True)
class Memory:
    """What was said before, so that nobody hears it twice; losing it costs no more than that.

    `warned`: user, end and minutes of each warning given.
    `ends`: when the access of each user who is here ends, as known last.
    `closing`: users without access who are or were here.
    """

    warned: frozenset[tuple[str, datetime, int]] = frozenset()
    ends: Mapping[str, datetime] = field(default_factory=dict)
    closing: Mapping[str, Closing] = field(default_factory=dict)

    def without(self, warning: Warn) -> Memory:
        """Return the memory without a warning that nobody has seen."""
        entry = (warning.user, warning.ends, warning.due)
        return replace(self, warned=self.warned - {entry})


@dataclass(frozen=True)
class Pace:
    """How fast sessions are ended: seconds of grace, and from HUP to KILL."""

    grace_s: float
    term_s: float


class Schedule:
    """A policy's grants by user, the earliest first."""

    def __init__(self, policy: Policy) -> None:
        self.begun_by = policy.generated_at
        self._grants: dict[str, list[Grant]] = {}
        for grant in sorted(policy.grants, key=lambda grant: grant.not_before):
            self._grants.setdefault(grant.user, []).append(grant)

    def access_end(self, users: Iterable[str], now: datetime) -> datetime | None:
        """Return when the present access of these users, one person's names, ends.

        None without access. Grants that overlap or touch are one access. It is about sessions
        that are open: they outlive the policy's own expiry, since the server being away ends
        nobody's reservation, and a grant counts as begun when the policy was made after its
        start, whatever this node's clock says.
        """
        begun_by = max(now, self.begun_by) + START_TOLERANCE
        grants = [grant for user in users for grant in self._grants.get(user, ())]
        grants.sort(key=lambda grant: grant.not_before)
        ends = None
        for grant in grants:
            if grant.not_after <= now:
                continue
            if grant.not_before <= (begun_by if ends is None else ends):
                ends = max(ends or grant.not_after, grant.not_after)
        return ends

    def has_ended(self, users: Iterable[str], now: datetime) -> bool:
        """Say whether a grant of these users is over by `now`."""
        return any(
            grant.not_after <= now for user in users for grant in self._grants.get(user, ())
        )


def grants_at(policy: Policy, now: datetime) -> list[Grant]:
    """Return the grants that open the door at `now`: none once the policy has expired."""
    if now >= policy.expires_at:
        return []
    return [grant for grant in policy.grants if grant.not_before <= now < grant.not_after]


def access_end(policy: Policy, user: str, now: datetime) -> datetime | None:
    """Return when the user's present access ends, as `Schedule.access_end`."""
    return Schedule(policy).access_end([user], now)


def make_plan(
    policy: Policy,
    present: Sequence[Presence],
    granted: Collection[str],
    memory: Memory,
    *,
    now: datetime,
    monotonic_s: float,
    warn_minutes: Sequence[int],
    pace: Pace,
) -> tuple[list[Action], Memory]:
    """Return what to do now, in order, and what to remember.

    `present` holds only users who are subject to the lock. Without access those are ended who
    are connected by SSH, or who are in `granted`: they held a reservation here before, and what
    they left behind must not run in somebody else's.
    """
    schedule = Schedule(policy)
    actions: list[Action] = []
    warned = {entry for entry in memory.warned if entry[1] > now - timedelta(minutes=1)}
    known_ends: dict[str, datetime] = {}
    closing: dict[str, Closing] = {}
    for presence in present:
        user = presence.user
        ends = schedule.access_end(presence.all_names, now)
        if ends is not None:
            known_ends[user] = ends
            due = _due_warning(ends - now, warn_minutes)
            if due is not None and (user, ends, due) not in warned:
                warned.add((user, ends, due))
                minutes = math.ceil((ends - now) / timedelta(minutes=1))
                actions.append(Warn(user, presence.uid, ends, minutes, due))
            continue
        if presence.connections == 0 and presence.all_names.isdisjoint(granted):
            continue
        state = memory.closing.get(user)
        if state is None:
            known = memory.ends.get(user)
            is_due = known <= now if known else schedule.has_ended(presence.all_names, now)
            # The end that was announced needs no grace; one that comes early does.
            seconds = 0 if is_due else pace.grace_s
            state = Closing(monotonic_s + seconds)
            actions.append(Close(user, presence.uid, seconds))
        closing[user], signal = _go_on(state, monotonic_s, pace.term_s)
        if signal is not None:
            is_first = state.asks == 0 or state.was_away
            actions.append(End(user, presence.uids, signal, is_first))
    # Who is gone for the moment may come in late: a login that was under way at the sweep.
    names = {presence.user: presence.all_names for presence in present}
    for user, state in memory.closing.items():
        if user not in closing and schedule.access_end(names.get(user, [user]), now) is None:
            closing[user] = replace(state, kills=0, was_away=True)
    return actions, Memory(frozenset(warned), known_ends, closing)


def _go_on(state: Closing, monotonic_s: float, term_s: float) -> tuple[Closing, Signals | None]:
    """Return the next state of one who is here without access, and the signal to send now."""
    if monotonic_s < state.deadline_s:
        return state, None
    asked_s = monotonic_s if state.asked_s is None else state.asked_s
    asked = replace(state, asked_s=asked_s, asks=state.asks + 1, was_away=False)
    # Whoever comes back was asked before.
    if state.is_swept or monotonic_s >= asked_s + term_s:
        return replace(asked, is_swept=True, kills=state.kills + 1), Signals.SIGKILL
    if state.asks == 0:
        return asked, Signals.SIGHUP
    if state.asks == 1 and monotonic_s >= asked_s + term_s / 2:
        return asked, Signals.SIGTERM
    return state, None


def _due_warning(left: timedelta, warn_minutes: Sequence[int]) -> int | None:
    """Return the warning that fits the time left: the smallest that is not smaller."""
    due = [minutes for minutes in warn_minutes if left <= timedelta(minutes=minutes)]
    return min(due, default=None)


def utc(seconds: float) -> datetime:
    """Return the aware datetime of seconds since 1970."""
    return datetime.fromtimestamp(seconds, UTC)
