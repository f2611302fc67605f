"""One round of the lock: look at the node, make the plan, do it.

What is running is looked up anew in each round; only what was said to users is remembered.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from ..accounts import Accounts
from ..cards.card_lock import CardLock
from ..config import Config
from ..policy.held import HeldPolicy
from ..policy.model import Policy
from ..service.metrics import Metrics
from ..service.status import Status
from . import apply, table
from .doors import Doorkeeper, Seen
from .granted import GrantedUsers
from .pauses import boundaries_of, pause_s
from .plan import Close, End, Memory, Pace, Schedule, Warn, grants_at, make_plan, utc
from .presence import LoginWatch, People, find_people
from .words import words_for

log = logging.getLogger(__name__)

# After so many rounds that killed a user's processes it is a problem that some are left.
KILLS_MAX = 4
# A clock that was set is taken up by another thread, within a second unless that hangs.
PUT_OFF_S = 0.1
PUT_OFF_MAX = 30


@dataclass(frozen=True)
class Round:
    """What a round found wrong, and when the next is due."""

    problems: tuple[str, ...]
    pause_s: float


class Enforcement:
    """Ends the sessions of those without a running reservation, and warns before."""

    def __init__(
        self,
        config: Config,
        *,
        held: HeldPolicy,
        keeper: Doorkeeper,
        granted: GrantedUsers,
        accounts: Accounts,
        cards: CardLock,
        status: Status,
        metrics: Metrics,
        write_soon: Callable[[], None],
        is_clock_off: Callable[[], bool],
    ) -> None:
        """`write_soon` has `Doorkeeper.write` called, by a thread that may wait for a disk.

        `is_clock_off` as `clock.Intake.is_off`.
        """
        self._config = config
        self._held = held
        self._keeper = keeper
        self._granted = granted
        self._accounts = accounts
        self._cards = cards
        self._status = status
        self._metrics = metrics
        self._write_soon = write_soon
        self._is_clock_off = is_clock_off
        self._put_off = 0
        self._memory = Memory()
        self._logins = LoginWatch()
        self._ended_s: float | None = None
        # Whether this round has left something to the next.
        self._again = False

    def step(self) -> Round:
        """Do one round."""
        started_s = time.monotonic()
        self._again = False
        if self._is_clock_off() and self._put_off < PUT_OFF_MAX:
            # By a clock that was set somebody's end could seem to have come; the policy is
            # being moved to it.
            self._put_off += 1
            return Round((), PUT_OFF_S)
        self._put_off = 0
        problems: list[str] = []
        # In this order: a policy that comes in between makes the look too old, not too new.
        now, turn = utc(time.time()), self._keeper.turn
        policy = self._held.policy
        scan = table.scan()
        users = {grant.user for grant in policy.grants} if policy else set()
        people = find_people(
            scan, self._accounts, users | self._granted.touched.keys(), self._granted.users
        )
        self._status.sessions = people.connected
        problems += [*people.problems, *self._accounts.problems()]
        if policy is None:
            problems.append("no policy yet: nobody is let in and nobody is ended")
        else:
            problems += self._enforce(policy, people, now)
        # Before the handover: it asks who may still have a card open that was lost just now.
        problems += self._lock_cards(policy, now)
        if policy is not None:
            opens = self._keeper.doors.opens
            problems += self._hand_over(policy, people, scan, now, turn)
            if self._keeper.doors.opens != opens:
                # The cards open together with the gates.
                problems += self._lock_cards(policy, now)
        self._status.round_seconds = time.monotonic() - started_s
        self._status.reconciled_monotonic_s = time.monotonic()
        return Round(tuple(dict.fromkeys(problems)), self._pause_s())

    def mode(self, policy: Policy) -> str:
        """Return the mode in force: this node may refuse to enforce, but not insist on it."""
        return policy.mode if self._config.enforce else "observe"

    def _enforce(self, policy: Policy, people: People, now: datetime) -> list[str]:
        mode = self._status.mode = self.mode(policy)
        problems = self._check_lock(mode)
        if now >= policy.expires_at:
            problems.append("the policy has expired: nobody is let in")
        problems += self._check_holders(policy, people, now)
        is_observing = mode == "observe"
        actions, memory = make_plan(
            policy, people.present, self._granted.users.keys() | self._granted.touched.keys(),
            Memory() if is_observing else self._memory, now=now,
            monotonic_s=time.monotonic(),
            warn_minutes=self._config.warn_minutes,
            pace=Pace(0, 0) if is_observing
            else Pace(self._config.grace_s, self._config.term_s),
        )  # fmt: skip
        connections = {presence.user: presence.connections for presence in people.present}
        if is_observing:
            self._memory = Memory()
            return problems + [
                f"would end {action.user}: no running reservation, "
                f"{connections[action.user]} SSH connections"
                for action in actions
                if isinstance(action, End)
            ]
        self._memory = memory
        for action in actions:
            if isinstance(action, End):
                self._end(action, people, connections[action.user])
            elif not self._say(action, now) and isinstance(action, Warn):
                # A login that is under way has no terminal yet: it is told in the next round.
                self._memory = self._memory.without(action)
        return problems + [
            f"{presence.processes} processes of {presence.user} do not end"
            for presence in people.present
            if (state := memory.closing.get(presence.user)) and state.kills >= KILLS_MAX
        ]

    def _hand_over(
        self, policy: Policy, people: People, scan: table.Scan, now: datetime, turn: int
    ) -> list[str]:
        """Let those in for whom nobody's processes are in the way any more."""
        schedule = Schedule(policy)
        running = set(people.running)
        if self._logins.has_one(scan, time.monotonic()):
            running |= people.uids.keys()
        self._granted.exempt = self._accounts.seen_in_group
        seen = Seen(
            at=now,
            turn=turn,
            uids=people.uids,
            running=running,
            staying=[
                name
                for presence in people.present
                for name in presence.all_names
                if schedule.access_end(presence.all_names, now) is not None
            ],
            exempt=people.exempt,
            gone=people.gone,
        )
        if self._keeper.look(seen, self._cards):
            self._write_soon()
        doors = self._keeper.doors
        self._status.unclean = tuple(
            sorted({user for users in doors.unclean.values() for user in users})
        )
        self._status.waiting = len(doors.waits)
        self._status.overdue = len(doors.unclean)
        return [
            f"reservation {number} was opened after {self._config.handover_limit_s:g} s "
            f"although processes of {', '.join(users)} still run"
            for number, users in sorted(doors.unclean.items())
        ]

    def _lock_cards(self, policy: Policy | None, now: datetime) -> list[str]:
        is_enforcing = policy is not None and self.mode(policy) == "enforce"
        try:
            opens = self._keeper.doors.opens
            return self._cards.step(policy, now, opens, is_enforcing=is_enforcing)
        except Exception as error:  # an odd device must not keep sessions from being ended
            log.error("cards not locked", exc_info=error)
            return [f"the cards are not locked: {error!r}"]

    def _say(self, action: Warn | Close, now: datetime) -> bool:
        texts = words_for(action, now)
        taken = apply.write_to_terminals(action.uid, *texts)
        if taken:
            self._metrics.warnings.inc()
            log.info("user warned user=%s terminals=%d text=%r", action.user, taken, texts[0])
        return taken > 0

    def _end(self, action: End, people: People, connections: int) -> None:
        (presence,) = (one for one in people.present if one.user == action.user)
        for name in sorted(presence.all_names):
            # Asked anew: the account may be another's since, or have been put into the group.
            if self._accounts.has_changed(name, presence.uid):
                self._again = True
                return
            exemption = self._accounts.exemption(name, presence.uid, anew=True)
            if exemption is not None:
                log.info("user left alone user=%s reason=%s", name, exemption)
                return
        for uid in action.uids:
            try:
                apply.signal_all(uid, action.signal)
            except OSError as error:
                # One user who cannot be ended must not keep the others.
                log.error(
                    "cannot signal uid=%d signal=%s reason=%s", uid, action.signal.name, error
                )
        self._ended_s = time.monotonic()
        if action.is_first:
            self._metrics.users_ended.inc()
            self._metrics.sessions_ended.inc(connections)
            log.info(
                "user ended user=%s connections=%d processes=%d signal=%s",
                action.user, connections, presence.processes, action.signal.name,
            )  # fmt: skip

    def _check_holders(self, policy: Policy, people: People, now: datetime) -> list[str]:
        problems = []
        for user in sorted({grant.user for grant in grants_at(policy, now)}):
            uid = people.uids.get(user)
            if uid is None:
                problems.append(f"{user} holds a reservation and has no account here")
            elif self._accounts.is_system(uid):
                problems.append(f"{user} holds a reservation and is a system account here")
        return problems

    def _check_lock(self, mode: str) -> list[str]:
        if mode == "enforce" and not self._config.sshd_drop_in.is_file():
            return [f"{self._config.sshd_drop_in} is missing: sshd is not locked"]
        return []

    def _pause_s(self) -> float:
        policy = self._held.policy
        boundaries: Sequence[datetime] = ()
        if policy is not None:
            boundaries = list(
                boundaries_of(policy, self._keeper.doors.opens, self._config.warn_minutes)
            )
        return pause_s(
            rest_s=self._config.reconcile_s,
            now=utc(time.time()),
            monotonic_s=time.monotonic(),
            boundaries=boundaries,
            closing=self._memory.closing.values(),
            is_somebody_waiting=self._again or bool(self._keeper.doors.waits),
            ended_s=self._ended_s,
        )
