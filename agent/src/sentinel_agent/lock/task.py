"""Brings sshd and PAM to the mode in force, and keeps them there. switch.py does the work.

It acts only on a node where `sentinel-agent install` was run; elsewhere it reports.
"""

from __future__ import annotations

import contextlib
import logging
import time
from dataclasses import dataclass
from pathlib import Path

from ..config import Config
from ..errors import LockError, StateError
from ..install.record import RECORD, load_record
from ..policy.held import HeldPolicy
from ..service.status import Status
from ..service.tasks import BACKOFF_MAX_S, Step, backoff_s
from . import switch
from .breakglass import FOLDER, find_operators
from .breakglass_port import BreakglassPort
from .drop_in import GET_KEYS
from .files import PAM_FILE, find_foreign_commands
from .sshd import MAIN_CONFIG
from .switch import State

log = logging.getLogger(__name__)

# A failed attempt runs sshd and may reload it: not every few seconds.
RETRY_MIN_FAILURES = 3
RETRY_MAX_S = 600.0
# How often it is looked whether an operator could get in; it runs ssh-keygen.
OPERATORS_EVERY_S = 60.0
# What was repaired is seen by a person who looks at the node's problems once in a while.
REPORT_FOR_S = 900.0


@dataclass
class _Failure:
    """Why the lock is not where it should be, and when it is tried again."""

    text: str
    wanted: State
    seen: tuple[object, ...]
    count: int
    retry_monotonic_s: float


class LockTask:
    """One step looks at a few small files; sshd is asked only when something must change."""

    name = "lock"
    retry_max_s = BACKOFF_MAX_S

    def __init__(self, config: Config, held: HeldPolicy, status: Status) -> None:
        self._config = config
        self._held = held
        self._status = status
        self._failure: _Failure | None = None
        self._was_locked = False
        self._warnings: tuple[str, ...] = ()
        self._warned_monotonic_s = -OPERATORS_EVERY_S
        self._port = BreakglassPort()
        # What was put back, and until when that is reported.
        self._repairs: list[tuple[str, float]] = []

    def step(self) -> Step:
        """Look, and change what must be changed. Raises LockError where there is no sshd."""
        config = self._config
        is_ours = (config.state_dir / RECORD).exists()
        if is_ours and switch.recover(config):
            self._repaired("a change of the lock that was cut off is undone")
        found = self._status.lock = switch.state(config)
        wanted = self._wanted()
        problems: list[str] = []
        if wanted is None or found == wanted:
            self._failure = None
        elif is_ours:
            problems = self._bring(found, wanted)
        elif wanted == "locked":
            drift = "; ".join(switch.drift(config))
            problems = [
                f"enforce is not in force, `sentinel-agent install` was not run: {drift}"
            ]
        self._was_locked = self._status.lock == "locked"
        if is_ours:
            problems += self._look_at_breakglass_port()
        if self._was_locked:
            problems += self._look_for_operators()
            problems += [
                f"another AuthorizedKeysCommand is passed over, {line}"
                for line in find_foreign_commands(config)
            ]
        now = time.monotonic()
        self._repairs = [(text, until) for text, until in self._repairs if now < until]
        problems += [text for text, _ in self._repairs]
        return Step(config.reconcile_s, tuple(problems))

    def _wanted(self) -> State | None:
        """Return where the mode wants the lock; None before the first policy."""
        policy = self._held.policy
        if policy is None:
            return None
        return "locked" if policy.mode == "enforce" and self._config.enforce else "open"

    def _bring(self, found: State, wanted: State) -> list[str]:
        drift = "; ".join(switch.drift(self._config))
        seen = self._see()
        failure = self._failure
        if failure is not None and (failure.wanted, failure.seen) != (wanted, seen):
            failure = None  # something was changed: perhaps the cause
        if failure is not None and time.monotonic() < failure.retry_monotonic_s:
            return [failure.text]
        try:
            if wanted == "locked":
                self._warnings = tuple(switch.engage(self._config))
                self._warned_monotonic_s = time.monotonic()
                if self._was_locked or found == "partial":
                    self._repaired(f"put back: {drift}")
            else:
                switch.release(self._config)
                self._warnings = ()
        except LockError as error:
            count = failure.count + 1 if failure is not None else RETRY_MIN_FAILURES
            pause_s = backoff_s(count, RETRY_MAX_S)
            text = f"sshd is not {wanted}: {error}"
            log.error("lock not changed wanted=%s found=%s reason=%s", wanted, found, error)
            self._failure = _Failure(text, wanted, seen, count, time.monotonic() + pause_s)
            self._status.lock = switch.state(self._config)
            return [text]
        self._failure = None
        self._status.lock = switch.state(self._config)
        return []

    def _see(self) -> tuple[object, ...]:
        """Return a sign that changes when somebody works on what the lock depends on."""
        folders = (FOLDER, self._config.sshd_drop_in.parent, Path(GET_KEYS).parent)
        paths = [*folders, MAIN_CONFIG, PAM_FILE, Path("/etc/group"), self._config.state_dir]
        for folder in folders:
            with contextlib.suppress(OSError):
                paths += sorted(folder.iterdir())
        signs: list[object] = []
        for path in paths:
            with contextlib.suppress(OSError):
                found = path.stat()
                # Not the state folder's times: the agent itself writes there.
                times = () if path == self._config.state_dir else (found.st_mtime_ns,)
                signs.append((path, found.st_mode, found.st_uid, found.st_gid, *times))
        return tuple(signs)

    def _look_for_operators(self) -> tuple[str, ...]:
        """Return what is wrong with the break-glass accounts; looked at once in a while."""
        now = time.monotonic()
        if now - self._warned_monotonic_s >= OPERATORS_EVERY_S:
            self._warned_monotonic_s = now
            found = find_operators(self._config.breakglass_group)
            self._warnings = tuple(
                f"break-glass: {one.user}: {one.problem}"
                for one in found
                if one.problem and one.is_expected
            )
            if all(one.problem for one in found):
                self._warnings += ("break-glass: nobody could get in past the lock",)
        return self._warnings

    def _look_at_breakglass_port(self) -> list[str]:
        """Return why operators cannot come by their own port, if one was installed."""
        try:
            record, _ = load_record(self._config.state_dir)
        except StateError as error:
            return [f"break-glass: the port is not known: {error}"]
        if record is None or not record.breakglass_port:
            return []
        problem, repaired = self._port.look(record.breakglass_port)
        if repaired:
            self._repaired(repaired)
        return [problem] if problem else []

    def _repaired(self, text: str) -> None:
        log.warning("lock repaired %s", text)
        self._repairs.append((text, time.monotonic() + REPORT_FOR_S))
