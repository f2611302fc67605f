"""Say what a message of sshd's means for a login. Counts nothing and reads nothing.

The texts are those of OpenSSH 8.2 to 10.2 (auth.c, auth2.c, auth-pam.c, kex.c, monitor.c,
packet.c, sshd.c, sshd-session.c); 9.2 and 10.0 were run. A client chooses a part of them: its
user name, its first line, the reason that it leaves with. So each is told by how it begins,
which no client chooses, and matched to its end only where nothing of a client's stands in it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

Reason = Literal[
    "refused_by_policy", "invalid_user", "too_many_attempts", "timeout", "wrong_password",
    "wrong_key", "protocol_error", "other", "disconnect_before_auth", "throttled",
]  # fmt: skip
# Where several apply to one connection the first counts: sshd asks a user whom it refuses, and
# one that it does not know, for a password all the same.
REASONS: tuple[Reason, ...] = get_args(Reason)
Method = Literal[
    "publickey", "password", "keyboard-interactive", "hostbased", "gssapi-with-mic",
    "gssapi-keyex", "none", "other",
]  # fmt: skip
METHODS: tuple[Method, ...] = get_args(Method)


@dataclass(frozen=True)
class Accepted:
    """Somebody is logged in; `user` is the name as it stands in the log."""

    user: str
    method: Method


@dataclass(frozen=True)
class Failure:
    """Something went wrong with a login; `is_end`: the connection is over by that.

    `pid` is the connection's process where the message is not from there.
    """

    reason: Reason
    is_end: bool = False
    pid: int | None = None


@dataclass(frozen=True)
class Dropped:
    """sshd turned connections away at the door, by MaxStartups or for a penalty.

    `count`: so many more (`single`); else, before 10.0, by MaxStartups since its throttling
    began, those included that were told before.
    """

    count: int
    stage: Literal["single", "begins", "lasts", "ends"]


Message = Accepted | Failure | Dropped

_ACCEPTED = re.compile(r"Accepted ([a-z-]+)(?:/\S+)? for (.+?) from \S+ port \d+ ssh2(?:: |$)")
_BEGINNING = re.compile(r"beginning MaxStartups throttling$")
_THROTTLED = re.compile(
    r"(in|exited) MaxStartups throttling (?:for|after) \S+, (\d{1,9}) connections dropped$"
)
# What is past MaxStartups is in those sums, while a line for each is in the log only at
# LogLevel VERBOSE. A penalty for failures before (since 9.8), and since 10.0 MaxStartups too: a
# line for each, and when there were too many, how many more.
_TURNED_AWAY = re.compile(
    r"drop connection #\d+ from \[\S+\]:\d+ on \[\S+\]:\d+ (?!past M)"
    r"|\w+ logging rate-limited: additional (\d+) connections dropped$"
)

# sshd's word for the other side: `1.2.3.4 port 5`, `invalid user x 1.2.3.4 port 5`,
# `authenticating user x …`, and once logged in `user x …`.
_SOMEWHERE = r"\S+ port \d+"
_END = r"(?: \[preauth\])?$"
_LEAVES = r"(?:Connection (?:closed|reset) by|Connection from|Disconnected from|Disconnecting)"
_PATTERNS: tuple[tuple[str, Reason, bool], ...] = (
    (r"Invalid user ", "invalid_user", False),
    # AllowUsers and the like, a locked account, a shell that is not there.
    (r"User .+ not allowed because ", "refused_by_policy", False),
    (r"ROOT LOGIN REFUSED FROM ", "refused_by_policy", False),
    (r"administratively prohibited connection for ", "refused_by_policy", False),
    # PAM's account phase, where our pam-gate answers.
    (r"Access denied for user ", "refused_by_policy", True),
    (r"Failed none for ", "disconnect_before_auth", False),
    (r"Failed \S+ for invalid user ", "invalid_user", False),
    (r"Failed (?:password|keyboard-interactive\S*) for ", "wrong_password", False),
    (r"Failed \S+ for ", "wrong_key", False),
    (r"PAM: [\w ]+ for illegal user ", "invalid_user", False),
    (r"PAM: Authentication failure for ", "wrong_password", False),
    (r"maximum authentication attempts exceeded for ", "too_many_attempts", False),
    # How a connection ends. A user that exists and leaves without having been let in: none of
    # the keys fitted. No user: no login was tried.
    (rf"{_LEAVES} invalid user ", "invalid_user", True),
    (rf"{_LEAVES} authenticating user ", "wrong_key", True),
    (rf"Connection (?:closed|reset) by {_SOMEWHERE}{_END}", "disconnect_before_auth", True),
    (rf"Connection from {_SOMEWHERE} timed out{_END}", "disconnect_before_auth", True),
    (rf"Disconnected from {_SOMEWHERE}{_END}", "disconnect_before_auth", True),
    (rf"Disconnecting {_SOMEWHERE}: ", "protocol_error", True),
    (rf"Timeout before authentication for {_SOMEWHERE}$", "timeout", True),
    # What does not speak SSH, or none of the algorithms that are allowed.
    (r"kex_exchange_identification: (?:client|banner|No SSH)", "protocol_error", False),
    (r"kex_exchange_identification: ", "disconnect_before_auth", False),
    (r"Protocol major versions differ for ", "protocol_error", False),
    (r"(?:\w+: )?Unable to negotiate with (?!user )", "protocol_error", True),
    (r"banner exchange: Connection from (?!user )", "protocol_error", True),
    (r"ssh_dispatch_run_fatal: Connection from (?!user )", "protocol_error", True),
)
_FAILURES = tuple(
    (re.compile(pattern), Failure(reason, is_end)) for pattern, reason, is_end in _PATTERNS
)
# Said by the listener, of a process that it names. (9.8)
_BY_LISTENER: tuple[tuple[re.Pattern[str], Reason], ...] = (
    (
        re.compile(r"Timeout before authentication for connection from .*, pid = (\d{1,9})$"),
        "timeout",
    ),
    (re.compile(r"[Ss]ession process (\d{1,9}) (?:unpriv child crash|for \S)"), "other"),
)
_LEVEL = re.compile(r"(error|fatal): ")


def read_message(text: str) -> Message | None:
    """Return what the message says of a login, or None when it says nothing of one."""
    level = _LEVEL.match(text)
    body = text[level.end() :] if level else text
    if accepted := _ACCEPTED.match(body):
        method = accepted[1]
        return Accepted(accepted[2], next((one for one in METHODS if one == method), "other"))
    if dropped := _read_dropped(body):
        return dropped
    for pattern, reason in _BY_LISTENER:
        if found := pattern.match(body):
            return Failure(reason, True, int(found[1]))
    for pattern, failure in _FAILURES:
        if pattern.match(body):
            return failure
    if level and level[1] == "fatal" and body.endswith(" [preauth]"):
        return Failure("other", True)
    return None


def _read_dropped(body: str) -> Dropped | None:
    if _BEGINNING.match(body):
        return Dropped(1, "begins")
    if found := _THROTTLED.match(body):
        return Dropped(int(found[2]), "ends" if found[1] == "exited" else "lasts")
    if found := _TURNED_AWAY.match(body):
        return Dropped(int(found[1] or 1), "single")
    return None
