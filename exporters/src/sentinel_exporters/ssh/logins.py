"""Count logins and failed ones from sshd's messages. Reads nothing and knows no clock.

One connection is one login or one failure, however many passwords it tried. A failure counts
when its connection ends: only then is the reason known.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable

from .messages import REASONS, Accepted, Dropped, Failure, Reason, read_message

# The end of some connections is not in the log. sshd gives a login two minutes
# (LoginGraceTime).
_PATIENCE_S = 300.0
# sshd's last words on a connection come at once; its pid may belong to another one later.
_LAST_WORDS_S = 10.0
# Connections that are under way, or over, at the same time; sshd's own limit is 100.
_CONNECTIONS_MAX = 4096
# Users that have a series of their own; those that come after have the name OTHERS.
USERS_MAX = 1000
OTHERS = "(others)"


class LoginCounts:
    """`logins` by (user, method) and `failures` by reason, since it was made.

    `name_of` returns the name that the user database has for one in the log, or None: a user
    without an account has no series, since strangers choose those names.
    """

    def __init__(self, name_of: Callable[[str], str | None]) -> None:
        self.logins: Counter[tuple[str, str]] = Counter()
        self.failures: Counter[str] = Counter(dict.fromkeys(REASONS, 0))
        self._name_of = name_of
        self._users: set[str] = set()
        # By pid, the least recent first: what is known of it, and when it was last heard of.
        self._trying: OrderedDict[int, tuple[Reason, float]] = OrderedDict()
        self._over: OrderedDict[int, float] = OrderedDict()
        # How many MaxStartups has turned away since it began to; None where it does not, or did
        # before the log was read.
        self._dropped: int | None = None

    def take(self, pid: int, text: str, now_s: float) -> None:
        """Take in one message of the sshd with that pid; `now_s` never goes back."""
        self.settle(now_s)
        match read_message(text):
            case Accepted(user, method):
                self._close(pid, now_s)
                self.logins[self._label(user), method] += 1
            case Failure(reason, is_end, named):
                self._fail(pid if named is None else named, reason, is_end, now_s)
            case Dropped() as dropped:
                self._drop(dropped)

    def settle(self, now_s: float) -> None:
        """Count the connections that nothing has been heard of for long."""
        while self._over and next(iter(self._over.values())) + _LAST_WORDS_S < now_s:
            self._over.popitem(last=False)
        while self._trying:
            reason, heard_s = next(iter(self._trying.values()))
            if heard_s + _PATIENCE_S >= now_s and len(self._trying) <= _CONNECTIONS_MAX:
                break
            self._trying.popitem(last=False)
            self.failures[reason] += 1

    def _fail(self, pid: int, reason: Reason, is_end: bool, now_s: float) -> None:
        if pid in self._over:
            return
        known = self._trying.pop(pid, None)
        if known is not None:
            reason = min(reason, known[0], key=REASONS.index)
        if not is_end:
            self._trying[pid] = (reason, now_s)
        elif self._close(pid, now_s):
            self.failures[reason] += 1

    def _drop(self, dropped: Dropped) -> None:
        if dropped.stage in {"single", "begins"}:
            self.failures["throttled"] += dropped.count
        elif self._dropped is not None:
            self.failures["throttled"] += max(0, dropped.count - self._dropped)
        if dropped.stage != "single":
            self._dropped = None if dropped.stage == "ends" else dropped.count

    def _close(self, pid: int, now_s: float) -> bool:
        """Note that the connection is decided; say whether that is new."""
        self._trying.pop(pid, None)
        if pid in self._over:
            return False
        self._over[pid] = now_s
        if len(self._over) > _CONNECTIONS_MAX:
            self._over.popitem(last=False)
        return True

    def _label(self, user: str) -> str:
        name = self._name_of(user)
        if name is None:
            return OTHERS
        if name not in self._users and len(self._users) >= USERS_MAX:
            return OTHERS
        self._users.add(name)
        return name
