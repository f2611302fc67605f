"""The server's clock and the node's: bookings go by the first, whatever the second says."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentinel_agent.errors import PolicyRefused, StateError
from sentinel_agent.policy.clock import Intake, ServerClock, on_this_clock
from sentinel_agent.policy.model import Policy
from tests.agent.policies import build_grants, build_policy, minutes, policies, running_grants


class Times:
    """A node's two clocks, and the server's, in seconds."""

    def __init__(self) -> None:
        self.wall = self.server = 1_000_000.0
        self.steady = 50.0
        self.clock = ServerClock(lambda: self.wall, lambda: self.steady)

    def beat(self, took_s: float = 0.2) -> None:
        """Have a heartbeat answered in the middle of the time that it takes."""
        said = self.server + took_s / 2
        self.run(took_s)
        self.clock.hear(said, took_s)

    def run(self, seconds: float) -> None:
        """Let time go by, on all clocks."""
        self.wall += seconds
        self.server += seconds
        self.steady += seconds


@given(policies(), st.integers(-90, 90), st.integers(-7200, 7200))
def test_who_is_let_in_by_the_moved_policy_is_who_is_by_the_servers_clock(
    policy: Policy, at: int, ahead_s: int
) -> None:
    moved = on_this_clock(policy, ahead_s)
    by_server, by_node = minutes(at), minutes(at) - timedelta(seconds=ahead_s)
    for user in ("alice", "bob"):
        wanted = [grant.reservation for grant in running_grants(policy, user, by_server)]
        found = [grant.reservation for grant in running_grants(moved, user, by_node)]
        assert found == wanted
    assert moved.generated_at - policy.generated_at == -timedelta(seconds=ahead_s)


def test_the_difference_follows_a_clock_that_is_set_between_two_heartbeats() -> None:
    times = Times()
    assert times.clock.ahead_s == 0
    times.wall -= 3600
    times.beat()
    assert times.clock.ahead_s == pytest.approx(3600)
    times.run(100)
    assert times.clock.ahead_s == pytest.approx(3600)
    times.wall += 3600
    assert times.clock.ahead_s == pytest.approx(0)


def test_a_heartbeat_that_took_long_says_nothing_of_the_time() -> None:
    times = Times()
    times.server += 500
    times.beat(took_s=30)
    assert times.clock.ahead_s == 0
    times.beat(took_s=3)
    assert times.clock.ahead_s == pytest.approx(500)


class Door:
    """What is in force; fails when told to."""

    def __init__(self) -> None:
        self.taken: list[Policy] = []
        self.failure: Exception | None = None

    def take(self, policy: Policy) -> None:
        if not isinstance(self.failure, PolicyRefused):
            self.taken.append(policy)
        if self.failure is not None:
            raise self.failure


POLICY = build_grants(("alice", 0, 60))


def test_a_policy_is_moved_when_it_is_taken_and_whenever_a_clock_is_set() -> None:
    times, door = Times(), Door()
    intake = Intake(times.clock, door.take)
    times.wall += 600
    times.beat()
    intake.take(POLICY)
    assert door.taken[-1].grants[0].not_before == minutes(10)
    assert not intake.follow()
    times.wall -= 600
    assert intake.follow()
    assert door.taken[-1] == POLICY
    assert not intake.follow()


def test_a_small_difference_moves_nothing_and_heartbeats_do_not_make_policies() -> None:
    times, door = Times(), Door()
    intake = Intake(times.clock, door.take)
    for off_s in (0.5, 1.9, -1.9):
        times.wall = times.server + off_s
        times.beat()
        intake.take(POLICY)
        assert door.taken[-1] == POLICY
    times.wall = times.server + 2.1
    times.beat()
    assert intake.follow()
    for off_s in (1.9, 2.2, 0.2):
        times.wall = times.server + off_s
        times.beat()
        assert not intake.follow(), off_s


def test_what_was_refused_is_not_put_in_force_when_a_clock_is_set() -> None:
    times, door = Times(), Door()
    intake = Intake(times.clock, door.take)
    times.beat()
    intake.take(POLICY)
    door.failure = PolicyRefused("older")
    with pytest.raises(PolicyRefused):
        intake.take(build_policy(version=1))
    door.failure = StateError("no space")
    times.wall += 600
    with pytest.raises(StateError):
        intake.follow()
    # It is in force all the same, and written by whoever mends the cache.
    assert door.taken[-1].version == POLICY.version
    assert not intake.follow()


def test_without_a_heartbeat_the_policy_is_taken_as_it_is() -> None:
    times, door = Times(), Door()
    times.server += 500
    Intake(times.clock, door.take, first_answer_s=0).take(POLICY)
    assert door.taken == [POLICY]
