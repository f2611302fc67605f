"""Who has cards open without being let to them, and the end of that. It sets no device file."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from .accounts import Accounts
from .apply import write_to_terminals
from .granted import GrantedUsers
from .holders import Finder, Holder
from .metrics import Metrics
from .revoke import FindIntruders, end_holders

log = logging.getLogger(__name__)

# While it is only watched, holders are looked up so often: it costs a look at each process.
OBSERVE_S = 60.0
# Holders that cannot be ended are tried again so late at most.
RETRY_MAX_S = 30.0
# How many processes a problem names.
NAMED_MAX = 5


@dataclass(frozen=True)
class Rights:
    """Who may have the cards open.

    `numbers`: the device number (st_rdev) of each card. `keepers`: the uids that are let to
    each. `always`: uids that may have any card open, besides root's and those of the exempt.
    """

    numbers: Mapping[str, int]
    keepers: Mapping[str, Collection[int]]
    always: Collection[int]

    def intruding(self, holder: Holder) -> frozenset[int]:
        """Return which of the devices that the process holds it is not let to."""
        if holder.uid in self.always:
            return frozenset()
        own = {
            number
            for card, number in self.numbers.items()
            if holder.uid in self.keepers.get(card, ())
        }
        return holder.devices - own

    def names(self, devices: Iterable[int]) -> str:
        """Return the names of these devices' cards, for people."""
        wanted = set(devices)
        return " ".join(sorted(c for c, number in self.numbers.items() if number in wanted))


class CardHolders:
    """The processes that have cards' devices open or mapped."""

    def __init__(
        self, accounts: Accounts, granted: GrantedUsers, metrics: Metrics, term_s: float
    ) -> None:
        self._accounts = accounts
        self._granted = granted
        self._metrics = metrics
        self._term_s = term_s
        self._finder = Finder()
        self._is_due = True
        self._retry_at = 0.0
        self._retry_s = 0.0
        self._observed_at: float | None = None
        self._problems: list[str] = []

    def demand(self) -> None:
        """Have them looked up in this round: somebody lost a card, or may have one wrongly."""
        self._is_due = True
        self._retry_at = self._retry_s = 0.0

    def has_open(self, uid: int, numbers: Collection[int]) -> bool:
        """Say whether a process of the uid has one of these devices open or mapped."""
        return bool(self._finder.find(numbers, lambda other: other == uid))

    def end(self, rights: Rights) -> list[str]:
        """End who holds a card without being let to it, if it is due; return the problems."""
        self._observed_at = None
        if not self._is_due or time.monotonic() < self._retry_at:
            return self._problems
        find, nameless = self._search(rights)
        found = find(None)
        left = self._end(found, find, rights) if found else []
        self._problems = [
            f"uid {uid} has {rights.names(devices)} open and has no name: left alone"
            for uid, devices in sorted(nameless.items())
        ]
        if self._finder.stuck:
            self._problems.append(
                f"cannot see what is mapped by {_pids(sorted(self._finder.stuck))}: it hangs"
            )
        if left:
            held = rights.names(number for holder in left for number in holder.devices)
            pids = _pids([holder.pid for holder in left])
            self._problems.append(f"{held}: still open in {pids}, which cannot be ended")
        # What is a problem is looked up again, though less and less often.
        self._is_due = bool(self._problems)
        self._retry_s = min(2 * self._retry_s or 1.0, RETRY_MAX_S)
        self._retry_at = time.monotonic() + self._retry_s
        return self._problems

    def observe(self, rights: Rights) -> list[str]:
        """Return one problem that names whose processes `end` would end, none for nobody."""
        now = time.monotonic()
        if self._observed_at is None or now - self._observed_at >= OBSERVE_S:
            self._observed_at = now
            self.demand()
            find, _ = self._search(rights)
            would = sorted(
                {(self._name(found.uid), rights.names(found.devices)) for found in find(None)}
            )
            told = ", ".join(f"{user} ({names})" for user, names in would[:NAMED_MAX])
            more = f" and {len(would) - NAMED_MAX} more" if len(would) > NAMED_MAX else ""
            text = f"would end what has cards open that are not booked: {told}{more}"
            self._problems = [text] if would else []
        return self._problems

    def _search(self, rights: Rights) -> tuple[FindIntruders, dict[int, frozenset[int]]]:
        """Return how to find intruders, and where those without a name are put meanwhile."""
        nameless: dict[int, frozenset[int]] = {}
        numbers = frozenset(rights.numbers.values())

        def find(pids: Sequence[int] | None) -> list[Holder]:
            intruders = []
            for holder in self._finder.find(numbers, self._is_subject, pids):
                devices = rights.intruding(holder)
                if not devices:
                    continue
                if self._accounts.name_of(holder.uid, self._granted.users) is None:
                    # Perhaps the directory is down, and this is an operator.
                    nameless[holder.uid] = devices
                else:
                    intruders.append(replace(holder, devices=devices))
            return intruders

        return find, nameless

    def _is_subject(self, uid: int) -> bool:
        if self._accounts.is_system(uid):
            return False
        user = self._accounts.name_of(uid, self._granted.users)
        return user is None or (
            user not in self._granted.exempt and self._accounts.exemption(user, uid) is None
        )

    def _end(
        self, found: Sequence[Holder], find: FindIntruders, rights: Rights
    ) -> list[Holder]:
        lost: dict[int, set[int]] = {}
        for holder in found:
            lost.setdefault(holder.uid, set()).update(holder.devices)
        for uid, devices in lost.items():
            cards = rights.names(devices)
            write_to_terminals(
                uid, f"your reservation of {cards} is over. What has it open is ended."
            )
        left = end_holders(found, find, self._term_s)
        self._metrics.card_holders_ended.inc(len(found))
        for uid, devices in lost.items():
            log.info(
                "card holders ended user=%s cards=%s processes=%d left=%d",
                self._name(uid), rights.names(devices),
                sum(holder.uid == uid for holder in found),
                sum(holder.uid == uid for holder in left),
            )  # fmt: skip
        return left

    def _name(self, uid: int) -> str:
        return self._accounts.name_of(uid, self._granted.users) or str(uid)


def _pids(pids: Sequence[int]) -> str:
    named = ", ".join(str(pid) for pid in pids[:NAMED_MAX])
    more = f" and {len(pids) - NAMED_MAX} more" if len(pids) > NAMED_MAX else ""
    return f"process {named}{more}"
