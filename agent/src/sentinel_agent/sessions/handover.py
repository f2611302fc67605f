"""Who waits for whom: which grants are held back until a former holder's processes are gone.

Pure: values in, values out; it reads no clock, looks at no process and writes no file.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from ..policy.model import Grant, Policy

# Stands for all that a node has: what the holder of a whole node holds.
WHOLE_NODE = "*"

NOTHING: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Doors:
    """Which grants of a policy are open, and which are held back, at one time.

    `due`: when each grant that was not open yet opens, as the gates were told.
    `opened`: the grants (reservation and user) that were open at some time. They stay so.
    `opens`: what the gates are told of those held back: reservation and time.
    `waits`: the former holders whom each reservation that has begun is held back for.
    `unclean`: reservations that the limit has opened, and the former holders still there.
    """

    due: Mapping[tuple[int, str], datetime] = field(default_factory=dict)
    opened: frozenset[tuple[int, str]] = frozenset()
    opens: Mapping[int, datetime] = field(default_factory=dict)
    waits: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    unclean: Mapping[int, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Left:
    """What of the node its users may still use, whatever they hold now.

    `touched`: the devices of each user, WHOLE_NODE for all. `uids`: the users' accounts; two
    names with one uid are one user.
    """

    touched: Mapping[str, frozenset[str]]
    uids: Mapping[str, int] = field(default_factory=dict)

    def is_same(self, one: str, other: str) -> bool:
        """Say whether two names are one user's."""
        uid = self.uids.get(one)
        return one == other or (uid is not None and uid == self.uids.get(other))


def devices_of(grant: Grant) -> frozenset[str]:
    """Return the uuids of a grant's devices, WHOLE_NODE for a whole node."""
    if grant.whole_node:
        return frozenset([WHOLE_NODE])
    return frozenset(device.uuid for device in grant.devices)


def held_at(policy: Policy, now: datetime) -> dict[str, frozenset[str]]:
    """Return what each user holds at `now`, whether the gates have opened it or not."""
    held: dict[str, frozenset[str]] = {}
    for grant in policy.grants:
        if grant.not_before <= now < grant.not_after:
            held[grant.user] = held.get(grant.user, NOTHING) | devices_of(grant)
    return held


def has_in_common(one: Collection[str], other: Collection[str]) -> bool:
    """Say whether two holdings share a device."""
    if WHOLE_NODE in one:
        return bool(other)
    if WHOLE_NODE in other:
        return bool(one)
    return not set(one).isdisjoint(other)


def lost(touched: frozenset[str], held: frozenset[str]) -> frozenset[str]:
    """Return what of `touched` is not `held` any more."""
    return NOTHING if WHOLE_NODE in held else touched - held


def doors_of_cache(policy: Policy, opens: Mapping[int, datetime]) -> Doors:
    """Return what the gates have been told by a cache that the agent finds at its start."""
    return Doors(due=_due(policy.grants, opens), opens=dict(opens))


def open_all(policy: Policy, before: Doors, now: datetime) -> Doors:
    """Return the doors of a node on which nothing is held back."""
    return Doors(_due(policy.grants, {}), _opened(policy, before, now))


def decide(policy: Policy, before: Doors, left: Left, now: datetime, limit: timedelta) -> Doors:
    """Return what is held back at `now`, given what was held back `before`.

    A grant waits for another user's processes if they may use a device of its own, at most
    until `limit` after its start, or after it was held back first if that is later. It is held
    back in advance when such a user's grant ends within `limit` before it begins: whoever
    watches the end may be late. What the gates have opened is never closed again.
    """
    held = held_at(policy, now)
    opened = _opened(policy, before, now)
    opens: dict[int, datetime] = {}
    waits: dict[int, tuple[str, ...]] = {}
    unclean: dict[int, tuple[str, ...]] = {}
    free: set[int] = set()
    for grant in policy.grants:
        number = grant.reservation
        is_opened = (number, grant.user) in opened
        former: set[str] = set()
        if now < grant.not_after and grant.not_before - now <= limit:
            former = _former(grant, left, held)
        if is_opened:
            # One that the limit has opened keeps its time: there is nothing new to tell.
            if former and number in before.opens:
                opens[number] = before.opens[number]
                unclean[number] = tuple(sorted(former))
            else:
                free.add(number)
            continue
        if grant.not_before <= now:
            if former:
                waits[number] = tuple(sorted(former))
        else:
            former |= _predecessors(policy, grant, left, now, limit)
        if former:
            latest = max(grant.not_before, now) + limit
            # Not later than `latest`: the clock may have been put back since.
            opens[number] = min(before.opens.get(number, latest), latest)
        else:
            free.add(number)
    # Two grants of one reservation are told to the gates by one number.
    opens = {number: when for number, when in opens.items() if number not in free}
    return Doors(_due(policy.grants, opens), opened, opens, waits, unclean)


def _former(grant: Grant, left: Left, held: Mapping[str, frozenset[str]]) -> set[str]:
    """Return the other users who may still use a device of the grant's and hold it no more."""
    wanted = devices_of(grant)
    return {
        user
        for user, touched in left.touched.items()
        if touched
        and not left.is_same(user, grant.user)
        # Who holds a device by right is not waited for.
        and has_in_common(
            lost(touched, held.get(user, NOTHING)), lost(wanted, held.get(user, NOTHING))
        )
    }


def _predecessors(
    policy: Policy, grant: Grant, left: Left, now: datetime, limit: timedelta
) -> set[str]:
    """Return the other users with a grant that has still to end, shortly before this begins."""
    wanted = devices_of(grant)
    return {
        other.user
        for other in policy.grants
        if max(now, grant.not_before - limit - _TICK) < other.not_after <= grant.not_before
        and not left.is_same(other.user, grant.user)
        and has_in_common(devices_of(other), wanted)
    }


# The least difference of two times: an end exactly `limit` before the start counts.
_TICK = timedelta(microseconds=1)


def _opened(policy: Policy, before: Doors, now: datetime) -> frozenset[tuple[int, str]]:
    there = {(grant.reservation, grant.user) for grant in policy.grants}
    opened = before.opened | {key for key, when in before.due.items() if when <= now}
    return frozenset(opened & there)


def _due(
    grants: Iterable[Grant], opens: Mapping[int, datetime]
) -> dict[tuple[int, str], datetime]:
    due: dict[tuple[int, str], datetime] = {}
    for grant in grants:
        key = (grant.reservation, grant.user)
        when = max(grant.not_before, opens.get(grant.reservation, grant.not_before))
        due[key] = min(when, due.get(key, when))
    return due
