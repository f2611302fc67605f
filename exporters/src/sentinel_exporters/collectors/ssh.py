"""Count SSH sessions by user and type. Only read() looks at the machine.

ssh/sessions.py says what a session is, ssh/processes.py reads the process table.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..core import CollectorSettings, Metric, Sample, Scrape
from ..owners import PROC, user_name
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
METRICS = (SESSIONS, OLDEST, NEWEST, CONNECTIONS, USER_CONNECTIONS, USER_CHANNELS)


@dataclass(frozen=True)
class Reading:
    """What belongs to sshd at one time, and the names of the users that it runs as."""

    processes: tuple[Process, ...]
    users: Mapping[int, str]


def is_present(_settings: CollectorSettings) -> bool:
    """Whether an SSH server is installed."""
    path = os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin"
    return shutil.which("sshd", path=path) is not None


def read(_settings: CollectorSettings, proc: Path = PROC) -> Reading:
    """Read the process table.

    Raises CollectorError when other users' processes are hidden.
    """
    processes = read_processes(proc)
    uids = {one.uid for one in processes if one.is_sshd and one.uid is not None}
    return Reading(processes, {uid: user_name(uid) for uid in uids})


def parse(reading: Reading) -> Scrape:
    """Return the sessions of who is there; who is not has no series."""
    return Scrape(_session_samples(find_connections(reading.processes, reading.users)))


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
