#!/usr/bin/python3 -IS
"""sshd's AuthorizedKeysCommand: prints the keys of a user's running reservations.

It reads the policy cache and nothing else: no network, no configuration, nothing of this
package. It is installed as a file of its own, /usr/lib/sentinel/get-keys, and runs on the
system's Python, 3.7 or newer. Standard library only, and little of it: sshd waits for it at
every login, once for each key that the client offers.

Whatever is odd denies: sshd gets a status other than 0 and no line. Nobody reads stderr here,
so the reason goes to syslog (facility auth).
"""

from __future__ import annotations

import json
import os
import pwd
import re
import signal
import stat
import sys
import syslog
import time

CACHE = "/var/lib/sentinel/policy.json"
# sshd has no limit of its own but LoginGraceTime, and hung logins fill MaxStartups.
TIME_LIMIT_S = 3
CACHE_BYTES_MAX = 32 * 1024 * 1024
# A booking account named like a service's must not become that service on every node.
MIN_UID = 1000

USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
KEY = re.compile(r"[a-z0-9@.-]+ [A-Za-z0-9+/]+={0,2}")
TIME = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,6}))?Z"
)
ENV_NAME = re.compile(r"(ASCEND|CUDA)_[A-Z_]+")
ENV_VALUE = re.compile(r"[A-Za-z0-9,:._-]*")
# sshd.8, AUTHORIZED_KEYS FILE FORMAT: everything off, then on again what people work with.
OPTIONS = "restrict,pty,port-forwarding,agent-forwarding,X11-forwarding"


class Denied(Exception):
    """The user gets no key; the text says why. `is_odd`: something is broken."""

    def __init__(self, reason: str, is_odd: bool = True) -> None:
        super().__init__(reason)
        self.is_odd = is_odd


class Grant:
    """What this program needs of one grant; times as comparable text (see `read_time`)."""

    def __init__(self, document: dict[str, object]) -> None:
        self.not_before = read_time(document.get("not_before"))
        if "opens_at" in document:
            # The agent holds the grant back until what a former holder runs has ended.
            self.not_before = max(self.not_before, read_time(document["opens_at"]))
        self.not_after = read_time(document.get("not_after"))
        self.keys = _texts(document.get("keys"), KEY, "key")
        env = document.get("env")
        if not isinstance(env, dict):
            raise Denied("the cache is damaged: env")
        _texts(list(env), ENV_NAME, "name in env")
        _texts(list(env.values()), ENV_VALUE, "value in env")
        self.env = {str(name): str(value) for name, value in env.items()}


def main(arguments: list[str]) -> int:
    """Print the lines for the user named by the only argument; return the exit status."""
    # The default action ends the process, also while it waits in the kernel.
    signal.alarm(TIME_LIMIT_S)
    syslog.openlog("sentinel-get-keys", syslog.LOG_PID, syslog.LOG_AUTH)
    user = arguments[0] if len(arguments) == 1 else ""
    try:
        check_user(user)
        lines = authorized_keys(read_cache(CACHE), user, utc_now())
    except Denied as denial:
        level = syslog.LOG_ERR if denial.is_odd else syslog.LOG_INFO
        syslog.syslog(level, f"denied user={user!a:.64} reason={denial}")
        return 1 if denial.is_odd else 0
    except Exception as error:  # whatever it is, it must not let anybody in
        syslog.syslog(syslog.LOG_ERR, f"denied user={user!a:.64} reason={error!r:.200}")
        return 1
    sys.stdout.write("".join(lines))
    sys.stdout.flush()
    return 0


def check_user(user: str) -> None:
    """Raise Denied unless this is an account that may hold a reservation."""
    if not USER.fullmatch(user):
        raise Denied("not a user name")
    try:
        uid = pwd.getpwnam(user).pw_uid
    except KeyError:
        raise Denied("no such account", is_odd=False) from None
    if uid < MIN_UID:
        raise Denied("system account")


def read_cache(path: str) -> object:
    """Return the cache's JSON. Raises Denied unless only root can have written it."""
    folder = os.stat(os.path.dirname(path))  # noqa: PTH116, PTH120  pathlib costs 10 ms
    try:
        # O_NONBLOCK: a pipe in the file's place must not hang the login.
        opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise Denied(f"no cache: {error.strerror}") from None
    with os.fdopen(opened, "rb") as cache:
        found = os.fstat(opened)
        if not stat.S_ISREG(found.st_mode):
            raise Denied("the cache is not a file")
        for entry, what in ((folder, "the cache's folder"), (found, "the cache")):
            if entry.st_uid != 0 or entry.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise Denied(f"{what} can be written by others than root")
        if found.st_size > CACHE_BYTES_MAX:
            raise Denied("the cache is too large")
        text = cache.read(CACHE_BYTES_MAX)
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise Denied("the cache is damaged: not JSON") from None


def authorized_keys(policy: object, user: str, now: str) -> list[str]:
    """Return the user's lines at `now`, one for each key, or raise Denied.

    Grants that overlap or touch make one line: sshd takes the first of two lines with the same
    key, so each line carries all devices that the user holds now, and the end of the last
    grant that follows without a gap.
    """
    if not isinstance(policy, dict) or not isinstance(policy.get("grants"), list):
        raise Denied("the cache is damaged: no grants")
    if read_time(policy.get("expires_at")) <= now:
        raise Denied("the policy has expired")
    if not all(isinstance(grant, dict) for grant in policy["grants"]):
        raise Denied("the cache is damaged: a grant")
    grants = [Grant(grant) for grant in policy["grants"] if grant.get("user") == user]
    grants.sort(key=lambda grant: (grant.not_before, grant.not_after))
    running = [grant for grant in grants if grant.not_before <= now < grant.not_after]
    if not running:
        raise Denied("no running reservation", is_odd=False)
    keys = list(dict.fromkeys(key for grant in running for key in grant.keys))
    if not keys:
        raise Denied("no keys", is_odd=False)
    lines = []
    for key in keys:
        with_key = [grant for grant in grants if key in grant.keys]
        held = [grant for grant in running if key in grant.keys]
        options = [OPTIONS, f'expiry-time="{expiry(last_end(with_key, now))}"']
        options += [f'environment="{name}={value}"' for name, value in merge_env(held)]
        lines.append(f"{','.join(options)} {key}\n")
    return lines


def last_end(grants: list[Grant], now: str) -> str:
    """Return when the access that runs at `now` ends; `grants` are sorted by their start."""
    end = now
    for grant in grants:
        if grant.not_before <= end < grant.not_after:
            end = grant.not_after
    return end


def merge_env(grants: list[Grant]) -> list[tuple[str, str]]:
    """Return each variable with the union of the grants' comma-separated values."""
    merged: dict[str, list[str]] = {}
    for grant in grants:
        for name, value in grant.env.items():
            parts = merged.setdefault(name, [])
            parts += [part for part in value.split(",") if part and part not in parts]
    for parts in merged.values():
        # CANN takes card numbers in ascending order only.
        if all(part.isdigit() for part in parts):
            parts.sort(key=int)
    return [(name, ",".join(parts)) for name, parts in sorted(merged.items())]


def read_time(value: object) -> str:
    """Return a policy's time as text of fixed width, which sorts as the times do."""
    match = TIME.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise Denied("the cache is damaged: a time")
    year, month, day, hour, minute, second, fraction = match.groups()
    if not (1 <= int(month) <= 12 and 1 <= int(day) <= 31 and int(hour) < 24):
        raise Denied("the cache is damaged: a time")
    if int(minute) > 59 or int(second) > 59:
        raise Denied("the cache is damaged: a time")
    return f"{year}{month}{day}{hour}{minute}{second}.{(fraction or '').ljust(6, '0')}"


def utc_now() -> str:
    """Return the wall clock in the form of `read_time`."""
    seconds, nanoseconds = divmod(time.time_ns(), 10**9)
    return f"{time.strftime('%Y%m%d%H%M%S', time.gmtime(seconds))}.{nanoseconds // 1000:06d}"


def expiry(when: str) -> str:
    """Return sshd's expiry-time. Z, for UTC, needs OpenSSH 9.1; sshd denies at that second."""
    return f"{when[:14]}Z"


def _texts(values: object, pattern: re.Pattern[str], what: str) -> list[str]:
    if not isinstance(values, list):
        raise Denied(f"the cache is damaged: no list of {what}s")
    for value in values:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise Denied(f"the cache is damaged: a {what}")
    return values


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
