"""Twelve ways of having something run on a node through SSH. Each opens one and leaves it open.

It judges nothing.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab.node import Node
from tests.lab.wait import wait_for

# The remote helper of an editor: a server that outlives its login and is talked to through a
# forwarded port, while the login's channel stays open too.
EDITOR_SERVER = """\
import os, socket
listener = socket.create_server(("127.0.0.1", 0))
if os.fork():
    print(listener.getsockname()[1], flush=True)
    os._exit(0)
os.setsid()
nothing = os.open(os.devnull, os.O_RDWR)
for number in (0, 1, 2):
    os.dup2(nothing, number)
path = os.path.expanduser("~/editor.sock")
local = socket.socket(socket.AF_UNIX)
local.bind(path)
local.listen()
talks = []
while True:
    talk, _ = listener.accept()
    talks.append(talk)
    talk.sendall(b"hello from the editor's server\\n")
"""
TALK = """\
import socket, sys
with socket.socket(socket.AF_UNIX) as talk:
    talk.connect(sys.argv[1])
    while talk.recv(1000):
        pass
"""
FORKING = "#!/bin/sh\ntrap '' HUP TERM\nwhile :; do (sleep 0.05; :) & sleep 0.04; done\n"


@dataclass
class Sessions:
    """All that one user has open; `close` ends what is on this side."""

    node: Node
    user: str
    key: Path
    folder: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def open_all(self) -> None:
        """Open each kind once."""
        self.folder.mkdir()
        for kind in (
            self.pty, self.command, self.scp, self.sftp, self.rsync, self.no_command,
            self.control_master, self.port_forward, self.editor, self.tmux, self.nohup,
            self.forking,
        ):  # fmt: skip
            kind()

    def pty(self) -> None:
        """A shell with a terminal."""
        self._start("pty", *self._ssh("-tt"), "sleep 1101")

    def command(self) -> None:
        """A command without one."""
        self._start("command", *self._ssh(), "sleep 1102")

    def scp(self) -> None:
        """A copy by the old protocol, as a program on the other side."""
        self._start("scp", "scp", "-O", "-l", "400", *self._options(), self._remote("big"),
                    str(self.folder / "by-scp"))  # fmt: skip

    def sftp(self) -> None:
        """A file transfer by sftp's subsystem."""
        argv = ("sftp", "-q", "-l", "400", *self._options(), self._remote("big"))
        self._start("sftp", *argv, str(self.folder / "by-sftp"))

    def rsync(self) -> None:
        """A copy that takes its time."""
        ssh = " ".join(["ssh", *self._options()])
        self._start("rsync", "rsync", "--bwlimit=1", "-e", ssh, self._remote("big"),
                    str(self.folder / "by-rsync"))  # fmt: skip

    def no_command(self) -> None:
        """A connection with no session in it at all."""
        self._start("no command", *self._ssh("-N"))

    def control_master(self) -> None:
        """One connection for several sessions."""
        path = self.folder / "master"
        self._start("master", *self._ssh("-N", "-M", "-S", str(path)))
        wait_for("the master listens", path.exists)
        self._start("in the master", *self._ssh("-S", str(path)), "sleep 1103")

    def port_forward(self) -> None:
        """A forwarded port with a connection in it, to the node's own sshd."""
        self._forward("forward", 22, "-N")

    def editor(self) -> None:
        """A server that has left its login, a forward to it, and an open channel."""
        port = int(self._run(*self._ssh(), "python3 editor-server.py"))
        self._forward("editor", port, "-T", "sleep 1104")

    def tmux(self) -> None:
        """A terminal that stays when its login goes."""
        self._run(*self._ssh(), "tmux new-session -d sleep 1105")

    def nohup(self) -> None:
        """A program that is to outlive its login."""
        self._run(*self._ssh(), "nohup sleep 1106 >/dev/null 2>&1 &")

    def forking(self) -> None:
        """A program that never has the same pid for long."""
        self._run(*self._ssh(), "setsid ./forking >/dev/null 2>&1 </dev/null &")

    def check_closed(self) -> bool:
        """Say whether everything on this side has noticed the end; raise OSError if not."""
        still = [what for what, process in self.processes.items() if process.poll() is None]
        if still:
            raise BlockingIOError(f"still open: {still}")
        return True

    def close(self) -> None:
        """End what is on this side."""
        for process in self.processes.values():
            process.kill()
            process.communicate()

    def _ssh(self, *options: str) -> list[str]:
        return self.node.ssh_argv(self.user, self.key, *options)

    def _options(self) -> list[str]:
        return self._ssh()[1:-1]

    def _remote(self, path: str) -> str:
        return f"{self.user}@{self.node.address}:{path}"

    def _forward(self, what: str, port: int, option: str, *command: str) -> None:
        """Forward a port of the node's, and keep a connection through it open."""
        path = self.folder / what
        argv = self._ssh(option, "-L", f"{path}:127.0.0.1:{port}")
        self._start(f"{what}'s connection", *argv, *command)
        wait_for("ssh listens", path.exists)
        self._start(f"through the {what}", sys.executable, "-IS", "-c", TALK, str(path))

    def _start(self, what: str, *argv: str) -> None:
        with (self.folder / "log").open("ab") as log:
            self.processes[what] = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=log, stderr=log
            )

    def _run(self, *argv: str) -> str:
        # Not by pipes: what goes to the background would keep them open.
        out = self.folder / "out"
        with out.open("wb") as output, (self.folder / "log").open("ab") as log:
            subprocess.run(
                argv, stdin=subprocess.DEVNULL, stdout=output, stderr=log, check=True,
                timeout=60,
            )  # fmt: skip
        return out.read_text()


# What each user of `Sessions.open_all` has on the node then: connections, and processes that
# are no part of one.
CONNECTIONS = 9
LEFT_BEHIND = ("sleep 1105", "sleep 1106", "forking", "editor-server.py")


def prepare(node: Node, users: list[str]) -> None:
    """Make the accounts, with what the kinds need."""
    node.write("/etc/skel/editor-server.py", EDITOR_SERVER)
    node.write("/etc/skel/forking", FORKING, mode=0o755)
    node.run(["truncate", "-s", "64M", "/etc/skel/big"])
    script = 'for user; do useradd --create-home --shell /bin/bash "$user"; done'
    node.run(["sh", "-ec", script, "sh", *users])


@contextlib.contextmanager
def sessions_of(
    node: Node, users: list[str], key: Path, folder: Path
) -> Iterator[dict[str, Sessions]]:
    """Return the users' sessions, of which none is open yet; all are closed at the end."""
    them = {user: Sessions(node, user, key, folder / user) for user in users}
    try:
        yield them
    finally:
        for one in them.values():
            one.close()
