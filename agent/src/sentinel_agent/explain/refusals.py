"""The last refusals of a user, for `explain`, as the two gates logged them. It asks no gate."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

from .. import commands
from ..lock.check_login import NOBODY
from ..sessions.plan import utc
from .case import Case
from .findings import Line, Section, counted, when

REFUSALS_MAX = 3
REASON_CHARACTERS_MAX = 80
LOGS = (Path("/var/log/auth.log"), Path("/var/log/secure"), Path("/var/log/syslog"))
LOG_BYTES = 256 * 1024
JOURNAL = Path("/run/systemd/journal")
GATES_SAY = ("sentinel-get-keys", "sentinel-pam-gate")
# The times of `journalctl -o short-unix`, of RFC 5424 and of RFC 3164, which has no year.
REFUSAL = re.compile(
    r"(?:<\d+>)?(?:(?P<unix>\d+\.\d+)|(?P<iso>\d{4}-\d\d-\d\dT\S+)"
    r"|(?P<yearless>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d)) (?:\S+ )?sentinel-(?P<gate>[a-z-]+)"
    r"(?:\[\d+\])?: (?:denied|refused) user='?(?P<user>[^ ']+)'? reason=(?P<reason>.*)"
)


def find_refusals(case: Case) -> Section:
    """The last refusals of this user; those of one minute with one reason are one line.

    sshd asks get-keys once for each key that is offered.
    """
    if case.user == NOBODY:  # it stands for nobody who ever tried to log in
        return Section("refused", ())
    lines = []
    for text, same in itertools.groupby(_refusals(case)):
        times = len(list(same))
        lines.append(Line(f"{text} ({counted(times, 'time')})" if times > 1 else text))
    return Section("refused", lines[-REFUSALS_MAX:])


def _refusals(case: Case) -> Iterator[str]:
    for line in _logged():
        match = REFUSAL.match(line)
        if match is None or match["user"] != case.user:
            continue
        moment = _moment(match, case.now)
        if moment is not None:
            # Nothing in a log may move the cursor of who reads it.
            reason = ascii(match["reason"])[1:-1][:REASON_CHARACTERS_MAX]
            yield f"{when(moment, case.now)} {match['gate']}: {reason}"


def _logged() -> list[str]:
    """Return the gates' lines of one log: syslog may have written them into several."""
    if JOURNAL.exists():
        tags = [part for tag in GATES_SAY for part in ("-t", tag)]
        done = commands.run(["journalctl", "-q", "-o", "short-unix", "-n", "500", *tags])
        return done.output.splitlines()
    for path in LOGS:
        found = [line for line in _tail(path) if any(tag in line for tag in GATES_SAY)]
        if found:
            return found
    return []


def _moment(match: re.Match[str], now: datetime) -> datetime | None:
    try:
        if match["unix"]:
            return utc(float(match["unix"]))
        if match["iso"]:
            return datetime.fromisoformat(match["iso"]).astimezone()
        year = now.astimezone().year
        text = f"{year} {match['yearless']}"
        moment = datetime.strptime(text, "%Y %b %d %H:%M:%S").astimezone()
    except ValueError:
        return None
    return moment.replace(year=year - 1) if moment > now + timedelta(days=1) else moment


def _tail(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LOG_BYTES))
            return file.read(LOG_BYTES).decode(errors="replace").splitlines()
    except OSError:
        return []
