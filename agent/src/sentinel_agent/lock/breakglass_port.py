"""Sees to it that the break-glass sshd answers on its port; makes its folder anew if gone.

It starts and stops no sshd: systemd does, or whoever started it.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

from .. import commands
from .sshd import PRIVSEP_FOLDER
from .sshd_listener import BREAKGLASS_CONFIG, greets

# Each look is a connection, of which sshd writes a line in its log.
LOOK_EVERY_S = 60.0
# A restart is over in seconds, and so should the report of it be.
LOOK_AGAIN_S = 5.0
# sshd.c, main(): the folder is the one that it was compiled with.
_MISSING = re.compile(r"Missing privilege separation directory: (/\S+)")


class BreakglassPort:
    """Looks at the port once in a while, and at sshd's folder each time."""

    def __init__(self, privsep: Path = PRIVSEP_FOLDER) -> None:
        self._privsep = privsep
        self._was_there = False
        self._problem = ""
        self._next_monotonic_s = 0.0

    def look(self, port: int) -> tuple[str, str]:
        """Return what is wrong and what was put right, both empty where all is well."""
        repaired = ""
        if self._privsep.is_dir():
            self._was_there = True
        elif self._was_there:
            # Whatever unit stopped and took it along: sshd refuses everybody without it.
            repaired = _make(self._privsep)
            self._next_monotonic_s = 0.0
        now = time.monotonic()
        if now < self._next_monotonic_s:
            return self._problem, repaired
        self._problem = ""
        if not greets("127.0.0.1", port):
            why = _why()
            if match := _MISSING.search(why):
                # sshd knows best which folder it was built to use.
                self._privsep = Path(match[1])
                repaired = _make(self._privsep)
            if not (match and greets("127.0.0.1", port)):
                self._problem = f"break-glass: port {port} does not answer: {why}"
        pause_s = LOOK_AGAIN_S if self._problem else LOOK_EVERY_S
        self._next_monotonic_s = time.monotonic() + pause_s
        return self._problem, repaired


def _make(folder: Path) -> str:
    """Make sshd's folder, which nobody but root may write; return what to say of it."""
    try:
        folder.mkdir(mode=0o755)
        # The agent's umask is tighter.
        folder.chmod(0o755)
    except OSError as error:
        return f"break-glass: {folder} is missing and cannot be made: {error.strerror}"
    return f"break-glass: {folder} was missing, sshd needs it; it was made anew"


def _why() -> str:
    """Return what sshd itself has against starting, or where to look."""
    done = commands.run(["sshd", "-t", "-f", BREAKGLASS_CONFIG])
    if done.status != 0:
        return done.reason
    return "its configuration is valid; see `systemctl status sentinel-breakglass-sshd`"
