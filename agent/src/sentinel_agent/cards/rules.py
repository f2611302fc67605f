"""Which accounts may open which card, and what has to be done to the device files for that.

Pure: values in, actions out; it touches no device and no process.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from ..policy.model import Device, Grant, Policy
from ..sessions.plan import START_TOLERANCE
from .acl import Acl, DeviceFile

# The cards' own files. What all cards share (nvidiactl, nvidia-uvm, davinci_manager,
# devmm_svm, hisi_hdc) and parts of cards (nvidia-caps, vdavinci) are none of them.
CARD_NAME = re.compile(r"(?:nvidia|davinci)[0-9]+", re.ASCII)


class Why(Enum):
    """What made a device's file differ from what it should be."""

    TAKEN = "taken over"  # the agent has not set it since its start
    CHANGED = "changed"  # others are let to it than before
    MADE_ANEW = "made anew"  # it is not the file that the agent set
    TAMPERED = "tampered with"  # it is not as the agent set it


@dataclass(frozen=True)
class SetCard:
    """Give the card's file to root and this group, with this ACL."""

    card: str
    gid: int
    acl: Acl
    why: Why
    found: DeviceFile


def is_card(name: str) -> bool:
    """Say whether a file of this name in /dev is a card's own."""
    return CARD_NAME.fullmatch(name) is not None


def card_of(device: Device) -> str | None:
    """Return the name of the device's file, None where it cannot be known.

    NVIDIA counts these files by NVML's minor number, Ascend by the physical id: by `minor`, and
    not by the index. To take one for the other would open somebody else's card.
    """
    if device.minor is None:
        return None
    return f"{'davinci' if device.vendor == 'ascend' else 'nvidia'}{device.minor}"


def opened_grants(policy: Policy, now: datetime, opens: Mapping[int, datetime]) -> list[Grant]:
    """Return the grants that open cards at `now`.

    `opens`: until when grants are held back, by reservation. A policy that has expired opens no
    further grant and takes no card from a reservation that runs.
    """
    return [
        grant
        for grant in policy.grants
        if max(grant.not_before, opens.get(grant.reservation, grant.not_before))
        <= now
        < grant.not_after
        and grant.not_before < policy.expires_at
    ]


def kept_grants(policy: Policy, now: datetime) -> list[Grant]:
    """Return the grants whose holders are not ended for having their cards open.

    Wider than `opened_grants`, as `plan.access_end` is: a clock that was put back, or a grant
    that is held back after all, must not end what was let in before.
    """
    begun_by = max(now, policy.generated_at) + START_TOLERANCE
    return [
        grant
        for grant in policy.grants
        if grant.not_before <= begun_by and now < grant.not_after
    ]


def users_of_cards(
    grants: Iterable[Grant], cards: Collection[str], uids: Mapping[str, int]
) -> dict[str, frozenset[int]]:
    """Return for each of the `cards` the uids that these grants let to it.

    A user who is not in `uids` has no account that the lock is for, and gets nothing.
    """
    users: dict[str, set[int]] = {card: set() for card in cards}
    for grant in grants:
        uid = uids.get(grant.user)
        if uid is None:
            continue
        for card in cards if grant.whole_node else map(card_of, grant.devices):
            if card in users:
                users[card].add(uid)
    return {card: frozenset(found) for card, found in users.items()}


def unknown_cards(grants: Iterable[Grant]) -> list[str]:
    """Return one problem for each device whose file is not known: nobody is let to it."""
    return [
        f"{device.uuid} of reservation {grant.reservation} has no minor number: "
        "its device file is not known and is opened to nobody"
        for grant in grants
        if not grant.whole_node
        for device in grant.devices
        if card_of(device) is None
    ]


def wanted_acls(
    users: Mapping[str, Collection[int]], always_uids: Collection[int], group: int | None
) -> dict[str, Acl]:
    """Return each card's ACL: its users, those who always may, and the break-glass group."""
    groups = () if group is None else (group,)
    return {
        card: Acl.closed_but_for({*uids, *always_uids}, groups) for card, uids in users.items()
    }


def plan_cards(
    wanted: Mapping[str, Acl],
    found: Mapping[str, DeviceFile],
    left: Mapping[str, DeviceFile],
    gids: Mapping[str, int],
) -> list[SetCard]:
    """Return what to set so that the files `found` are as `wanted`.

    `left`: how the agent left each of them last. `gids`: the groups that the files had at
    first and get again; a group opens nothing.
    """
    actions = []
    for card, file in sorted(found.items()):
        acl = wanted[card]
        before = left.get(card)
        gid = gids.get(card, file.gid)
        if (file.uid, file.gid, file.acl) == (0, gid, acl):
            continue
        if before is None:
            why = Why.TAKEN
        elif before.file != file.file:
            why = Why.MADE_ANEW
        elif (before.uid, before.gid, before.acl) != (file.uid, file.gid, file.acl):
            why = Why.TAMPERED
        else:
            why = Why.CHANGED
        actions.append(SetCard(card, gid, acl, why, file))
    return actions


@dataclass(frozen=True)
class Rights:
    """Who may have the cards open.

    `numbers`: the device number (st_rdev) of each card. `keepers`: the uids that are let to
    each. `always`: uids that may have any card open, besides root's and those of the exempt.
    """

    numbers: Mapping[str, int]
    keepers: Mapping[str, Collection[int]]
    always: Collection[int]

    def refused(self, uid: int, devices: frozenset[int]) -> frozenset[int]:
        """Return those of the devices that the uid is not let to."""
        if uid in self.always:
            return frozenset()
        own = {
            number for card, number in self.numbers.items() if uid in self.keepers.get(card, ())
        }
        return devices - own

    def names(self, devices: Iterable[int]) -> str:
        """Return the names of these devices' cards, for people."""
        wanted = set(devices)
        return " ".join(sorted(c for c, number in self.numbers.items() if number in wanted))
