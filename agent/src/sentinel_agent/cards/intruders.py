"""Who has cards open without being let to them, and the end of that. It sets no device file."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from ..accounts import Accounts
from ..service.metrics import Metrics
from ..sessions.apply import write_to_terminals
from ..sessions.granted import GrantedUsers
from ..sessions.namespaces import owner_of
from ..sessions.words import words_for_cards
from .holders import Finder, Holder, pids_of
from .revoke import end_frozen, end_holders
from .rules import Rights

log = logging.getLogger(__name__)

# While it is only watched, holders are looked up so often: it costs a look at each process.
OBSERVE_S = 60.0
# Holders that cannot be ended are tried again so late at most.
RETRY_MAX_S = 30.0
# How many processes a problem names.
NAMED_MAX = 5


class CardHolders:
    """The processes that have cards' devices open or mapped.

    They are looked up and ended by a thread of its own: it waits for them, and the rounds of
    enforcement do not.
    """

    def __init__(
        self, accounts: Accounts, granted: GrantedUsers, metrics: Metrics, term_s: float
    ) -> None:
        self._accounts = accounts
        self._granted = granted
        self._metrics = metrics
        self._term_s = term_s
        # Called when it is known that somebody has nothing left, or there is more to do.
        self.done: Callable[[], None] = lambda: None
        self._finder = Finder()
        self._rights = Rights({}, {}, ())
        self._is_ending = False
        self._thread: threading.Thread | None = None
        # How often they were asked for, and how often of these it was done.
        self._demands = 1
        self._answered = 0
        self._suspects: frozenset[int] = frozenset()
        self._lock = threading.Lock()
        self._retry_at = 0.0
        self._retry_s = 0.0
        self._observed_at: float | None = None
        self._problems: list[str] = []

    def demand(self, lost_by: Collection[int] = ()) -> None:
        """Have them looked up: somebody may have a card open wrongly.

        `lost_by`: the uids that have lost a card just now. They count as having it open until
        it is known that they have not.
        """
        with self._lock:
            self._demands += 1
            self._suspects |= set(lost_by)

    def has_open(self, uid: int, numbers: Collection[int]) -> bool:
        """Say whether a process of the uid has one of these devices open or mapped.

        One that was not seen in full may have, and counts.
        """
        if uid in self._suspects:
            return True

        def may_be(other: int) -> bool:
            return other == uid or self._name_of(other) is None

        found = [
            holder
            for holder in self._finder.find(numbers, may_be)
            if self._account_of(holder) == uid
        ]
        if self._is_ending and any(holder.may_hold_more for holder in found):
            # The thread goes on looking: the rounds of enforcement must not wait for it.
            self.demand({uid})
        return bool(found)

    def end(self, rights: Rights) -> list[str]:
        """End who holds a card without being let to it, if it is due; return the problems.

        What is found to be wrong is in the answer to a later call.
        """
        # The thread takes them up: who is let to a card again is not ended any more.
        self._rights, self._is_ending = rights, True
        self._observed_at = None
        is_due = self._demands > self._answered or (
            bool(self._problems) and time.monotonic() >= self._retry_at
        )
        if is_due and (self._thread is None or not self._thread.is_alive()):
            self._thread = threading.Thread(target=self._run, name="card-holders", daemon=True)
            self._thread.start()
        return self._problems

    def observe(self, rights: Rights) -> list[str]:
        """Return one problem that names whose processes `end` would end, none for nobody."""
        # Nobody is ended any more, whatever is under way.
        self._rights, self._is_ending = rights, False
        now = time.monotonic()
        if self._observed_at is None or now - self._observed_at >= OBSERVE_S:
            self._observed_at = now
            self.demand()
            self._suspects = frozenset()
            would = sorted(
                {
                    (self._label(self._account_of(found)), rights.names(found.devices))
                    for found in self._intruders()
                }
            )
            told = ", ".join(f"{user} ({names})" for user, names in would[:NAMED_MAX])
            more = f" and {len(would) - NAMED_MAX} more" if len(would) > NAMED_MAX else ""
            text = f"would end what has cards open that are not booked: {told}{more}"
            self._problems = [text] if would else []
        return self._problems

    def join(self, timeout_s: float) -> None:
        """Wait for an ending that is under way: it may have a user's processes stopped."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        with self._lock:
            demands, suspects = self._demands, self._suspects
        try:
            problems, guilty = self._look(suspects)
        except Exception as error:  # the next try may find what this one stumbled over gone
            log.error("card holders not ended", exc_info=error)
            problems, guilty = [f"who has cards open was not found out: {error!r}"], suspects
        with self._lock:
            self._answered = demands
            # Who has lost another one since then is looked at again.
            if self._demands == demands:
                self._suspects = frozenset(guilty)
        # What is a problem is looked up again, though less and less often.
        self._retry_s = min(2 * self._retry_s or 1.0, RETRY_MAX_S) if problems else 0.0
        self._retry_at = time.monotonic() + self._retry_s
        self._problems = problems
        if suspects or self._demands > demands:
            self.done()

    def _look(self, suspects: Collection[int]) -> tuple[list[str], Collection[int]]:
        """Find and end intruders; return the problems, and who may have a card open."""
        nameless: dict[int, frozenset[int]] = {}
        passed_over: list[Holder] = []
        unseen: list[Holder] = []
        before = pids_of(suspects)
        found = self._intruders(nameless=nameless, unseen=passed_over)
        after = pids_of(suspects)
        if found and self._is_ending:
            self._end(found)
        for uid in suspects:
            # While processes come and go, one that hands the device on is easily missed.
            if before[uid] == after[uid] or not self._may_stop(uid):
                continue
            if count := end_frozen(uid, self._find):
                self._metrics.card_holders_ended.inc(count)
                log.info("card holders caught user=%s processes=%d", self._label(uid), count)
        again = {holder.uid for holder in (*found, *passed_over)} | set(suspects)
        left = self._find(uids=again, unseen=unseen)
        names = self._rights.names
        problems = [
            f"uid {uid} has {names(devices)} open and has no name: left alone"
            for uid, devices in sorted(nameless.items())
        ]
        if unseen:
            pids = _pids([holder.pid for holder in unseen])
            problems.append(f"cannot see all that is open or mapped in {pids}")
        if left:
            held = names(number for holder in left for number in holder.devices)
            pids = _pids([holder.pid for holder in left])
            problems.append(f"{held} is still open in {pids}, which cannot be ended")
        maybe = {self._account_of(holder) for holder in unseen} & set(suspects)
        return problems, maybe.union(self._account_of(holder) for holder in left)

    def _find(
        self,
        pids: Collection[int] | None = None,
        uids: Collection[int] | None = None,
        unseen: list[Holder] | None = None,
    ) -> list[Holder]:
        """Return the intruders that are to be ended, of these pids or uids."""
        if not self._is_ending or (uids is not None and not uids):
            return []
        return self._intruders(pids, uids, unseen=unseen)

    def _intruders(
        self,
        pids: Collection[int] | None = None,
        uids: Collection[int] | None = None,
        nameless: dict[int, frozenset[int]] | None = None,
        unseen: list[Holder] | None = None,
    ) -> list[Holder]:
        """Return the intruders of now.

        Those without a name are put into `nameless`, and into `unseen` those of whom not all
        was to be seen.
        """
        rights = self._rights
        intruders = []

        def is_of_interest(other: int) -> bool:
            return (uids is None or other in uids) and self._is_subject(other)

        for holder in self._finder.find(set(rights.numbers.values()), is_of_interest, pids):
            account = self._account_of(holder)
            devices = rights.refused(account, holder.devices)
            if not self._is_subject(account):
                continue
            if not devices:
                if holder.may_hold_more and unseen is not None:
                    unseen.append(holder)
            elif self._name_of(account) is not None:
                intruders.append(replace(holder, devices=devices))
            elif nameless is not None:
                # Perhaps the directory is down, and this is an operator.
                nameless[account] = devices
        return intruders

    def _is_subject(self, uid: int) -> bool:
        if self._accounts.is_system(uid):
            return False
        user = self._name_of(uid)
        return user is None or (
            user not in self._granted.exempt and self._accounts.exemption(user, uid) is None
        )

    def _may_stop(self, uid: int) -> bool:
        """Say whether processes of the uid, an account's or a lent one, may be stopped now."""
        return self._is_ending and all(
            self._is_subject(one) for one in {uid, self._accounts.account_of(uid)}
        )

    def _end(self, found: Sequence[Holder]) -> None:
        names = self._rights.names
        lost: dict[int, set[int]] = {}
        accounts = {holder.pid: self._account_of(holder) for holder in found}
        for holder in found:
            lost.setdefault(accounts[holder.pid], set()).update(holder.devices)
        for uid, devices in lost.items():
            write_to_terminals(uid, *words_for_cards(names(devices)))
        end_holders(found, self._find, self._may_stop, self._term_s)
        self._metrics.card_holders_ended.inc(len(found))
        for uid, devices in lost.items():
            log.info(
                "card holders ended user=%s cards=%s processes=%d",
                self._label(uid), names(devices),
                sum(account == uid for account in accounts.values()),
            )  # fmt: skip

    def _account_of(self, holder: Holder) -> int:
        """Return whose the process is: in a container its uid is one lent to somebody."""
        if self._name_of(holder.uid) is not None:
            return holder.uid
        maker = owner_of(holder.pid)
        return self._accounts.account_of(holder.uid if maker is None else maker)

    def _name_of(self, uid: int) -> str | None:
        return self._accounts.name_of(uid, self._granted.users)

    def _label(self, uid: int) -> str:
        return self._name_of(uid) or str(uid)


def _pids(pids: Sequence[int]) -> str:
    named = ", ".join(str(pid) for pid in pids[:NAMED_MAX])
    more = f" and {len(pids) - NAMED_MAX} more" if len(pids) > NAMED_MAX else ""
    return f"process {named}{more}"
