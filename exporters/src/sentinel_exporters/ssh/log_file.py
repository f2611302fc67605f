"""Follow a log file that syslog writes: new lines, through rotation. Judges no message.

The file is read on from where it ended when it was opened. logrotate's two ways are known:
a new file in the old one's place, and the same file cut to nothing (`copytruncate`).
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from ..errors import CollectorError

_CHUNK_BYTES = 1 << 16
# At most so much in one go; the rest comes with the next one.
_BATCH_BYTES = 4 << 20
# sshd's messages have 500 characters at most; a longer line is left out.
_LINE_BYTES = 16 << 10
# What is looked at again before reading on, to notice a file that was cut and has grown since.
_MARK_BYTES = 64

# What sshds call themselves in a log; the last is the node's second one, for break-glass.
SSHD_TAGS = ("sshd", "sshd-session", "sshd-auth", "sentinel-breakglass-sshd")

# rsyslog's and syslog-ng's formats of a file: RFC 3164's time or RFC 3339's, the host, the
# program with its pid. A daemon that writes what it receives keeps the priority before it and
# has no host.
_LINE = re.compile(
    rb"(?:<\d{1,3}>)?"
    rb"(?:[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d|\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d\d:?\d\d)) "
    rb"(?:[\w.:-]+ )?"
    rb"(?:" + "|".join(SSHD_TAGS).encode() + rb")\[(\d{1,9})\]: (.*)",
    re.DOTALL,
)


class LogFile:
    """One log, by its path, from its present end on."""

    def __init__(self, path: Path) -> None:
        """Open the log. Raises CollectorError where that is not possible."""
        self._path = path
        self._file = _open(path)
        self._position = os.lseek(self._file, 0, os.SEEK_END)
        self._remember()
        # The beginning of a line whose end is not there yet; None in one that is too long, or
        # whose beginning was before ours.
        self._rest: bytes | None = b"" if self._mark[-1:] in (b"", b"\n") else None

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def read(self) -> list[tuple[int, str]]:
        """Return what sshds have written since, as pid and message.

        Raises CollectorError where the log can no longer be read.
        """
        found: list[tuple[int, str]] = []
        try:
            for line in self._read_lines():
                if match := _LINE.match(line):
                    found.append((int(match[1]), match[2].decode(errors="replace")))
        except CollectorError:
            # What was read is not to be lost; the next call finds the same fault.
            if not found:
                raise
        return found

    def _read_lines(self) -> Iterator[bytes]:
        try:
            if self._was_cut():
                self._position, self._rest = 0, b""
            yield from self._read_new()
            is_behind = self._position < os.fstat(self._file).st_size
            newer = None if is_behind else self._find_newer()
            if newer is not None:
                # What was written to the old one until the new one was begun.
                yield from self._read_new()
                os.close(self._file)
                self._file, self._position, self._rest = newer, 0, b""
                yield from self._read_new()
        except OSError as error:
            raise CollectorError(f"{self._path}: {error.strerror}") from error

    def _read_new(self) -> Iterator[bytes]:
        """Yield the lines from our position to the end, as far as they are whole."""
        end = self._position + _BATCH_BYTES
        while self._position < end:
            chunk = os.pread(self._file, _CHUNK_BYTES, self._position)
            if not chunk:
                break
            self._position += len(chunk)
            *lines, rest = chunk.split(b"\n")
            for line in lines:
                if self._rest is not None:
                    yield self._rest + line
                self._rest = b""
            if self._rest is not None:
                self._rest += rest
                if len(self._rest) > _LINE_BYTES:
                    self._rest = None
        self._remember()

    def _remember(self) -> None:
        begin = max(0, self._position - _MARK_BYTES)
        self._mark = os.pread(self._file, self._position - begin, begin)

    def _was_cut(self) -> bool:
        """Whether it is another content by now: shorter, or grown anew beyond our position."""
        if os.fstat(self._file).st_size < self._position:
            return True
        begin = self._position - len(self._mark)
        return os.pread(self._file, len(self._mark), begin) != self._mark

    def _find_newer(self) -> int | None:
        """Return, opened, the file that has taken the old one's place.

        Not before something is in it: until then syslog may still write to the old one.
        """
        held = os.fstat(self._file)
        try:
            now = self._path.stat()
        except FileNotFoundError:
            # After a rotation syslog may make a new one only when it has something to write.
            if held.st_nlink == 0:
                raise
            return None
        is_same = (now.st_dev, now.st_ino) == (held.st_dev, held.st_ino)
        return None if is_same or now.st_size == 0 else _open(self._path)


def _open(path: Path) -> int:
    try:
        # A pipe would have us wait for a writer.
        opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise CollectorError(f"{path}: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        os.close(opened)
        raise CollectorError(f"{path}: not a file")
    return opened
