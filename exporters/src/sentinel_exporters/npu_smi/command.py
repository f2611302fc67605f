"""Run npu-smi and its like. Decodes nothing."""

from __future__ import annotations

import atexit
import contextlib
import os
import selectors
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence

from .errors import NoAnswer, NpuSmiError

# Servers with 16 chips and their processes give some 10 KiB.
_MAX_BYTES = 4 << 20
_CHUNK_BYTES = 1 << 16

_running: set[subprocess.Popen[bytes]] = set()


def is_installed(command: str) -> bool:
    """Whether the command's program is there."""
    try:
        words = shlex.split(command)
    except ValueError:
        return False
    return bool(words) and shutil.which(words[0]) is not None


def run_tool(command: str, arguments: Sequence[str], timeout_s: float) -> str:
    """Return what the command prints.

    Raises NpuSmiError when it cannot be started, prints nothing, or more than any such tool
    has to say, and NoAnswer when it takes too long. Its exit status is not judged: what there
    is to say is in the text.
    """
    deadline = time.monotonic() + timeout_s
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
        _running.add(process)
        try:
            out, errors = _read_to_end(process, deadline)
        except TimeoutError as error:
            _kill(process)
            raise NoAnswer(f"no end after {timeout_s:.1f} s") from error
        except BaseException:
            _kill(process)
            raise
        finally:
            _running.discard(process)
    text = out.decode(errors="replace")
    if text.strip():
        return text
    reason = " ".join(errors.decode(errors="replace").split())[:200]
    raise NpuSmiError(f"no output (exit status {process.returncode}) {reason}".rstrip())


def _read_to_end(process: subprocess.Popen[bytes], deadline: float) -> tuple[bytes, bytes]:
    """Return what it writes on both outputs until it has ended.

    Raises TimeoutError, and NpuSmiError for more than _MAX_BYTES: communicate() would keep
    all that a tool writes that has lost its way.
    """
    out, errors = bytearray(), bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ, out)  # type: ignore[arg-type]
        selector.register(process.stderr, selectors.EVENT_READ, errors)  # type: ignore[arg-type]
        while selector.get_map():
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise TimeoutError
            for key, _ in selector.select(left_s):
                chunk = os.read(key.fd, _CHUNK_BYTES)
                if not chunk:
                    selector.unregister(key.fileobj)
                key.data.extend(chunk)
                if len(key.data) > _MAX_BYTES:
                    raise NpuSmiError(f"more than {_MAX_BYTES >> 20} MiB of output")
    try:
        process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired as error:
        raise TimeoutError from error
    return bytes(out), bytes(errors)


def _kill(process: subprocess.Popen[bytes]) -> None:
    # Nobody has waited for it or for what holds its pipes, so that its group's number is not
    # another's by now.
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)


@atexit.register
def _kill_all() -> None:
    """Leave nothing behind: the threads that wait for the tools end with the process."""
    for process in list(_running):
        if process.poll() is None:
            _kill(process)
