"""Keeps who is held back, for the threads together, and who may still use what.

It looks at no process: the enforcing task tells it what it saw.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from ..errors import StateError
from ..policy.held import HeldPolicy
from ..policy.model import Policy
from .granted import GrantedUsers
from .handover import (
    NOTHING,
    Doors,
    Left,
    decide,
    devices_of,
    doors_of_cache,
    held_at,
    lost,
    open_all,
)
from .plan import utc

log = logging.getLogger(__name__)

_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


class Cards(Protocol):
    """Knows which cards' device files are open: cards/card_lock.py."""

    def still_open(self, uid: int, gone: Collection[str], held: Collection[str]) -> bool:
        """Say whether a process of the uid has one of the devices `gone` open.

        Devices by their uuids; WHOLE_NODE stands for all that are not `held`. What cannot be
        known counts as not open.
        """


@dataclass(frozen=True)
class Seen:
    """What the enforcing task saw when it looked.

    `at` is the time just before it looked, and `turn` what `Doorkeeper.turn` was then. `uids`:
    the accounts of the users that the policy or `GrantedUsers` names. `running`: those of them
    with a process, or perhaps one that is about to start. `staying`: those with access now.
    `exempt`: those whom the lock does not touch; nobody is made to wait for them. `gone`: those
    whose account is another's now.
    """

    at: datetime
    turn: int
    uids: Mapping[str, int]
    running: Collection[str]
    staying: Collection[str]
    exempt: Collection[str]
    gone: Collection[str] = ()


class Doorkeeper:
    """Decides, with each new policy and whenever somebody has looked, who is held back."""

    def __init__(
        self, held: HeldPolicy, granted: GrantedUsers, *, limit_s: float, may_enforce: bool
    ) -> None:
        self._held = held
        self._granted = granted
        self._limit = timedelta(seconds=limit_s)
        self._may_enforce = may_enforce
        self._lock = threading.Lock()
        self._doors = Doors()
        self._turn = 0
        self._noted_until = _LONG_AGO
        policy = held.policy
        if policy is not None:
            self._doors = doors_of_cache(policy, held.opens)
            self._note(policy, utc(time.time()))

    @property
    def turn(self) -> int:
        """A number that grows with each new policy."""
        return self._turn

    @property
    def doors(self) -> Doors:
        """Who is held back, and for whom, as decided last."""
        return self._doors

    def take(self, policy: Policy) -> None:
        """Put a new policy in force. Raises PolicyRefused, StateError as HeldPolicy.replace.

        Whoever held something until now may still be using it; the new policy does not say so.
        """
        with self._lock:
            now = utc(time.time())
            if self._held.policy is not None:
                self._note(self._held.policy, now)
            doors = self._decide(policy, now)
            # Before the new policy is to be seen: a look that has begun is too old for it.
            self._turn += 1
            self._held.put(policy, doors.opens)
            self._doors = doors
            self._turn += 1
        self._held.write()

    def look(self, seen: Seen, cards: Cards) -> bool:
        """Take up what was seen; return whether `write` has something to do.

        It touches no file: a disk that hangs must not keep anybody from being ended.
        """
        with self._lock:
            policy = self._held.policy
            if policy is None:
                return False
            self._note(policy, seen.at)
            known = {*self._granted.users, *self._granted.touched}
            uids = {user: uid for user, uid in seen.uids.items() if user in known}
            self._granted.users = {
                user: uid
                for user, uid in {**self._granted.users, **uids}.items()
                if user not in seen.gone
            }
            # Who got away from another policy has perhaps come in since we looked.
            if seen.turn == self._turn:
                self._granted.touched = self._still_touched(policy, seen, cards)
            self._doors = self._decide(policy, seen.at)
            self._held.put_opens(self._doors.opens)
            return self._granted.is_changed or not self._held.is_written

    def write(self) -> list[str]:
        """Write what has changed, and what somebody else changed; return the problems met.

        That tells the gates who must not wait any more.
        """
        problems = []
        # Former holders first: without them the cache would say that all is clean.
        for write in (self._granted.save, self._held.write):
            try:
                write()
            except StateError as error:
                problems.append(str(error))
        return problems

    def _decide(self, policy: Policy, now: datetime) -> Doors:
        if policy.mode != "enforce" or not self._may_enforce or not self._limit:
            return open_all(policy, self._doors, now)
        left = Left(self._granted.touched, self._granted.users)
        return decide(policy, self._doors, left, now, self._limit)

    def _note(self, policy: Policy, now: datetime) -> None:
        """Remember who held what since the last time: also one whose grant has ended since."""
        since = min(self._noted_until, now)
        begun: dict[str, frozenset[str]] = {}
        for grant in policy.grants:
            if grant.not_before <= now and since < grant.not_after:
                begun[grant.user] = begun.get(grant.user, NOTHING) | devices_of(grant)
        self._granted.touch(begun)
        self._noted_until = now

    def _still_touched(
        self, policy: Policy, seen: Seen, cards: Cards
    ) -> dict[str, frozenset[str]]:
        held = held_at(policy, seen.at)
        still: dict[str, frozenset[str]] = {}
        for user, touched in self._granted.touched.items():
            mine = held.get(user, NOTHING)
            gone = lost(touched, mine)
            is_away = user not in seen.running or user in seen.exempt
            is_clean = not gone or is_away
            if not is_clean and user in seen.staying:
                is_clean = not self._has_open(user, gone, mine, seen, cards)
            still[user] = mine if is_clean else touched
            if gone and is_clean:
                log.info("nothing left of what was held user=%s devices=%d", user, len(gone))
        return {user: them for user, them in still.items() if them}

    @staticmethod
    def _has_open(
        user: str, gone: frozenset[str], mine: frozenset[str], seen: Seen, cards: Cards
    ) -> bool:
        uid = seen.uids.get(user)
        return uid is not None and cards.still_open(uid, gone, mine)
