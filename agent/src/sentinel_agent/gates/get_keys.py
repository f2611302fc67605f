#!/usr/bin/python3 -IS
"""sshd's AuthorizedKeysCommand: prints the keys of a user's running reservations.

It reads the policy cache and nothing else: no network, no configuration, nothing of this
package. It is installed as a file of its own, /usr/lib/sentinel/get-keys, and runs on the
system's Python, 3.7 or newer. Standard library only, and little of it: sshd waits for it at
every login, once for each key that the client offers and once more for the one that it takes.
`re`, `json`, `signal` and `socket` each load `enum` and more, and would double what it costs.

Whatever is odd denies: sshd gets a status other than 0 and no line. Nobody reads stderr here,
so the reason goes to syslog (facility auth), and a refusal to the agent's counters.
"""

from __future__ import annotations

import os
import pwd
import stat
import sys
import syslog
import time

try:
    # What `signal` wraps; it is built into Python.
    from _signal import alarm  # type: ignore[import-not-found]
except ImportError:
    from signal import alarm

CACHE = "/var/lib/sentinel/policy.json"
LOGINS = "/run/sentinel/logins.sock"
# sshd has no limit of its own but LoginGraceTime, and hung logins fill MaxStartups.
TIME_LIMIT_S = 3
CACHE_BYTES_MAX = 32 * 1024 * 1024
# A booking account named like a service's must not become that service on every node.
MIN_UID = 1000

CAPITALS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
LETTERS = "abcdefghijklmnopqrstuvwxyz"
DIGITS = "0123456789"
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
        keys, env = document.get("keys"), document.get("env")
        if not isinstance(keys, list) or not all(map(is_key, keys)):
            raise Denied("the cache is damaged: keys")
        if not isinstance(env, dict) or not all(map(is_variable, env.items())):
            raise Denied("the cache is damaged: env")
        self.keys: list[str] = keys
        self.env: dict[str, str] = env


def main(arguments: list[str]) -> int:
    """Print the user's lines and return the exit status.

    Arguments: [--check] [--local-expiry] USER. `--check` is for whoever asks without a login:
    the answer is the same, and a refusal goes to stderr, not to the log and the counters. A
    user of that name is none: only what comes before the last argument is an option.
    """
    # The default action ends the process, also while it waits in the kernel.
    alarm(TIME_LIMIT_S)
    syslog.openlog("sentinel-get-keys", syslog.LOG_PID, syslog.LOG_AUTH)
    options = arguments[:-1]
    is_check = options[:1] == ["--check"]
    is_local = options[is_check:] == ["--local-expiry"]
    user = arguments[-1] if len(arguments) == 1 + is_check + is_local else ""
    try:
        check_user(user)
        lines = authorized_keys(read_cache(CACHE), user, utc_now(), is_local)
    except Denied as denial:
        report(user, str(denial), is_odd=denial.is_odd, is_check=is_check)
        return 1 if denial.is_odd else 0
    except Exception as error:  # whatever it is, it must not let anybody in
        report(user, f"{error!a:.200}", is_odd=True, is_check=is_check)
        return 1
    sys.stdout.write("".join(lines))
    sys.stdout.flush()
    return 0


def report(user: str, reason: str, *, is_odd: bool, is_check: bool) -> None:
    """Say why the user is refused: in the log and the counters, for a check on stderr only."""
    text = f"denied user={user!a:.64} reason={reason}"
    if is_check:
        sys.stderr.write(f"{text}\n")
        return
    syslog.syslog(syslog.LOG_ERR if is_odd else syslog.LOG_INFO, text)
    count_refusal(user)


def check_user(user: str) -> None:
    """Raise Denied unless this is an account that may hold a reservation."""
    if not is_user(user):
        raise Denied("not a user name")
    try:
        uid = pwd.getpwnam(user).pw_uid
    except KeyError:
        raise Denied("no such account", is_odd=False) from None
    if uid < MIN_UID:
        raise Denied("system account")


def count_refusal(user: str) -> None:
    """Tell the agent, if it listens and has room; a count that is lost is not missed."""
    try:
        import _socket  # what `socket` wraps

        sender = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
        sender.setblocking(False)
        sender.sendto(f"refused {user if is_user(user) else '-'}".encode(), LOGINS)
    except Exception as error:  # no agent, no socket: the refusal stands all the same
        syslog.syslog(syslog.LOG_DEBUG, f"not counted reason={error!a:.200}")


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
        text = cache.read(found.st_size)
    try:
        return parse_json(text.decode())
    except (ValueError, RecursionError, StopIteration, SystemError):
        raise Denied("the cache is damaged: not JSON") from None


class JsonForm:
    """How the cache's JSON is read: numbers stay text, since none of them is needed here."""

    strict = True
    object_hook = None
    parse_int = parse_float = str

    @staticmethod
    def object_pairs_hook(pairs: list[tuple[str, object]]) -> dict[str, object]:
        """Return the object. Raises ValueError for one that says something twice."""
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a name twice")
        return found

    @staticmethod
    def parse_constant(name: str) -> object:
        """Raise ValueError: NaN is not JSON."""
        raise ValueError(name)


def parse_json(text: str) -> object:
    """Return the value. Raises ValueError, RecursionError, StopIteration, SystemError."""
    form = JsonForm()
    try:
        # What `json` itself uses where it is written in C.
        from _json import make_scanner

        # It takes any object with these names.
        scan = make_scanner(form)  # type: ignore[arg-type]
    except (ImportError, AttributeError, TypeError):
        # A Python that has it otherwise: the same by the public way.
        import json

        return json.loads(
            text, parse_int=form.parse_int, parse_float=form.parse_float,
            object_pairs_hook=form.object_pairs_hook, parse_constant=form.parse_constant,
        )  # fmt: skip
    text = text.strip(" \t\r\n")
    value, end = scan(text, 0)
    if end != len(text):
        raise ValueError("more than one value")
    return value


def authorized_keys(policy: object, user: str, now: str, is_local: bool = False) -> list[str]:
    """Return the user's lines at `now`, one for each key, or raise Denied.

    Grants that overlap or touch make one line: sshd takes the first of two lines with the same
    key, so each line carries all devices that the user holds now, and the end of the last
    grant that follows without a gap; `is_local`: as older versions of OpenSSH read it.
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
        end = last_end(with_key, now)
        expiry = local_expiry(end) if is_local else utc_expiry(end)
        options = [OPTIONS, f'expiry-time="{expiry}"']
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


def is_made_of(text: str, characters: str) -> bool:
    """Say whether the text has some characters, and none but these."""
    return text != "" and text.strip(characters) == ""


def is_user(text: str) -> bool:
    """Say whether it is the plain name of a person's account: [a-z_][a-z0-9_-]{0,31}."""
    return (
        is_made_of(text, f"{LETTERS}{DIGITS}_-")
        and is_made_of(text[0], f"{LETTERS}_")
        and len(text) <= 32
    )


def is_key(value: object) -> bool:
    """Say whether it is a key's type and blob: no options, no comment, no second line."""
    if not isinstance(value, str):
        return False
    kind, _, blob = value.partition(" ")
    body = blob.rstrip("=")
    return (
        is_made_of(kind, f"{LETTERS}{DIGITS}@.-")
        and is_made_of(body, f"{CAPITALS}{LETTERS}{DIGITS}+/")
        and len(blob) - len(body) <= 2
    )


def is_variable(item: tuple[object, object]) -> bool:
    """Say whether it is the name and value of a variable that a grant may set."""
    name, value = item
    if not isinstance(name, str) or not isinstance(value, str):
        return False
    vendor, _, rest = name.partition("_")
    return (
        vendor in ("ASCEND", "CUDA")
        and is_made_of(rest, f"{CAPITALS}_")
        and (value == "" or is_made_of(value, f"{CAPITALS}{LETTERS}{DIGITS},:._-"))
    )


def read_time(value: object) -> str:
    """Return a policy's time as text of fixed width, which sorts as the times do."""
    if not isinstance(value, str) or value[-1:] != "Z":
        raise Denied("the cache is damaged: a time")
    whole, point, fraction = value[:-1].partition(".")
    year, month, day = whole[:4], whole[5:7], whole[8:10]
    hour, minute, second = whole[11:13], whole[14:16], whole[17:]
    digits = year + month + day + hour + minute + second
    if (
        whole[4:5] + whole[7:8] + whole[10:11] + whole[13:14] + whole[16:17] != "--T::"
        or not is_made_of(digits + fraction, DIGITS)
        or len(digits) != 14
        or not (1 <= len(fraction) <= 6 if point else fraction == "")
        or not (1 <= int(month) <= 12 and 1 <= int(day) <= 31)
        or not (int(hour) < 24 and int(minute) < 60 and int(second) < 60)
    ):
        raise Denied("the cache is damaged: a time")
    return f"{digits}.{fraction.ljust(6, '0')}"


def utc_now() -> str:
    """Return the wall clock in the form of `read_time`."""
    seconds, nanoseconds = divmod(time.time_ns(), 10**9)
    return f"{time.strftime('%Y%m%d%H%M%S', time.gmtime(seconds))}.{nanoseconds // 1000:06d}"


def utc_expiry(when: str) -> str:
    """Return sshd's expiry-time. Z, for UTC, needs OpenSSH 9.1; sshd denies at that second."""
    return f"{when[:14]}Z"


def local_expiry(when: str) -> str:
    """Return sshd's expiry-time for OpenSSH 7.7 to 9.0, which knows local time only.

    misc.c, parse_absolute_time: mktime(3) with tm_isdst 0. So a time in summer is written in
    the zone's standard time too, and the hour that autumn has twice means two hours. The C
    library is asked what sshd will make of the text; where no text means `when`, as where a
    zone's standard time changes, the text means an earlier time.
    """
    from datetime import datetime, timezone

    year, month, day = int(when[:4]), int(when[4:6]), int(when[6:8])
    hour, minute, second = int(when[8:10]), int(when[10:12]), int(when[12:14])
    end = datetime(year, month, day, hour, minute, second, tzinfo=timezone.utc).timestamp()  # noqa: UP017  3.7
    shown = end
    for _ in range(4):
        shown -= as_sshd_reads(shown) - end
    while as_sshd_reads(shown) > end:
        shown -= 15 * 60
    return time.strftime("%Y%m%d%H%M%S", time.gmtime(shown))


def as_sshd_reads(shown: float) -> float:
    """Return when it is, to sshd, what a clock in Greenwich shows at `shown`."""
    return time.mktime((*time.gmtime(shown)[:6], 0, 0, 0))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
