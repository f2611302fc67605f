"""Run npu-smi and its like. Decodes nothing."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Sequence

from .errors import NoAnswer, NpuSmiError


def is_installed(command: str) -> bool:
    """Whether the command's program is there."""
    try:
        words = shlex.split(command)
    except ValueError:
        return False
    return bool(words) and shutil.which(words[0]) is not None


def run_tool(command: str, arguments: Sequence[str], timeout_s: float) -> str:
    """Return what the command prints.

    Raises NpuSmiError when it cannot be started or prints nothing, and NoAnswer when it takes
    too long. Its exit status is not judged: what there is to say is in the text.
    """
    try:
        process = subprocess.Popen(
            [*shlex.split(command), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "LC_ALL": "C"},
            # A group of its own, to end what a wrapper has started too.
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        raise NpuSmiError(str(error)) from error
    with process:
        try:
            out, errors = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            # Somebody of the group holds the pipes still, so that its number is not reused.
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
            raise NoAnswer(f"no end after {timeout_s:.1f} s") from error
    text = out.decode(errors="replace")
    if text.strip():
        return text
    reason = " ".join(errors.decode(errors="replace").split())[:200]
    raise NpuSmiError(f"no output (exit status {process.returncode}) {reason}".rstrip())
