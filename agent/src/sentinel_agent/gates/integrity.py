"""Whether the two gates on the disk, get-keys and pam-gate, are those that the agent ships.

It reads no policy and ends nobody; it writes nothing but a gate that is not as it was shipped,
and that only on a node where `sentinel-agent install` was run.

sshd itself refuses a get-keys that others than root can write. One that root replaced (a
package, a mistake, an intruder's first step) it takes: then pam-gate still asks for a
reservation, and this puts the gate back.
"""

from __future__ import annotations

import logging
import os
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..config import Config
from ..errors import StateError
from ..files import identity, replace_file
from ..install.record import RECORD
from ..lock.change import restore_context
from ..lock.drop_in import GET_KEYS
from ..lock.pam import PAM_GATE
from ..service.tasks import Step

log = logging.getLogger(__name__)

# Beside this module, also in the frozen program.
SHIPPED = {
    Path(GET_KEYS): Path(__file__).with_name("get_keys.py"),
    Path(PAM_GATE): Path(__file__).with_name("pam_gate"),
}
PROGRAM_MODE = 0o755
# How often a file is read that looks untouched.
READ_EVERY_S = 60.0
PROGRAM_BYTES_MAX = 1024 * 1024
# Somebody has to know that a gate was changed, also when it was put back at once.
REPORT_FOR_S = 3600.0


@dataclass(frozen=True)
class Fault:
    """What is wrong with a gate, or with a folder above it; `path` is the gate's."""

    path: Path
    reason: str
    is_mendable: bool = True

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def find_fault(path: Path, shipped: bytes) -> Fault | None:
    """Return what is wrong with the installed gate, None when it is the one shipped."""
    for folder in path.parents:
        try:
            if _is_open_to_others(folder.stat()):
                reason = f"others than root can write in {folder}"
                return Fault(path, reason, is_mendable=False)
        except OSError as error:
            return Fault(path, f"{folder}: {error.strerror}", is_mendable=False)
    try:
        opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return Fault(path, f"cannot be read: {error.strerror}")
    try:
        found = os.fstat(opened)
        reason = ""
        if not stat.S_ISREG(found.st_mode):
            reason = "not a file"
        elif _is_open_to_others(found):
            reason = "others than root can write it"
        elif stat.S_IMODE(found.st_mode) != PROGRAM_MODE:
            reason = f"its mode is {stat.S_IMODE(found.st_mode):04o}, not 0755"
        elif os.read(opened, PROGRAM_BYTES_MAX) != shipped:
            reason = "not the program that sentinel-agent ships"
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
    finally:
        os.close(opened)
    return Fault(path, reason) if reason else None


def _is_open_to_others(found: os.stat_result) -> bool:
    """sshd's own rule for programs and the folders above them: misc.c, safe_path."""
    return found.st_uid != 0 or bool(found.st_mode & (stat.S_IWGRP | stat.S_IWOTH))


class IntegrityTask:
    """Looks at each gate in each round, and reads it when it changed and once a minute."""

    name = "integrity"

    def __init__(self, config: Config, shipped: Mapping[Path, Path] = SHIPPED) -> None:
        self.retry_max_s = 10.0
        self._pause_s = config.reconcile_s
        # While it or the next is there, the node is locked or may be at any time.
        self._drop_in = config.sshd_drop_in
        # While this is there, the gates are the agent's to put back.
        self._install_file = config.state_dir / RECORD
        self._shipped = shipped
        # The state of each gate's file when it was last read and found sound.
        self._sound: dict[Path, tuple[tuple[int, ...], float]] = {}
        # What was wrong with a gate that was put back, and when.
        self._put_back: dict[Path, tuple[str, float]] = {}

    def step(self) -> Step:
        """Do one round."""
        is_installed = self._install_file.exists()
        if not is_installed and not self._drop_in.exists():
            return Step(self._pause_s)
        problems = []
        for gate in self._shipped:
            fault = self._fault_of(gate)
            if fault is not None and not (is_installed and self._put_right(fault)):
                problems.append(str(fault))
            elif gate in self._put_back:
                reason, at = self._put_back[gate]
                if time.monotonic() - at < REPORT_FOR_S:
                    problems.append(f"{gate}: {reason}; it was put back")
        return Step(self._pause_s, tuple(problems))

    def _fault_of(self, gate: Path) -> Fault | None:
        now = time.monotonic()
        try:
            present = identity(gate.lstat())
        except OSError:
            present = ()
        sound, read_at = self._sound.get(gate, ((), 0.0))
        if present and present == sound and now - read_at < READ_EVERY_S:
            return None
        try:
            # Read anew each time: an update of the agent brings new gates with it, before the
            # new agent runs.
            shipped = self._shipped[gate].read_bytes()
        except OSError as error:
            return Fault(gate, f"nothing to compare it with: {error}", is_mendable=False)
        fault = find_fault(gate, shipped)
        if fault is None:
            self._sound[gate] = (present, now)
        return fault

    def _put_right(self, fault: Fault) -> bool:
        """Put the shipped gate in the place of what is there; say whether that was done."""
        if not fault.is_mendable:
            return False
        try:
            content = self._shipped[fault.path].read_bytes()
            replace_file(fault.path, content, mode=PROGRAM_MODE)
            restore_context(fault.path)
        except (StateError, OSError) as error:
            log.error("gate not put back path=%s reason=%s", fault.path, error)
            return False
        log.error("gate put back path=%s reason=%s", fault.path, fault.reason)
        self._put_back[fault.path] = (fault.reason, time.monotonic())
        return True
