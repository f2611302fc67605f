"""One round of the lock on the cards: set the device files, then end who must not hold them.

rules.py says who may; this holds the node to it. It touches no session and no gate.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime
from pathlib import Path

from ..accounts import Accounts
from ..config import Config
from ..policy.model import Policy
from ..service.metrics import Metrics
from ..sessions.granted import GrantedUsers
from ..sessions.handover import NOTHING, WHOLE_NODE, held_at, lost
from . import rules
from .acl import Acl
from .dev_watch import DevWatch
from .files import CardFiles
from .intruders import CardHolders
from .origins import DEV


class CardLock:
    """Holds all cards of the node to what is booked, round by round."""

    def __init__(
        self,
        config: Config,
        accounts: Accounts,
        granted: GrantedUsers,
        metrics: Metrics,
        dev: Path = DEV,
    ) -> None:
        self._config = config
        self._accounts = accounts
        self._granted = granted
        self._files = CardFiles(config.state_dir, metrics, dev)
        self._holders = CardHolders(accounts, granted, metrics, config.term_s)
        # The cards by their devices' uuids, as far as a policy has named them.
        self._named: dict[str, str] = {}
        # Who was let to each card in the last round.
        self._keepers: Mapping[str, Collection[int]] | None = None
        # Uids as they were last: the directory may be away.
        self._uids: dict[str, int] = {}
        self._dev = dev

    def start(self, look_again: Callable[[], None]) -> None:
        """Have `look_again` called, which makes a round, when there is something to see."""
        self._holders.done = look_again
        DevWatch(look_again, self._dev).start()

    def stop(self, timeout_s: float) -> None:
        """Wait until no ending is under way."""
        self._holders.join(timeout_s)

    def step(
        self,
        policy: Policy | None,
        now: datetime,
        opens: Mapping[int, datetime],
        *,
        is_enforcing: bool,
    ) -> list[str]:
        """Do one round; return the problems found.

        `opens`: until when grants are held back, by reservation. Without a policy it is not
        known who may: what is open stays open to whom it is, and files made anew to nobody.
        """
        if policy is None:
            return self._lock_new_files()
        is_locking = self._config.cards and is_enforcing
        problems = self._files.make_missing(is_locking=is_locking)
        files, more = self._files.read()
        always = self._always()
        self._learn(policy)
        kept = rules.kept_grants(policy, now)
        uids = self._uids_of(grant.user for grant in kept)
        rights = rules.Rights(
            self._files.numbers, rules.users_of_cards(kept, self._files.numbers, uids), always
        )
        if not is_locking:
            problems += self._files.give_back()
            return problems + (self._holders.observe(rights) if self._config.cards else [])
        grants = rules.opened_grants(policy, now, opens)
        problems += more + rules.unknown_cards(grants)
        wanted = rules.wanted_acls(
            rules.users_of_cards(grants, files, uids), always, self._accounts.breakglass_gid()
        )
        was_more_open, more = self._files.set(wanted, files)
        lost_by = self._lost_by(rights.keepers, policy, now)
        if was_more_open or lost_by:
            self._holders.demand(lost_by)
        self._keepers = rights.keepers
        return problems + more + self._holders.end(rights)

    def still_open(self, uid: int, gone: Collection[str], held: Collection[str]) -> bool:
        """Say whether a process of the uid has one of the devices `gone` open or mapped.

        Devices by their uuids. WHOLE_NODE among those gone, and one that no policy has named
        since the agent started, stand for all that are not `held`.
        """
        numbers = self._files.numbers
        if all(device in self._named for device in gone):
            wanted = {self._named[device] for device in gone}
        elif WHOLE_NODE in held:
            return False
        else:
            wanted = numbers.keys() - {self._named.get(device) for device in held}
        return self._holders.has_open(uid, {numbers[card] for card in wanted & numbers.keys()})

    def _lock_new_files(self) -> list[str]:
        if not (self._config.cards and self._files.is_locked):
            return []
        problems = self._files.make_missing(is_locking=True)
        files, more = self._files.read()
        new = {card: file for card, file in files.items() if not self._files.is_set(card, file)}
        acl = Acl.closed_but_for(self._always(), _given(self._accounts.breakglass_gid()))
        return problems + more + self._files.set(dict.fromkeys(new, acl), new)[1]

    def _learn(self, policy: Policy) -> None:
        for grant in policy.grants:
            for device in grant.devices:
                card = rules.card_of(device)
                if card is not None:
                    self._named[device.uuid] = card

    def _lost_by(
        self, keepers: Mapping[str, Collection[int]], policy: Policy, now: datetime
    ) -> set[int]:
        """Return who was let to a card in the last round and is not in this."""
        if self._keepers is None:
            # The agent has just started: what was lost meanwhile is known from the disk.
            held = held_at(policy, now)
            return set(
                self._uids_of(
                    user
                    for user, touched in self._granted.touched.items()
                    if lost(touched, held.get(user, NOTHING))
                ).values()
            )
        uids: set[int] = set()
        for card, before in self._keepers.items():
            uids |= set(before) - set(keepers.get(card, ()))
        return uids

    def _always(self) -> frozenset[int]:
        """Return the uids that may open every card: the ignored, and those that need to."""
        names = self._config.card_users | self._config.ignored_users
        return frozenset(
            uid for name in names if (uid := self._uid_of(name)) is not None and uid != 0
        )

    def _uids_of(self, users: Iterable[str]) -> dict[str, int]:
        """Return the uids of those users whom the lock is for."""
        found = {user: self._uid_of(user) for user in set(users)}
        return {
            user: uid
            for user, uid in found.items()
            if uid is not None and not self._accounts.is_system(uid)
        }

    def _uid_of(self, user: str) -> int | None:
        """Return the user's uid; while the directory is away, the one that it had before.

        A reservation that runs must not lose its cards for that. A uid that has another name by
        now is somebody else's.
        """
        uid = self._accounts.uid_of(user)
        if uid is None:
            uid = self._uids.get(user, self._granted.users.get(user))
            if uid is not None and self._accounts.name_of(uid, {}) is not None:
                uid = None
        if uid is None:
            self._uids.pop(user, None)
        else:
            self._uids[user] = uid
        return uid


def _given(gid: int | None) -> tuple[int, ...]:
    return () if gid is None else (gid,)
