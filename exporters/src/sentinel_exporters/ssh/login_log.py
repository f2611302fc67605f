"""Keep counts of logins from whatever log can be read, in a thread of its own.

It begins with what is written after its start: what was before is not counted.
"""

from __future__ import annotations

import atexit
import logging
import pwd
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from ..errors import CollectorError
from ..run import describe
from . import journal
from .journal import Journal
from .log_file import LogFile
from .logins import LoginCounts

log = logging.getLogger(__name__)

# Debian's and Ubuntu's, and that of Red Hat's, openEuler and SUSE's relatives.
FILES = (Path("/var/log/auth.log"), Path("/var/log/secure"))
# How often a file is looked at, and how often a log that cannot be read is tried again.
_POLL_S = 0.5
RETRY_S = 2.0
# A directory service may be asked for a name; not for each line of a flood.
_UNKNOWN_MAX = 10_000
UNKNOWN_S = 60.0

Source = Literal["journal", "file", "none"]


@dataclass(frozen=True)
class LoginReading:
    """The counts by now, since `started` (Unix time; None: no log could be read so far).

    `source` is the log that is followed, "none" where there is none that can be read now.
    """

    source: Source = "none"
    started: float | None = None
    logins: Mapping[tuple[str, str], int] = field(default_factory=dict)
    failures: Mapping[str, int] = field(default_factory=dict)


class LoginLog:
    """The counts, and the thread that follows the log."""

    def __init__(self, setting: str, retry_s: float = RETRY_S) -> None:
        """`setting`: auto, journal, or a log file's path; `retry_s` after it was not there."""
        self._setting = setting
        self._retry_s = retry_s
        self._counts = LoginCounts(UserNames().find)
        self._followed: Journal | LogFile | None = None
        self._reason = ""
        self._reading = LoginReading()
        self._closed = threading.Event()
        # By now, so that the first scrape knows whether there is a log.
        self._open()
        self._thread = threading.Thread(target=self._follow, name="ssh-login-log", daemon=True)
        self._thread.start()
        # journalctl would stay until it has something to write.
        atexit.register(self.close)

    def close(self) -> None:
        """Follow the log no longer; the counts stay."""
        self._closed.set()
        self._thread.join(5)
        atexit.unregister(self.close)

    def read(self) -> LoginReading:
        """Return the counts of this moment. Safe to call from any thread."""
        return self._reading

    def _follow(self) -> None:
        while not self._closed.is_set():
            if self._followed is None:
                self._open()
            if self._followed is None:
                self._closed.wait(self._retry_s)
                continue
            try:
                self._take(self._followed)
            except Exception as error:  # the thread's boundary: a bug must not end it unseen
                # The log is kept: it knows where to go on when it can be read again.
                self._reading = replace(self._reading, source="none")
                self._complain(describe(error))
                self._closed.wait(self._retry_s)
        if self._followed is not None:
            self._followed.close()

    def _open(self) -> None:
        """Begin to follow the first log that can be read, if there is one."""
        problems = []
        for candidate in self._candidates():
            try:
                self._followed = Journal() if candidate is None else LogFile(candidate)
            except CollectorError as error:
                problems.append(str(error))
                continue
            self._reading = LoginReading(started=time.time())
            self._publish(self._followed)
            log.info("logins are counted log=%s", candidate or "journal")
            return
        self._complain("; ".join(problems))

    def _candidates(self) -> list[Path | None]:
        """Return what to try, in order; None is the journal, whose senders nobody can forge."""
        if self._setting == "auto":
            return [*([None] if journal.is_readable() else []), *FILES]
        return [None] if self._setting == "journal" else [Path(self._setting)]

    def _take(self, followed: Journal | LogFile) -> None:
        if isinstance(followed, Journal):
            entries = followed.read(_POLL_S)
        else:
            entries = followed.read()
            if not entries:
                self._closed.wait(_POLL_S)
        for pid, message in entries:
            self._counts.take(pid, message, time.monotonic())
        self._counts.settle(time.monotonic())
        self._publish(followed)

    def _publish(self, followed: Journal | LogFile) -> None:
        self._reading = LoginReading(
            "journal" if isinstance(followed, Journal) else "file",
            self._reading.started,
            dict(self._counts.logins),
            dict(self._counts.failures),
        )
        self._reason = ""

    def _complain(self, reason: str) -> None:
        # Once for each reason: it is tried again and again.
        if reason != self._reason:
            log.warning("logins are not counted reason=%s", reason)
        self._reason = reason


def _look_up(logged: str) -> str | None:
    # Only the names of those whom sshd let in come here. sshd doubles a backslash, which a
    # Windows domain's users have in their names.
    try:
        return pwd.getpwnam(logged.replace("\\\\", "\\")).pw_name
    except (KeyError, ValueError):
        return None


class UserNames:
    """The user database's names for those in the log, each asked for once.

    One that it does not know is asked for anew after a while: a directory may have been away.
    """

    def __init__(
        self,
        look_up: Callable[[str], str | None] = _look_up,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._look_up = look_up
        self._clock = clock
        self._known: dict[str, str] = {}
        self._unknown: set[str] = set()
        self._forgot_s = clock()

    def find(self, logged: str) -> str | None:
        """Return the name of the account, or None where there is none of that name."""
        now_s = self._clock()
        if now_s - self._forgot_s >= UNKNOWN_S or len(self._unknown) >= _UNKNOWN_MAX:
            self._unknown.clear()
            self._forgot_s = now_s
        if logged in self._unknown:
            return None
        if logged not in self._known:
            name = self._look_up(logged)
            if name is None:
                self._unknown.add(logged)
                return None
            self._known[logged] = name
        return self._known[logged]
