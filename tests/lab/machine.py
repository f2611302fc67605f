"""A machine for tests, made of namespaces: its life, its files and its commands.

It knows nothing of people, sshd or the agent: tests/lab/node.py does.

It has its own mount, PID, network, UTS and IPC namespaces. /etc, /usr and /var are the host's
with the machine's changes on top; /home, /tmp, /run, /dev and /var/log start empty; everything
else is the host's and read-only. The repository and the Python that runs the tests stay visible
wherever they are; a machine that is `bare` sees neither them nor any Python package, and what
the tests install there must bring its own.

`address` is the machine's and `host_address` this side's, on a veth pair: a server that it must
reach listens on `host_address` (or 0.0.0.0). The two are free for each machine, so several run
side by side.

`root` is the machine's file system as seen from here (`machine.root / "etc/passwd"`).
Everything ends with the machine: `stop()`, the end of the `with` block, or the test process's
death.
"""

from __future__ import annotations

import ipaddress
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from tests.lab.wait import wait_for

REPOSITORY = Path(__file__).resolve().parents[2]
NAMESPACES = ("mnt", "net", "uts", "ipc")
# RFC 2544's range for test networks: no real host has an address in it.
TEST_NETWORK = ipaddress.ip_network("198.18.0.0/15")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def hidden(python: Iterable[str]) -> set[str]:
    """Return what a bare node must not see: these folders, and the system's Python packages.

    The system's own Python and its standard library stay: get-keys runs on it.
    """
    usual = ("lib/python3*/*-packages", "local/lib/python3*/*-packages")
    packages = {str(path) for pattern in usual for path in Path("/usr").glob(pattern)}
    return {path for path in python if path not in ("/usr", "/usr/local")} | packages


class Machine:
    """One machine; see the module's docstring."""

    def __init__(self, name: str, folder: Path, *, bare: bool = False) -> None:
        """`folder` is the test's own: keys and logs are kept in it."""
        self.name = name
        self.is_bare = bare
        self.folder = folder / f"node-{name}"
        self.folder.mkdir()
        self.address = ""
        self.host_address = ""
        self._init: subprocess.Popen[str] | None = None
        self._link = f"sn{secrets.token_hex(5)}"

    # Life and death.

    def start(self) -> None:
        """Make the namespaces, file systems and network. Raises RuntimeError."""
        python = {str(REPOSITORY), sys.prefix, sys.base_prefix}
        folders = {f"hide:{path}" for path in hidden(python)} if self.is_bare else python
        self._init = subprocess.Popen(
            ["unshare", "--mount", "--pid", "--net", "--uts", "--ipc", "--fork",
             "--kill-child", "--mount-proc",
             sys.executable, "-I", str(Path(__file__).with_name("node_init.py")),
             self._link, *sorted(folders)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log("init"), text=True,
            cwd="/",
        )  # fmt: skip
        assert self._init.stdout is not None
        if self._init.stdout.readline() != "ready\n":
            self.stop()
            raise RuntimeError(f"the node did not start: {self.log('init')}")
        self._check_root()
        self._connect()
        self.run(["hostname", self.name])
        (self.root / "etc/hostname").write_text(f"{self.name}\n")

    def stop(self) -> None:
        """End every process of the node; its file systems and network go with them."""
        if self._init is None:
            return
        assert self._init.stdin is not None
        assert self._init.stdout is not None
        # The kernel would remove it too, but some time after the namespace's end.
        subprocess.run(
            ["ip", "link", "delete", self._link], stderr=self._log("init"), check=False
        )
        self._init.stdin.close()
        try:
            self._init.wait(10)
        except subprocess.TimeoutExpired:
            self._init.kill()
            self._init.wait()
        self._init.stdout.close()
        self._init = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    # Commands and files.

    @property
    def root(self) -> Path:
        """The node's file system, as seen from here."""
        return Path(f"/proc/{self._pid}/root")

    def argv(self, argv: Sequence[str], user: str | None = None) -> list[str]:
        """Return `argv` as a command for this side that runs it in the node."""
        namespaces = [
            f"--{'mount' if name == 'mnt' else name}=/proc/{self._pid}/ns/{name}"
            for name in NAMESPACES
        ]
        as_user = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"]
        return ["nsenter", *namespaces, f"--pid=/proc/{self._pid}/ns/pid_for_children",
                *(as_user if user else []), *argv]  # fmt: skip

    def run(
        self,
        argv: Sequence[str],
        *,
        user: str | None = None,
        stdin: str = "",
        env: Mapping[str, str] | None = None,
        check: bool = True,
        timeout_s: float = 60,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the node and return its output. Raises RuntimeError if checked."""
        done = subprocess.run(
            self.argv(argv, user), input=stdin, capture_output=True, text=True, check=False,
            timeout=timeout_s, env=self._environment(env), cwd="/",
        )  # fmt: skip
        if check and done.returncode != 0:
            raise RuntimeError(f"{argv} in the node: {done.returncode}: {done.stderr}")
        return done

    def popen(
        self,
        argv: Sequence[str],
        *,
        user: str | None = None,
        log: str = "popen",
        env: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[str]:
        """Start a command in the node; its output goes to the log of that name.

        The process returned is nsenter's, which ends when the command does: `send_signal`
        reaches the command.
        """
        with self._log(log) as output:
            return subprocess.Popen(
                self.argv(argv, user), stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, text=True, env=self._environment(env), cwd="/",
            )  # fmt: skip

    def send_signal(self, process: subprocess.Popen[str], number: signal.Signals) -> None:
        """Send a signal to the command that `popen` started."""
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        # nsenter needs a moment before it forks.
        pids = wait_for("the command runs", lambda: children.read_text().split())
        os.kill(int(pids[0]), number)

    def write(self, path: str, text: str, *, mode: int = 0o644, owner: str = "root") -> None:
        """Write a file in the node, making its folders."""
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(mode)
        if owner != "root":
            self.run(["chown", f"{owner}:", path])

    def log(self, name: str) -> str:
        """Return what the process of that name wrote: sshd, agent, init or a popen's."""
        path = self.folder / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def syslog(self) -> str:
        """Return what the node's programs sent to syslog."""
        path = self.root / "var/log/syslog"
        return path.read_text(errors="replace") if path.exists() else ""

    # Inside.

    @property
    def _pid(self) -> int:
        # unshare's: it is in all the namespaces but the PID one, which its child is in.
        assert self._init is not None, "the node is not started"
        return self._init.pid

    @staticmethod
    def _environment(more: Mapping[str, str] | None) -> dict[str, str]:
        return {"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8", **(more or {})}

    def _log(self, name: str) -> IO[str]:
        return (self.folder / f"{name}.log").open("a")

    def _check_root(self) -> None:
        """Make sure that commands run in the node: they would make users, and end processes.

        nsenter goes to the mount namespace's own root. For tests that run inside a chroot that
        is not the node's, but the machine's around it.
        """
        if self.run(["cat", "/run/node/id"], check=False).stdout != self._link:
            self.stop()
            raise RuntimeError(
                "the node cannot be entered; in a chroot, use pivot_root instead"
            )

    def _connect(self) -> None:
        """Join the node to this network namespace with a veth pair."""
        taken = subprocess.run(
            ["ip", "-4", "-o", "address"], capture_output=True, text=True, check=True
        ).stdout
        while True:
            first = TEST_NETWORK[4 * secrets.randbelow(TEST_NETWORK.num_addresses // 4)]
            self.host_address, self.address = str(first + 1), str(first + 2)
            if f" {self.host_address}/" not in taken:
                break
        for command in (
            ["ip", "link", "add", self._link, "type", "veth", "peer", "name", "eth0",
             "netns", str(self._pid)],
            ["ip", "address", "add", f"{self.host_address}/30", "dev", self._link],
            ["ip", "link", "set", self._link, "up"],
            self.argv(["ip", "address", "add", f"{self.address}/30", "dev", "eth0"]),
            self.argv(["ip", "link", "set", "eth0", "up"]),
            self.argv(["ip", "link", "set", "lo", "up"]),
        ):  # fmt: skip
            subprocess.run(command, check=True)
