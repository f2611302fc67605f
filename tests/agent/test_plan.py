"""The plan: who is warned and ended, from what is granted and what is there."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from signal import Signals

from hypothesis import given
from hypothesis import strategies as st

from sentinel_agent.policy.model import Policy, format_time
from sentinel_agent.sessions.plan import (
    Action,
    Close,
    End,
    Memory,
    Pace,
    Presence,
    Warn,
    access_end,
    make_plan,
)
from tests.agent.policies import (
    NOON,
    build_grants,
    build_policy,
    grant_document,
    minutes,
    policies,
    running_grants,
)

ALICE = Presence("alice", 1001, connections=1, processes=3)
GONE = Presence("alice", 1001, connections=0, processes=2)


HUP = End("alice", (1001,), Signals.SIGHUP, is_first=True)
TERM = End("alice", (1001,), Signals.SIGTERM, is_first=False)
KILL = End("alice", (1001,), Signals.SIGKILL, is_first=False)
KILL_ANEW = End("alice", (1001,), Signals.SIGKILL, is_first=True)


class Node:
    """Makes one plan after the other, as the daemon does."""

    def __init__(self, policy: Policy, granted: Sequence[str] = ()) -> None:
        self.policy = policy
        self.granted = granted
        self.memory = Memory()

    def plan(self, now: datetime, present: Sequence[Presence] = (ALICE,)) -> list[Action]:
        actions, self.memory = make_plan(
            self.policy, present, self.granted, self.memory,
            now=now, monotonic_s=(now - NOON).total_seconds(),
            warn_minutes=(15, 5, 1), pace=Pace(grace_s=3, term_s=2),
        )  # fmt: skip
        return actions


def seconds(count: float) -> datetime:
    return NOON + timedelta(seconds=count)


@given(policies(), st.integers(-90, 90), st.booleans())
def test_nobody_with_a_running_grant_is_ended(policy: Policy, at: int, was: bool) -> None:
    node = Node(policy, ["alice"] if was else [])
    for step in range(5):
        now = minutes(at) + timedelta(seconds=step)
        actions = node.plan(now)
        if running_grants(policy, "alice", now):
            assert all(isinstance(action, Warn) for action in actions)


@given(policies(), st.integers(-90, 90))
def test_whoever_is_connected_without_a_grant_is_ended(policy: Policy, at: int) -> None:
    now = minutes(at)
    soon = max(now, policy.generated_at) + timedelta(hours=1)
    alices = [grant for grant in policy.grants if grant.user == "alice"]
    if any(grant.not_before <= soon and now < grant.not_after for grant in alices):
        return  # it runs, or begins too soon for this test
    node = Node(policy)
    # An end that the policy announced is acted on at once.
    grace = 0 if any(grant.not_after <= now for grant in alices) else 3
    first = node.plan(now)
    assert first[0] == Close("alice", 1001, grace)
    if grace:
        assert first == [Close("alice", 1001, 3)]
        assert node.plan(now + timedelta(seconds=2.9)) == []
        first += node.plan(now + timedelta(seconds=3))
    assert first[1:] == [HUP]
    assert node.plan(now + timedelta(seconds=grace + 0.9)) == []
    assert node.plan(now + timedelta(seconds=grace + 1)) == [TERM]
    assert node.plan(now + timedelta(seconds=grace + 1.9)) == []
    assert node.plan(now + timedelta(seconds=grace + 2)) == [KILL]
    assert node.plan(now + timedelta(seconds=grace + 2.1)) == [KILL]


@given(policies(), st.integers(-90, 90), st.randoms(use_true_random=False))
def test_the_order_of_grants_changes_nothing(
    policy: Policy, at: int, chance: random.Random
) -> None:
    shuffled = list(policy.grants)
    chance.shuffle(shuffled)
    other = policy.model_copy(update={"grants": tuple(shuffled)})
    assert access_end(policy, "alice", minutes(at)) == access_end(other, "alice", minutes(at))


def test_grants_that_touch_are_one_access() -> None:
    policy = build_grants(("alice", 30, 60), ("alice", -10, 30), ("bob", 60, 90))
    assert access_end(policy, "alice", NOON) == minutes(60)
    assert access_end(policy, "alice", minutes(60)) is None


def test_a_session_outlives_the_policy_but_not_its_grant() -> None:
    policy = build_policy(grant_document("alice", -10, 60), expires_at=format_time(minutes(10)))
    assert access_end(policy, "alice", minutes(20)) == minutes(60)
    assert access_end(policy, "alice", minutes(60)) is None


def test_a_clock_put_back_ends_nobody_who_was_let_in() -> None:
    policy = build_policy(grant_document("alice", 0, 60), generated_at=format_time(minutes(1)))
    assert access_end(policy, "alice", minutes(-600)) == minutes(60)
    # Without a word from the server only a small step is forgiven.
    earlier = build_policy(
        grant_document("alice", 0, 60), generated_at=format_time(minutes(-60))
    )
    assert access_end(earlier, "alice", seconds(-59)) == minutes(60)
    assert access_end(earlier, "alice", minutes(-2)) is None


def test_each_warning_is_given_once() -> None:
    node = Node(build_grants(("alice", 0, 60)))
    end = minutes(60)
    given = [(at, action) for at in range(0, 60 * 60, 10) for action in node.plan(seconds(at))]
    assert given == [
        (45 * 60, Warn("alice", 1001, end, 15, due=15)),
        (55 * 60, Warn("alice", 1001, end, 5, due=5)),
        (59 * 60, Warn("alice", 1001, end, 1, due=1)),
    ]


def test_who_comes_late_hears_how_long_it_is() -> None:
    node = Node(build_grants(("alice", 0, 60)))
    assert node.plan(minutes(57)) == [Warn("alice", 1001, minutes(60), 3, due=5)]
    assert node.plan(minutes(57.5)) == []


def test_a_warning_that_nobody_saw_is_given_again() -> None:
    node = Node(build_grants(("alice", 0, 60)))
    (warning,) = node.plan(minutes(59.5))
    assert isinstance(warning, Warn)
    node.memory = node.memory.without(warning)
    assert node.plan(minutes(59.6)) == [warning]
    assert node.plan(minutes(59.7)) == []


def test_the_announced_end_comes_without_a_grace() -> None:
    for present in ([ALICE], [GONE]):
        node = Node(build_grants(("alice", 0, 60)), granted=["alice"])
        node.plan(minutes(30), present)
        # What the server drops after the end does not make the end an early one.
        node.policy = build_grants()
        assert node.plan(minutes(60), present) == [Close("alice", 1001, 0), HUP]


def test_an_end_that_comes_early_has_its_grace() -> None:
    node = Node(build_grants(("alice", 0, 60)))
    node.plan(minutes(59.5))
    node.policy = build_grants()
    assert node.plan(minutes(59.6)) == [Close("alice", 1001, 3)]
    # Of this one nothing is known but that it is over: the agent has just been started.
    node = Node(build_grants(("alice", 0, 60)))
    assert node.plan(minutes(61)) == [Close("alice", 1001, 0), HUP]


def test_access_that_comes_back_within_the_grace_ends_nothing() -> None:
    node = Node(build_grants())
    assert node.plan(seconds(0)) == [Close("alice", 1001, 3)]
    node.policy = build_grants(("alice", 0, 60))
    assert node.plan(seconds(2)) == []
    assert node.plan(seconds(10)) == []


def test_an_extended_access_is_warned_of_its_new_end_only() -> None:
    node = Node(build_grants(("alice", 0, 60)))
    node.plan(minutes(59.5))
    node.policy = build_grants(("alice", 0, 120))
    assert node.plan(minutes(60)) == []
    assert node.plan(minutes(105)) == [Warn("alice", 1001, minutes(120), 15, due=15)]


def test_the_next_loss_of_access_has_its_own_grace() -> None:
    node = Node(build_grants())
    node.plan(seconds(0))
    node.plan(seconds(3))
    node.policy = build_grants(("alice", 0, 60))
    assert node.plan(seconds(10)) == []
    node.policy = build_grants()
    assert node.plan(seconds(20)) == [Close("alice", 1001, 3)]
    assert node.plan(seconds(23)) == [HUP]


def test_what_comes_after_the_sweep_is_killed_at_once() -> None:
    """A login that was under way, a cron job, a container that a timer starts."""
    for last in (3, 5):
        node = Node(build_grants())
        for at in (0, 3, 4, 5)[: 2 if last == 3 else 4]:
            node.plan(seconds(at))
        assert node.plan(seconds(6), present=()) == []
        assert node.plan(seconds(9)) == [KILL_ANEW]
        assert node.plan(seconds(9.1)) == [KILL]
        assert node.plan(seconds(12), present=()) == []
        assert node.plan(seconds(99)) == [KILL_ANEW]


def test_a_round_that_comes_late_leaves_out_no_signal() -> None:
    node = Node(build_grants())
    node.plan(seconds(0))
    assert node.plan(seconds(60)) == [HUP]
    assert node.plan(seconds(61.5)) == [TERM]
    assert node.plan(seconds(62)) == [KILL]


def test_processes_without_a_connection_are_ended_if_their_user_held_a_grant() -> None:
    assert Node(build_grants()).plan(NOON, [GONE]) == []
    assert Node(build_grants(), granted=["alice"]).plan(NOON, [GONE]) == [
        Close("alice", 1001, 3)
    ]  # fmt: skip


def test_an_account_has_the_access_of_each_of_its_names() -> None:
    both = replace(ALICE, names=frozenset(["alice2"]))
    node = Node(build_grants(("alice2", 0, 30), ("alice", 30, 60)))
    assert node.plan(minutes(10), [both]) == []
    assert node.plan(minutes(30), [both]) == []
    assert node.plan(minutes(60), [both]) == [Close("alice", 1001, 0), HUP]
    gone = replace(GONE, names=frozenset(["alice2"]))
    assert Node(build_grants(), granted=["alice2"]).plan(NOON, [gone]) == [
        Close("alice", 1001, 3)
    ]


def test_the_uids_of_containers_are_ended_with_the_users_own() -> None:
    contained = replace(GONE, more_uids=(100033, 100999))
    node = Node(build_grants(("alice", -60, -1)), granted=["alice"])
    _, end = node.plan(NOON, [contained])
    assert isinstance(end, End)
    assert end.uids == (1001, 100033, 100999)
