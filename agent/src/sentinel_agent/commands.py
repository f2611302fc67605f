"""Runs the system's programs with a clean environment and a limit. It interprets no output."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

TIMEOUT_S = 30.0
# A frozen program's LD_LIBRARY_PATH, or root's LC_ALL, must not reach sshd or ssh.
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "HOME": "/root",
}


@dataclass(frozen=True)
class Done:
    """What a command left: its exit status (127: not found, 124: too slow) and its output."""

    status: int
    output: str
    errors: str

    @property
    def reason(self) -> str:
        """What it said went wrong, in one line."""
        lines = [line.strip() for line in (self.errors or self.output).splitlines()]
        text = "; ".join(line for line in lines if line)
        return ascii(text)[1:-1][:400] or f"exit status {self.status}"


def run(argv: Sequence[str], *, timeout_s: float = TIMEOUT_S, stdin: str = "") -> Done:
    """Run a command and return what it left; it never raises for what the command does."""
    try:
        done = subprocess.run(
            list(argv), input=stdin, capture_output=True, text=True, errors="replace",
            check=False, timeout=timeout_s, env=ENVIRONMENT, cwd="/",
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Done(124, "", f"{argv[0]}: not done after {timeout_s:g} s")
    except OSError as error:
        return Done(127, "", f"{argv[0]}: {error.strerror}")
    return Done(done.returncode, done.stdout, done.stderr)
