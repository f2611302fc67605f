"""Counts the answers of the two gates, which report them and wait for nobody.

It keeps no names and judges nobody; docs/architecture.md has the two ways.
"""

from __future__ import annotations

import contextlib
import grp
import os
import socket
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ..errors import StateError
from ..files import identity
from ..service.metrics import Metrics
from ..service.tasks import Step

RUN_DIR = Path("/run/sentinel")
RESULTS = ("granted", "refused")
# pam-gate's answers in one file, and as many of get-keys as the kernel keeps (on a machine with
# systemd, 512), must do for so long.
PAUSE_S = 2.0
# What one round looks at: the rest waits for the next, or is lost when the socket is full.
MESSAGES_MAX = 10_000
MESSAGE_BYTES_MAX = 64
# pam-gate writes no more than half of this.
FILE_BYTES_MAX = 2 * 1024 * 1024


class Logins:
    """The socket that get-keys reports to, and the file that pam-gate reports to."""

    def __init__(self, group: str, folder: Path = RUN_DIR) -> None:
        """`group` is the one that get-keys runs with: it may write to the socket."""
        self._group = group
        self._folder = folder
        self._path = folder / "logins.sock"
        self._socket: socket.socket | None = None
        self._made: tuple[int, ...] = ()

    def drain(self) -> tuple[Counter[tuple[str, str]], list[str]]:
        """Return how often each (result, gate) was reported since the last time, and problems.

        `result` is `granted` or `refused`, `gate` is `keys` or `pam`. A socket that is missing
        or not as it was made is made anew.
        """
        counts: Counter[tuple[str, str]] = Counter()
        problems = []
        for gate, read in (("keys", self._from_socket), ("pam", self._from_file)):
            try:
                for message in read():
                    result = message.partition(b" ")[0].decode(errors="replace")
                    if result in RESULTS:
                        counts[result, gate] += 1
            except (OSError, StateError) as error:
                problems.append(f"logins are not counted: {error}")
        return counts, problems

    def close(self) -> None:
        """Stop listening."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _from_socket(self) -> Iterator[bytes]:
        # What came to the old one first: it may have been removed with much in it.
        if self._socket is not None:
            for _ in range(MESSAGES_MAX):
                try:
                    yield self._socket.recv(MESSAGE_BYTES_MAX)
                except BlockingIOError:
                    break
        if self._socket is None or not self._is_as_made():
            self._listen()

    def _from_file(self) -> Iterator[bytes]:
        # Taken away in one step, so that no line is in two rounds.
        taken = self._folder / ".logins.taken"
        try:
            (self._folder / "logins").replace(taken)
        except FileNotFoundError:
            return
        try:
            opened = os.open(taken, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(opened, "rb") as file:
                if not stat.S_ISREG(os.fstat(opened).st_mode):
                    raise StateError(f"{self._folder / 'logins'} was not a file; removed")
                content = file.read(FILE_BYTES_MAX)
        finally:
            remove(taken)
        yield from content.splitlines()

    def _listen(self) -> None:
        """Put a socket of our own in place of whatever is there. Raises OSError, StateError."""
        self.close()
        self._folder.mkdir(mode=0o755, exist_ok=True)
        found = self._folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != 0 or found.st_mode & 0o022:
            raise StateError(f"{self._folder}: others than root can write in it")
        try:
            gid = grp.getgrnam(self._group).gr_gid
        except KeyError:
            raise StateError(f"no group {self._group}") from None
        made = self._folder / ".logins.sock"
        remove(made)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            listener.setblocking(False)
            listener.bind(str(made))
            os.chown(made, 0, gid)
            made.chmod(0o620)
            if self._path.is_dir() and not self._path.is_symlink():
                remove(self._path)
            made.replace(self._path)
            self._made = identity(self._path.lstat())
        except BaseException:
            listener.close()
            raise
        self._socket = listener

    def _is_as_made(self) -> bool:
        try:
            return identity(self._path.lstat()) == self._made
        except OSError:
            return False


class LoginsTask:
    """Raises the counters of what the gates answered."""

    name = "logins"
    retry_max_s = PAUSE_S

    def __init__(self, logins: Logins, metrics: Metrics) -> None:
        self._logins = logins
        self._metrics = metrics

    def step(self) -> Step:
        """Count what was reported since the last time."""
        counts, problems = self._logins.drain()
        for (result, gate), count in counts.items():
            self._metrics.logins.labels(result, gate).inc(count)
        return Step(PAUSE_S, tuple(problems))


def remove(path: Path) -> None:
    """Remove what is there, if anything. Raises OSError, as for a folder with things in it."""
    with contextlib.suppress(FileNotFoundError):
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink()
