"""A plan of bookings for the demo lab: pure. Which nodes, whose, from when, until when."""

from __future__ import annotations

import datetime as dt
import random
from dataclasses import dataclass

from script.demo_lab.lab import NODES, PEOPLE, PURPOSES


@dataclass(frozen=True)
class Plan:
    """One booking; `cards` are positions on the node, None is the whole machine."""

    node: str
    user: str
    cards: tuple[int, ...] | None
    starts: dt.datetime
    ends: dt.datetime
    purpose: str


def plan_bookings(now: dt.datetime, *, past_days: int, coming_days: int) -> list[Plan]:
    """Return bookings that do not overlap on any card, sorted by end.

    The same lab comes out for the same hour: the random numbers have a fixed seed.
    """
    chance = random.Random(20)  # noqa: S311  nothing secret
    bookers = [person.name for person in PEOPLE if person.role != "readonly"]
    hour = now.replace(minute=0, second=0, microsecond=0)
    plans: list[Plan] = []
    for node in NODES:
        groups = _groups(node.device_count, chance)
        for cards in groups:
            at = hour - dt.timedelta(days=past_days) + dt.timedelta(hours=chance.randint(0, 20))
            while at < hour + dt.timedelta(days=coming_days):
                length = dt.timedelta(hours=chance.choice((3, 6, 8, 12, 24, 36)))
                plans.append(
                    Plan(
                        node=node.name,
                        user=chance.choice(bookers),
                        cards=cards,
                        starts=at,
                        ends=at + length,
                        purpose=chance.choice(PURPOSES),
                    )
                )
                at += length + dt.timedelta(hours=chance.choice((1, 2, 5, 9, 20)))
    return sorted(plans, key=lambda plan: plan.ends)


def _groups(devices: int, chance: random.Random) -> list[tuple[int, ...] | None]:
    """Split a node's cards into groups that are booked together; None: the whole machine."""
    if devices == 0:
        return [None]
    if devices == 8 and chance.random() < 0.3:
        return [None]
    groups: list[tuple[int, ...] | None] = []
    at = 0
    while at < devices:
        size = min(chance.choice((1, 2, 2, 4)), devices - at)
        groups.append(tuple(range(at, at + size)))
        at += size
    return groups
