"""Which grants a policy holds, without a database."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

import pytest

from sentinel_booking.domain.policy import (
    Holding,
    Policy,
    PolicyDevice,
    build_policy,
    environment,
    policy_document,
    policy_etag,
)

NOW = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)
WEEK = dt.timedelta(days=7)
GPU0 = PolicyDevice("nvidia", "GPU-a", 0, 0)
GPU1 = PolicyDevice("nvidia", "GPU-b", 1, 1)
NPU2 = PolicyDevice("ascend", "npu-c", 2, 3)
NPU10 = PolicyDevice("ascend", "npu-d", 10, 12)
RUNNING = Holding(
    reservation=1,
    user="alice",
    role="user",
    is_active_user=True,
    keys=("ssh-ed25519 AAAA",),
    starts=NOW - HOUR,
    ends=NOW + HOUR,
    whole_node=False,
    devices=(GPU0,),
)


def policy_of(*holdings: Holding, vendors: tuple[str, ...] = ("nvidia",)) -> Policy:
    return build_policy(
        node="gpu1",
        version=3,
        mode="enforce",
        now=NOW,
        horizon=WEEK,
        vendors=vendors,
        holdings=holdings,
    )


def granted(*holdings: Holding) -> list[int]:
    return [grant.reservation for grant in policy_of(*holdings).grants]


def test_what_runs_and_what_comes_soon_is_granted() -> None:
    coming = replace(RUNNING, reservation=2, starts=NOW + HOUR, ends=NOW + 2 * HOUR)
    assert granted(coming, RUNNING) == [1, 2]


@pytest.mark.parametrize(
    "holding",
    [
        replace(RUNNING, ends=NOW),
        replace(RUNNING, starts=NOW + WEEK, ends=NOW + WEEK + HOUR),
        replace(RUNNING, role="readonly"),
        replace(RUNNING, is_active_user=False),
    ],
    ids=["ended this moment", "beyond the horizon", "readonly", "deactivated"],
)
def test_nothing_else_is_granted(holding: Holding) -> None:
    assert granted(holding) == []


@pytest.mark.parametrize("role", ["admin", "operator", "user"])
def test_every_role_from_user_up_is_granted(role: str) -> None:
    assert granted(replace(RUNNING, role=role)) == [1]


def test_a_policy_lasts_as_far_as_it_reaches() -> None:
    assert policy_of(RUNNING).expires_at == NOW + WEEK


def test_a_policy_never_expires_before_a_grant_it_holds() -> None:
    long = replace(RUNNING, ends=NOW + 2 * WEEK)
    assert policy_of(long).expires_at == NOW + 2 * WEEK


def test_a_card_of_one_vendor_hides_the_other_vendors_cards() -> None:
    env = environment([GPU1, GPU0], frozenset({"nvidia", "ascend"}))
    assert env == {
        "CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b",
        "ASCEND_RT_VISIBLE_DEVICES": "",
        "ASCEND_VISIBLE_DEVICES": "",
    }


def test_cann_counts_by_logic_ids_and_the_container_runtime_by_physical_ones() -> None:
    env = environment([NPU10, NPU2], frozenset({"ascend"}))
    assert env == {"ASCEND_RT_VISIBLE_DEVICES": "2,10", "ASCEND_VISIBLE_DEVICES": "3,12"}
    env = environment([replace(NPU10, minor=None)], frozenset({"ascend"}))
    assert env == {"ASCEND_RT_VISIBLE_DEVICES": "10", "ASCEND_VISIBLE_DEVICES": "10"}


def test_a_node_without_accelerators_sets_nothing() -> None:
    assert environment([], frozenset()) == {}


def test_times_on_the_wire_are_utc_with_z() -> None:
    beijing = dt.timezone(dt.timedelta(hours=8))
    document = policy_document(
        policy_of(replace(RUNNING, ends=(NOW + HOUR).astimezone(beijing)))
    )
    grants = document["grants"]
    assert isinstance(grants, list)
    assert grants[0]["not_after"] == "2026-03-01T13:00:00Z"


def test_the_etag_changes_with_version_hour_and_node() -> None:
    tags = {
        policy_etag(1, 1, NOW),
        policy_etag(1, 2, NOW),
        policy_etag(2, 1, NOW),
        policy_etag(1, 1, NOW + HOUR),
    }
    assert len(tags) == 4
    assert policy_etag(1, 1, NOW + HOUR / 2) == policy_etag(1, 1, NOW)
