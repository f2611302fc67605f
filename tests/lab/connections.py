"""Many SSH connections to a node at once, from this side. Counts and judges nothing."""

from __future__ import annotations

import struct
import subprocess
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab.node import Node
from tests.lab.wait import wait_for

# Logins under way at the same time; sshd's MaxStartups is 10 where nobody has set it.
AT_ONCE = 8
# draft-ietf-secsh-filexfer-02, 3 and 4: the length, SSH_FXP_INIT, the version.
SFTP_INIT = struct.pack(">IBI", 5, 1, 3)


@dataclass
class Connections:
    """Clients that stay until `end`; `sessions` is what they have open, by user and type."""

    node: Node
    key: Path
    users: Sequence[str]
    clients: list[subprocess.Popen[bytes]] = field(default_factory=list)
    sessions: Counter[tuple[str, str]] = field(default_factory=Counter)

    def open_terminals(self, count: int) -> None:
        """Log in so many times, each with a terminal, a shell and a program that waits."""
        self._open([self._open_terminal] * count)

    def open_mixed(self, count: int, folder: Path) -> None:
        """Log in so many times: terminals, commands, sftp, no command, and two in one.

        Sockets come to lie in `folder`, whose path must be short.
        """

        def alone(user: str, number: int) -> None:
            self._open_alone(user, folder / str(number))

        def shared(user: str, number: int) -> None:
            self._open_shared(user, folder / str(number))

        kinds = (self._open_terminal, self._open_command, self._open_sftp, alone, shared)
        self._open([kinds[number % len(kinds)] for number in range(count)])

    def end(self) -> None:
        """End the connections."""
        for client in self.clients:
            client.kill()
        for client in self.clients:
            client.communicate()
        self.clients.clear()
        self.sessions.clear()

    def _open(self, kinds: Sequence[Callable[[str, int], None]]) -> None:
        first = len(self.clients)

        def open_one(number: int) -> None:
            # Each user has some of each kind.
            user = self.users[number // 5 % len(self.users)]
            kinds[number](user, first + number)

        with ThreadPoolExecutor(AT_ONCE) as threads:
            list(threads.map(open_one, range(len(kinds))))

    def _open_terminal(self, user: str, _number: int) -> None:
        self._start(user, "pty", ["-tt"], "echo open; sleep 100000; true")

    def _open_command(self, user: str, _number: int) -> None:
        self._start(user, "exec", [], "echo open; sleep 100000; true")

    def _open_sftp(self, user: str, _number: int) -> None:
        client = self._popen(user, ["-s"], "sftp")
        assert client.stdin is not None
        assert client.stdout is not None
        client.stdin.write(SFTP_INIT)
        client.stdin.flush()
        if len(client.stdout.read(len(SFTP_INIT))) != len(SFTP_INIT):
            raise RuntimeError(f"{user} has no sftp")
        self.sessions[user, "exec"] += 1

    def _open_alone(self, user: str, path: Path) -> None:
        """A connection with nothing in it; that it is logged in shows by its socket."""
        self._popen(user, ["-N", "-M", "-S", str(path)])
        wait_for("the master listens", path.exists)
        self.sessions[user, "forward-only"] += 1

    def _open_shared(self, user: str, path: Path) -> None:
        """A terminal and a command in one connection."""
        self._start(user, "exec", ["-M", "-S", str(path)], "echo open; sleep 100000; true")
        wait_for("the master listens", path.exists)
        self._start(user, "pty", ["-tt", "-S", str(path)], "echo open; sleep 100000; true")

    def _start(self, user: str, kind: str, options: Sequence[str], command: str) -> None:
        client = self._popen(user, options, command)
        assert client.stdout is not None
        if client.stdout.readline().strip() != b"open":
            raise RuntimeError(f"a login of {user} was refused")
        self.sessions[user, kind] += 1

    def _popen(
        self, user: str, options: Sequence[str], *command: str
    ) -> subprocess.Popen[bytes]:
        client = subprocess.Popen(
            [*self.node.ssh_argv(user, self.key, *options), *command],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.clients.append(client)
        return client
