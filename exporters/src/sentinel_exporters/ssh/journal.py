"""Follow what sshds write to systemd's journal, by journalctl. Judges no message.

The journal keeps with each message whose process sent it, as the kernel says: unlike in a log
file, no user can write a message that is taken for sshd's.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
from pathlib import Path

from ..errors import CollectorError
from .log_file import SSHD_TAGS

# Where the journal is kept for good, and where until the next start: systemd-journald(8).
FOLDERS = (Path("/var/log/journal"), Path("/run/log/journal"))
# What root's sshds write. Who the sender is the kernel says; what it calls itself the sender,
# and no more than that is in the journal of a program that ends at once (no _COMM).
_SENDERS = " + ".join(f"_UID=0 SYSLOG_IDENTIFIER={name}" for name in SSHD_TAGS).split()
# Following is of this start of the machine alone, and so is what is followed from.
_JOURNALCTL = (
    "journalctl", "--system", "--boot", "--quiet", "--output=json",
    "--output-fields=MESSAGE,_PID",
)  # fmt: skip
_CHUNK_BYTES = 1 << 16
_BATCH_BYTES = 4 << 20
_LINE_BYTES = 64 << 10
# How long journalctl may take to end when it is told to.
_END_S = 1.0
# And how long to tell the last entry.
_LOOK_S = 5.0


def is_readable() -> bool:
    """Whether there is a system journal that we may read: else journalctl shows our own."""
    return any(
        os.access(path, os.R_OK)
        for folder in FOLDERS
        for path in folder.glob("*/system.journal")
    )


class Journal:
    """A journalctl that follows the journal; one that has ended is started again."""

    def __init__(self) -> None:
        """Follow the journal from now on. Raises CollectorError where that is not possible."""
        self._cursor = _find_end()
        self._rest = b""
        self._output = -1
        self._process = self._start()

    def close(self) -> None:
        """End journalctl."""
        if self._output >= 0:
            self._process.terminate()
            try:
                self._process.wait(_END_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            os.close(self._output)
            self._output = -1

    def read(self, wait_s: float = 0.0) -> list[tuple[int, str]]:
        """Return what sshds have written since, as pid and message; wait so long for some.

        Raises CollectorError when journalctl has ended; the next call starts it again, from
        where it was.
        """
        if self._output < 0:
            self._process = self._start()
        found = []
        for line in self._read_lines(wait_s):
            entry = _decode(line)
            if entry is not None:
                self._cursor, pid, message = entry
                found.append((pid, message))
        return found

    def _start(self) -> subprocess.Popen[bytes]:
        if not is_readable():
            raise CollectorError("the system's journal cannot be read")
        after = [f"--after-cursor={self._cursor}"] if self._cursor else []
        ours, theirs = os.pipe()
        try:
            process = subprocess.Popen(
                [*_JOURNALCTL, "--follow", "--no-tail", *after, *_SENDERS],
                stdin=subprocess.DEVNULL, stdout=theirs, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        except OSError as error:
            os.close(ours)
            raise CollectorError(f"journalctl: {error.strerror}") from error
        finally:
            os.close(theirs)
        os.set_blocking(ours, False)
        self._output, self._rest = ours, b""
        return process

    def _read_lines(self, wait_s: float) -> list[bytes]:
        with selectors.DefaultSelector() as selector:
            selector.register(self._output, selectors.EVENT_READ)
            selector.select(wait_s)
        parts, size, is_over = [self._rest], 0, False
        with contextlib.suppress(BlockingIOError):
            while size < _BATCH_BYTES and not is_over:
                chunk = os.read(self._output, _CHUNK_BYTES)
                parts.append(chunk)
                size += len(chunk)
                is_over = not chunk
        *lines, self._rest = b"".join(parts).split(b"\n")
        if len(self._rest) > _LINE_BYTES:
            self._rest = b""
        if is_over and not lines:
            self.close()
            raise CollectorError("journalctl has ended")
        return lines


def _find_end() -> str:
    """Return the cursor of the sshds' last entry, empty where there is none.

    journalctl itself may take a while until it is where it is to begin (`--lines=0`), and
    leaves out what is written meanwhile. Another's entry would not do: before systemd 256,
    `--after-cursor` leaves out one of those that are asked for, whatever the cursor's is.
    Raises CollectorError.
    """
    try:
        done = subprocess.run(
            [*_JOURNALCTL, "--lines=1", *_SENDERS], stdin=subprocess.DEVNULL,
            capture_output=True, check=True, timeout=_LOOK_S,
        )  # fmt: skip
    except OSError as error:
        raise CollectorError(f"journalctl: {error.strerror}") from error
    except subprocess.SubprocessError as error:
        raise CollectorError(f"journalctl: {error}") from error
    return str(_load(done.stdout).get("__CURSOR", ""))


def _decode(line: bytes) -> tuple[str, int, str] | None:
    """Return cursor, pid and message; None for an entry without them.

    A message that is not UTF-8 is a list of its bytes.
    """
    entry = _load(line)
    cursor, pid, message = (entry.get(key) for key in ("__CURSOR", "_PID", "MESSAGE"))
    if isinstance(message, list) and all(isinstance(one, int) for one in message):
        message = bytes(one & 255 for one in message).decode(errors="replace")
    if not (isinstance(cursor, str) and isinstance(pid, str) and isinstance(message, str)):
        return None
    return (cursor, int(pid), message) if pid.isdecimal() else None


def _load(line: bytes) -> dict[str, object]:
    """Return an entry's fields, none of what is no entry.

    Format: https://systemd.io/JOURNAL_EXPORT_FORMATS, JSON.
    """
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return entry if isinstance(entry, dict) else {}
