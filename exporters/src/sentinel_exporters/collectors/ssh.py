"""Count SSH sessions and logins. Only read() looks at the machine, and at the counts of logins.

ssh/sessions.py says what a session is and ssh/messages.py what a failed login is.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from pydantic import field_validator

from ..core import CollectorSettings, Metric, Sample, Scrape
from ..owners import PROC, user_name
from ..ssh.login_log import LoginLog, LoginReading
from ..ssh.processes import read_processes
from ..ssh.sessions import Connection, Process, find_connections

SESSIONS = Metric(
    "ssh_sessions",
    "gauge",
    "Open SSH sessions: pty with a terminal, exec without (commands, sftp), forward-only for a "
    "connection that has neither.",
    ("user", "type"),
)
OLDEST = Metric(
    "ssh_session_oldest_start_time_seconds",
    "gauge",
    "When the oldest of these sessions began, in Unix time.",
    ("user", "type"),
    "seconds",
)
NEWEST = Metric(
    "ssh_session_newest_start_time_seconds",
    "gauge",
    "When the newest of these sessions began, in Unix time.",
    ("user", "type"),
    "seconds",
)
CONNECTIONS = Metric("ssh_connections", "gauge", "Open SSH connections that are logged in.")
USER_CONNECTIONS = Metric(
    "ssh_user_connections", "gauge", "Open SSH connections, by who is logged in.", ("user",)
)
USER_CHANNELS = Metric(
    "ssh_user_channels",
    "gauge",
    "Terminals and commands that are open in the user's connections.",
    ("user",),
)
LOGINS = Metric(
    "ssh_logins_total",
    "counter",
    "SSH connections that were let in, by whom and how.",
    ("user", "method"),
)
FAILURES = Metric(
    "ssh_login_failures_total",
    "counter",
    "SSH connections that were not let in, by why.",
    ("reason",),
)
LOG_READABLE = Metric(
    "ssh_login_log_readable",
    "gauge",
    "1 while logins are counted, and from what: journal, file; none is always 0.",
    ("source",),
)
COUNTED_SINCE = Metric(
    "ssh_login_count_start_time_seconds",
    "gauge",
    "Since when logins are counted, in Unix time; what was before is not in the counts.",
    (),
    "seconds",
)
METRICS = (
    SESSIONS, OLDEST, NEWEST, CONNECTIONS, USER_CONNECTIONS, USER_CHANNELS, LOGINS, FAILURES,
    LOG_READABLE, COUNTED_SINCE,
)  # fmt: skip


class Settings(CollectorSettings):
    """The section `[ssh]`."""

    # Where logins are counted from: the journal or sshd's log file, the first that can be
    # read; "journal", a file's path, or "none".
    login_log: str = "auto"

    @field_validator("login_log")
    @classmethod
    def _check_login_log(cls, value: str) -> str:
        if value not in {"auto", "journal", "none"} and not value.startswith("/"):
            raise ValueError('must be "auto", "journal", "none" or an absolute path')
        return value


@dataclass(frozen=True)
class Reading:
    """What belongs to sshd at one time, the names of the users that it runs as, the logins."""

    processes: tuple[Process, ...]
    users: Mapping[int, str]
    logins: LoginReading = field(default_factory=LoginReading)


def is_present(_settings: Settings) -> bool:
    """Whether an SSH server is installed."""
    path = os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin"
    return shutil.which("sshd", path=path) is not None


def read(settings: Settings, proc: Path = PROC) -> Reading:
    """Read the process table, and the logins by now; the first call begins to count them.

    Raises CollectorError when other users' processes are hidden.
    """
    logins = LoginReading() if settings.login_log == "none" else _log(settings.login_log).read()
    processes = read_processes(proc)
    uids = {one.uid for one in processes if one.is_sshd and one.uid is not None}
    return Reading(processes, {uid: user_name(uid) for uid in uids}, logins)


@cache
def _log(setting: str) -> LoginLog:
    # It counts for as long as the process runs.
    return LoginLog(setting)


def parse(reading: Reading) -> Scrape:
    """Return the sessions of who is there, and the logins since they are counted."""
    connections = find_connections(reading.processes, reading.users)
    return Scrape([*_session_samples(connections), *_login_samples(reading.logins)])


def _session_samples(connections: Sequence[Connection]) -> list[Sample]:
    starts: dict[tuple[str, str], list[float]] = {}
    connected: Counter[str] = Counter()
    channels: Counter[str] = Counter()
    for connection in connections:
        connected[connection.user] += 1
        channels[connection.user] += connection.channels
        for session in connection.sessions:
            starts.setdefault((connection.user, session.type), []).append(session.started)
    samples = [CONNECTIONS.sample(len(connections))]
    for user in sorted(connected):
        samples.append(USER_CONNECTIONS.sample(connected[user], user))
        samples.append(USER_CHANNELS.sample(channels[user], user))
    for key, times in sorted(starts.items()):
        samples.append(SESSIONS.sample(len(times), *key))
        samples.append(OLDEST.sample(min(times), *key))
        samples.append(NEWEST.sample(max(times), *key))
    return samples


def _login_samples(logins: LoginReading) -> list[Sample]:
    samples = [LOG_READABLE.sample(float(logins.source != "none"), logins.source)]
    if logins.started is None:
        return samples
    samples.append(COUNTED_SINCE.sample(logins.started))
    samples += [LOGINS.sample(count, *key) for key, count in sorted(logins.logins.items())]
    samples += [FAILURES.sample(count, why) for why, count in sorted(logins.failures.items())]
    return samples
