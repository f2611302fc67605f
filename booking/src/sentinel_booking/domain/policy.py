"""Which grants a node's policy holds, and its wire form. Reads nothing and sends nothing."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .times import rfc3339

# Who may hold a grant; a readonly person looks, and is never let in.
GRANTED_ROLES = frozenset({"admin", "operator", "user"})

# The variables by which a vendor's runtime is told the devices, and what names a device there.
# CANN reads logic ids, ascending, without spaces; the container runtime physical ids, which are
# the numbers of the device files.
_CANN_VARIABLE = "ASCEND_RT_VISIBLE_DEVICES"
_ASCEND_RUNTIME_VARIABLE = "ASCEND_VISIBLE_DEVICES"
_CUDA_VARIABLE = "CUDA_VISIBLE_DEVICES"

_ETAG_SECONDS = 3600


@dataclass(frozen=True)
class PolicyDevice:
    """A device that the node reports now, by the numbers that its driver uses now."""

    vendor: str
    uuid: str
    index: int
    minor: int | None


@dataclass(frozen=True)
class Holding:
    """A reservation as the policy sees it; `devices` are those the node reports now."""

    reservation: int
    user: str
    role: str
    is_active_user: bool
    keys: tuple[str, ...]
    starts: dt.datetime
    ends: dt.datetime
    whole_node: bool
    devices: tuple[PolicyDevice, ...]


@dataclass(frozen=True)
class Grant:
    """One user's access for one interval [not_before, not_after)."""

    reservation: int
    user: str
    keys: tuple[str, ...]
    not_before: dt.datetime
    not_after: dt.datetime
    whole_node: bool
    devices: tuple[PolicyDevice, ...]
    env: dict[str, str]


@dataclass(frozen=True)
class Policy:
    """All grants of one node; contract/policy.schema.json is its wire form."""

    version: int
    node: str
    generated_at: dt.datetime
    expires_at: dt.datetime
    mode: str
    grants: tuple[Grant, ...]


def build_policy(
    *,
    node: str,
    version: int,
    mode: str,
    now: dt.datetime,
    horizon: dt.timedelta,
    vendors: Iterable[str],
    holdings: Iterable[Holding],
) -> Policy:
    """Return the policy at `now`: what runs, and what starts within `horizon`.

    `vendors` are those of all the node's devices. The policy expires after the horizon,
    or with the last of its grants where that is later: a node that is cut off from the
    server for longer must not end a reservation that it knows to be valid.
    """
    on_node = frozenset(vendors)
    grants = tuple(
        Grant(
            reservation=holding.reservation,
            user=holding.user,
            keys=holding.keys,
            not_before=holding.starts,
            not_after=holding.ends,
            whole_node=holding.whole_node,
            devices=holding.devices,
            env=environment(holding.devices, on_node),
        )
        for holding in sorted(holdings, key=lambda item: (item.starts, item.reservation))
        if holding.is_active_user
        and holding.role in GRANTED_ROLES
        and holding.ends > now
        and holding.starts < now + horizon
    )
    return Policy(
        version=version,
        node=node,
        generated_at=now,
        expires_at=max([now + horizon, *(grant.not_after for grant in grants)]),
        mode=mode,
        grants=grants,
    )


def environment(devices: Sequence[PolicyDevice], vendors: frozenset[str]) -> dict[str, str]:
    """Return the variables that show these devices, and no others, to each vendor's runtime.

    A vendor that is on the node, but of whose devices none is granted, gets an empty
    list: without the variable its runtime would try them all.
    """
    env: dict[str, str] = {}
    if "ascend" in vendors:
        chips = [device for device in devices if device.vendor == "ascend"]
        env[_CANN_VARIABLE] = _join(chip.index for chip in chips)
        env[_ASCEND_RUNTIME_VARIABLE] = _join(
            chip.index if chip.minor is None else chip.minor for chip in chips
        )
    if "nvidia" in vendors:
        cards = sorted(
            (device for device in devices if device.vendor == "nvidia"),
            key=lambda device: device.index,
        )
        env[_CUDA_VARIABLE] = ",".join(device.uuid for device in cards)
    return env


def _join(numbers: Iterable[int]) -> str:
    return ",".join(str(number) for number in sorted(numbers))


def policy_etag(node_id: int, version: int, now: dt.datetime) -> str:
    """Return the entity tag (without quotes) of the node's policy at `now`.

    It changes with the version and once an hour, so that the horizon moves on. The node
    is in it because an agent may be registered anew, as another node, with its old cache.
    """
    return f"{node_id}.{version}.{int(now.timestamp()) // _ETAG_SECONDS}"


def policy_document(policy: Policy) -> dict[str, object]:
    """Return the policy in its wire form."""
    return {
        "version": policy.version,
        "node": policy.node,
        "generated_at": rfc3339(policy.generated_at),
        "expires_at": rfc3339(policy.expires_at),
        "mode": policy.mode,
        "grants": [
            {
                "reservation": grant.reservation,
                "user": grant.user,
                "keys": list(grant.keys),
                "not_before": rfc3339(grant.not_before),
                "not_after": rfc3339(grant.not_after),
                "whole_node": grant.whole_node,
                "devices": [
                    {
                        "vendor": device.vendor,
                        "uuid": device.uuid,
                        "index": device.index,
                        "minor": device.minor,
                    }
                    for device in grant.devices
                ],
                "env": grant.env,
            }
            for grant in policy.grants
        ],
    }
