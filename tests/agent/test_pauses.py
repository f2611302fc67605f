"""When it is looked again: at the next boundary, soon after an ending, seldom at rest."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from sentinel_agent.sessions.pauses import SOON_S, boundaries_of, pause_s
from sentinel_agent.sessions.plan import Closing
from tests.agent.policies import NOON, build_grants, minutes

REST_S = 4.0


def pause(
    boundaries: Sequence[datetime] = (),
    closing: Sequence[Closing] = (),
    *,
    waiting: bool = False,
    ended_s: float | None = None,
) -> float:
    return pause_s(
        rest_s=REST_S, now=NOON, monotonic_s=100, boundaries=boundaries, closing=closing,
        is_somebody_waiting=waiting, ended_s=ended_s,
    )  # fmt: skip


@given(st.lists(st.floats(-100, 100)))
def test_no_boundary_is_slept_over(seconds: list[float]) -> None:
    whens = [NOON + timedelta(seconds=count) for count in seconds]
    found = pause(whens)
    assert 0 <= found <= REST_S
    ahead = [when for when in whens if when > NOON]
    if ahead and min(ahead) - NOON < timedelta(seconds=REST_S - 0.01):
        # Passed by then, and by no more than a hundredth of a second.
        late = NOON + timedelta(seconds=found) - min(ahead)
        assert timedelta() < late < timedelta(seconds=0.01)
    else:
        assert found >= REST_S - 0.01


def test_starts_ends_warnings_and_delayed_openings_are_boundaries() -> None:
    policy = build_grants(("alice", 0, 60))
    found = set(boundaries_of(policy, {7: minutes(2)}, (15, 5)))
    assert found == {
        minutes(0), minutes(60), minutes(45), minutes(55), minutes(2), policy.expires_at,
    }  # fmt: skip


def test_at_rest_it_is_looked_seldom_and_soon_after_an_ending() -> None:
    assert pause() == REST_S
    assert pause(ended_s=99) < REST_S
    assert pause(ended_s=50) == REST_S
    assert pause(waiting=True) < REST_S


def test_whoever_is_being_ended_is_looked_at_often_and_what_does_not_end_less_and_less() -> (
    None
):
    assert pause(closing=[Closing(deadline_s=102)]) == 2
    assert pause(closing=[Closing(deadline_s=100, asked_s=100, asks=1)]) == SOON_S
    killed = [Closing(100, 100, asks=3, is_swept=True, kills=count) for count in range(1, 9)]
    pauses = [pause(closing=[state]) for state in killed]
    assert pauses == sorted(pauses)
    assert pauses[0] == SOON_S
    assert pauses[-1] == REST_S
    # All is gone.
    assert pause(closing=[Closing(100, 100, asks=3, is_swept=True)]) == REST_S
