"""Run npu-smi. Decodes nothing."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess

from .errors import NpuSmiError


def is_installed(command: str) -> bool:
    """Whether the command's program is there."""
    words = shlex.split(command)
    return bool(words) and shutil.which(words[0]) is not None


def run_npu_smi(command: str, *arguments: str, timeout_s: float) -> str:
    """Return what the command prints.

    Raises NpuSmiError when it cannot be started, takes too long or prints nothing. Its exit
    status is not judged: what there is to say is in the text.
    """
    shown = " ".join([command, *arguments])
    try:
        done = subprocess.run(
            [*shlex.split(command), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired as error:
        raise NpuSmiError(f"{shown}: no end after {timeout_s:.1f} s") from error
    except (OSError, ValueError) as error:
        raise NpuSmiError(f"{shown}: {error}") from error
    text = done.stdout.decode(errors="replace")
    if text.strip():
        return text
    reason = " ".join(done.stderr.decode(errors="replace").split())[:200]
    raise NpuSmiError(f"{shown}: no output (exit status {done.returncode}) {reason}".rstrip())
