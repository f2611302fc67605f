"""Strategies and short hands for policies in the tests of pure code."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from sentinel_agent.policy.model import Grant, Policy, decode, format_time

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
KEYS = ("ssh-ed25519 AAAAalice", "ssh-ed25519 AAAAother")


def minutes(count: float) -> datetime:
    """Return the time so many minutes after noon."""
    return NOON + timedelta(minutes=count)


def grant_document(user: str, start: float, end: float, **more: object) -> dict[str, object]:
    """Return a grant from and to so many minutes after noon."""
    return {
        "reservation": 7,
        "user": user,
        "keys": [KEYS[0]],
        "not_before": format_time(minutes(start)),
        "not_after": format_time(minutes(end)),
        "whole_node": True,
        "devices": [],
        "env": {},
    } | more


def policy_document(*grants: dict[str, object], **more: object) -> dict[str, object]:
    """Return a policy made at noon that lasts a week."""
    return {
        "version": 3,
        "node": "gpu-01",
        "generated_at": format_time(NOON),
        "expires_at": format_time(NOON + timedelta(days=7)),
        "mode": "enforce",
        "grants": list(grants),
    } | more


def build_policy(*grants: dict[str, object], **more: object) -> Policy:
    """Return the decoded policy; there must be no problem with it."""
    policy, problems = decode(policy_document(*grants, **more))
    assert problems == []
    return policy


def build_grants(*spans: tuple[str, float, float]) -> Policy:
    """Return a policy with grants of (user, start, end), in minutes after noon."""
    return build_policy(*(grant_document(*span) for span in spans))


@st.composite
def grant_documents(draw: st.DrawFn) -> dict[str, object]:
    """Grants of two users around noon, with one or both keys, some of no device."""
    start = draw(st.integers(-60, 60))
    cards = draw(st.sets(st.integers(0, 15), max_size=4))
    return grant_document(
        draw(st.sampled_from(["alice", "bob"])),
        start,
        start + draw(st.integers(1, 60)),
        reservation=draw(st.integers(1, 9)),
        keys=draw(st.lists(st.sampled_from(KEYS), max_size=2)),
        env={"ASCEND_RT_VISIBLE_DEVICES": ",".join(map(str, sorted(cards)))},
    )


def policies(most: int = 6) -> st.SearchStrategy[Policy]:
    """Policies made a little before or after noon, by a clock that may differ."""
    return st.builds(
        lambda grants, made: build_policy(*grants, generated_at=format_time(minutes(made))),
        st.lists(grant_documents(), max_size=most),
        st.integers(-10, 0),
    )


def running_grants(policy: Policy, user: str, now: datetime) -> Sequence[Grant]:
    """Say by the words of the contract which of the user's grants run."""
    if now >= policy.expires_at:
        return []
    return [
        grant
        for grant in policy.grants
        if grant.user == user and grant.not_before <= now < grant.not_after
    ]
