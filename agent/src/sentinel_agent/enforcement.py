"""One round of the lock: look at the node, make the plan, do it.

What is running is looked up anew in each round; only what was said to users is remembered.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from . import apply, sessions
from .accounts import Accounts
from .config import Config
from .errors import StateError
from .held import HeldPolicy
from .metrics import Metrics
from .plan import Close, End, Memory, Presence, Warn, grants_at, make_plan, utc
from .policy import Policy
from .registration import GrantedUsers
from .status import Status

log = logging.getLogger(__name__)


class Enforcement:
    """Ends the sessions of those without a running reservation, and warns before."""

    def __init__(
        self,
        config: Config,
        held: HeldPolicy,
        granted: GrantedUsers,
        status: Status,
        metrics: Metrics,
    ) -> None:
        self._config = config
        self._held = held
        self._granted = granted
        self._status = status
        self._metrics = metrics
        self._accounts = Accounts(
            min_uid=config.min_uid,
            breakglass_group=config.breakglass_group,
            ignored_users=config.ignored_users,
        )
        self._memory = Memory()

    def step(self) -> list[str]:
        """Do one round; return the problems found."""
        problems: list[str] = []
        try:
            self._held.mend()
        except StateError as error:
            problems.append(str(error))
        policy = self._held.policy
        usage = sessions.scan()
        present = self._present(usage, problems)
        if policy is None:
            problems.append("no policy yet: nobody is let in and nobody is ended")
        else:
            problems += self._enforce(policy, usage, present)
        self._status.reconciled_monotonic_s = time.monotonic()
        return problems

    def mode(self, policy: Policy) -> str:
        """Return the mode in force: this node may refuse to enforce, but not insist on it."""
        return policy.mode if self._config.enforce else "observe"

    def _enforce(
        self, policy: Policy, usage: Mapping[int, sessions.Usage], present: Sequence[Presence]
    ) -> list[str]:
        now = utc(time.time())
        mode = self._status.mode = self.mode(policy)
        problems = self._check_lock(mode)
        if now >= policy.expires_at:
            problems.append("the policy has expired: nobody is let in")
        problems += self._remember_granted(policy, now)
        is_observing = mode == "observe"
        actions, memory = make_plan(
            policy, present, self._granted.users.keys(),
            Memory() if is_observing else self._memory, now=now,
            monotonic_s=time.monotonic(),
            warn_minutes=self._config.warn_minutes,
            grace_s=0 if is_observing else self._config.grace_s,
        )  # fmt: skip
        if is_observing:
            self._memory = Memory()
            return problems + [
                f"would end {action.user}: no running reservation, "
                f"{usage[action.uid].connections} SSH connections"
                for action in actions
                if isinstance(action, End)
            ]
        self._memory = memory
        for action in actions:
            is_seen = isinstance(action, Warn | Close) and self._say(action)
            if isinstance(action, Warn) and not is_seen:
                # A login that is under way has no terminal yet: it is told in the next round.
                self._memory = self._memory.without(action)
        return problems + self._end([a for a in actions if isinstance(a, End)], usage)

    def _say(self, action: Warn | Close) -> bool:
        match action:
            case Warn():
                ends = f"{action.ends.astimezone():%H:%M %Z}"
                text = (
                    f"your reservation here ends at {ends}, in {action.minutes} min. "
                    "All your processes here end with it."
                )
            case Close():
                text = (
                    "you have no running reservation here. "
                    f"All your processes here end in {action.seconds:g} s."
                )
        taken = apply.write_to_terminals(action.uid, text)
        if taken:
            self._metrics.warnings.inc()
            log.info("user warned user=%s terminals=%d text=%r", action.user, taken, text)
        return taken > 0

    def _end(self, ends: Sequence[End], usage: Mapping[int, sessions.Usage]) -> list[str]:
        if not ends:
            return []
        left = apply.end_users(
            {action.uid: action.is_first for action in ends}, _count, self._config.term_s
        )
        for action in ends:
            connections = usage[action.uid].connections
            self._metrics.users_ended.inc()
            self._metrics.sessions_ended.inc(connections)
            log.info(
                "user ended user=%s connections=%d processes=%d left=%d",
                action.user, connections, usage[action.uid].processes, left.get(action.uid, 0),
            )  # fmt: skip
        return [
            f"{left[action.uid]} processes of {action.user} do not end"
            for action in ends
            if action.uid in left
        ]

    def _present(
        self, usage: Mapping[int, sessions.Usage], problems: list[str]
    ) -> list[Presence]:
        """Return who is subject to the lock, and count all connections for the heartbeat."""
        present: list[Presence] = []
        connected: dict[str, int] = {}
        for uid, found in sorted(usage.items()):
            if self._accounts.is_system(uid):
                continue
            user = self._accounts.name_of(uid, self._granted.users)
            if user is None:
                if found.connections:
                    # Perhaps the directory is down, and this is an operator.
                    problems.append(f"uid {uid} is connected and has no name: left alone")
                continue
            if found.connections:
                connected[user] = found.connections
            if self._accounts.exemption(user, uid) is None:
                present.append(Presence(user, uid, found.connections, found.processes))
        self._status.sessions = connected
        return present

    def _remember_granted(self, policy: Policy, now: datetime) -> list[str]:
        users = {grant.user for grant in grants_at(policy, now)}
        found: dict[str, int] = {}
        problems: list[str] = []
        for user in sorted(users):
            uid = self._accounts.uid_of(user)
            if uid is None:
                problems.append(f"{user} holds a reservation and has no account here")
            elif self._accounts.is_system(uid):
                problems.append(f"{user} holds a reservation and is a system account here")
            else:
                found[user] = uid
        try:
            self._granted.add(found)
        except StateError as error:
            problems.append(str(error))
        return problems

    def _check_lock(self, mode: str) -> list[str]:
        problems = []
        if mode == "enforce" and not self._config.sshd_drop_in.is_file():
            problems.append(f"{self._config.sshd_drop_in} is missing: sshd is not locked")
        if not self._accounts.has_breakglass_group():
            problems.append(f"no group {self._config.breakglass_group}: only root is exempt")
        return problems


def _count(uids: Collection[int]) -> dict[int, int]:
    usage = sessions.scan()
    return {uid: usage[uid].processes for uid in uids if uid in usage}
