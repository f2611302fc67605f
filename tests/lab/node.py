"""A node for tests: one machine made of namespaces, with real users, sshd and agent.

It fakes nothing that runs on a node, and it leaves nothing behind on the host.

    with Node("gpu-01", tmp_path) as node:      # needs root; why_not() says what is missing
        node.add_user("alice")
        node.install_lock()                     # both gates, drop-in, PAM, breakglass
        node.start_sshd()
        node.register_agent(url, code)          # url as seen from the node, see host_address
        node.start_agent()
        node.ssh("alice", key, "hostname")      # from the host, through the veth pair

The node has its own mount, PID, network, UTS and IPC namespaces. /etc, /usr and /var are the
host's with the node's changes on top; /home, /tmp, /run, /dev and /var/log start empty;
everything else is the host's and read-only. The repository and the Python that runs the tests
stay visible wherever they are; a node that is `bare` sees neither them nor any Python package,
and what the tests install there must bring its own.

`address` is the node's and `host_address` this side's, on a veth pair: a server that the
node's agent must reach listens on `host_address` (or 0.0.0.0), and Prometheus scrapes
`address`. The two are free for each Node, so several run side by side.

`root` is the node's file system as seen from here (`node.root / "etc/passwd"`). Everything
ends with the node: `stop()`, the end of the `with` block, or the test process's death.
"""

from __future__ import annotations

import ipaddress
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from sentinel_agent.lock.drop_in import LockText, render_drop_in
from sentinel_agent.lock.pam import PAM_GATE, insert, read_service, render_block
from sentinel_agent.lock.sshd import read_version
from sentinel_agent.policy.access import encode_access
from sentinel_agent.policy.model import decode, encode
from tests.lab.wait import wait_for

REPOSITORY = Path(__file__).resolve().parents[2]
AGENT = REPOSITORY / "agent" / "src" / "sentinel_agent"
GET_KEYS = AGENT / "gates" / "get_keys.py"
PAM_GATE_SOURCE = AGENT / "gates" / "pam_gate"
NODE_FILES = AGENT / "install" / "node_files"
Setting = str | float | bool | list[str]
NAMESPACES = ("mnt", "net", "uts", "ipc")
# RFC 2544's range for test networks: no real host has an address in it.
TEST_NETWORK = ipaddress.ip_network("198.18.0.0/15")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PROGRAMS = ("unshare", "nsenter", "ip", "useradd", "systemd-sysusers", "ssh", "ssh-keygen",
            "/usr/sbin/sshd", "/usr/bin/python3")  # fmt: skip

# What a careless site might have: every way in that the lock must close is open here.
SSHD_CONFIG = """\
Include /etc/ssh/sshd_config.d/*.conf
HostKey /etc/ssh/lab_host_key
PermitRootLogin yes
PasswordAuthentication yes
KbdInteractiveAuthentication yes
PubkeyAuthentication yes
AuthorizedKeysFile .ssh/authorized_keys
UsePAM yes
PermitUserRC yes
PrintMotd no
AcceptEnv LANG LC_*
Subsystem sftp internal-sftp
"""


def why_not() -> str | None:
    """Return why no Node can be started here, or None when one can."""
    if os.geteuid() != 0:
        return "a node needs root"
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    return f"a node needs {', '.join(missing)}" if missing else None


def hidden(python: Iterable[str]) -> set[str]:
    """Return what a bare node must not see: these folders, and the system's Python packages.

    The system's own Python and its standard library stay: get-keys runs on it.
    """
    usual = ("lib/python3*/*-packages", "local/lib/python3*/*-packages")
    packages = {str(path) for pattern in usual for path in Path("/usr").glob(pattern)}
    return {path for path in python if path not in ("/usr", "/usr/local")} | packages


class Node:
    """One machine; see the module's docstring."""

    def __init__(self, name: str, folder: Path, *, bare: bool = False) -> None:
        """`folder` is the test's own: keys and logs are kept in it."""
        self.name = name
        self.is_bare = bare
        self.folder = folder / f"node-{name}"
        self.folder.mkdir()
        self.address = ""
        self.host_address = ""
        self.sshd: subprocess.Popen[str] | None = None
        self.agent: subprocess.Popen[str] | None = None
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
        for process in (self.sshd, self.agent):
            if process is not None:
                process.wait(10)
        self._init = self.sshd = self.agent = None

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

    # People.

    def add_user(
        self, name: str, *, password: str | None = None, groups: Sequence[str] = ()
    ) -> int:
        """Make a Unix account with a home and return its uid."""
        more = ["--groups", ",".join(groups)] if groups else []
        self.run(["useradd", "--create-home", "--shell", "/bin/bash", *more, name])
        if password is not None:
            self.run(["chpasswd"], stdin=f"{name}:{password}\n")
        return int(self.run(["id", "-u", name]).stdout)

    def make_key(self, name: str) -> Path:
        """Make a key pair on this side and return the private key's path (`.pub` beside it)."""
        path = self.folder / f"key-{name}"
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)],
            check=True,
        )
        return path

    def processes(self, user: str) -> list[str]:
        """Return the command lines of the user's live processes in the node."""
        done = self.run(["ps", "-o", "stat=,args=", "-U", user, "-u", user], check=False)
        lines = [line.split(None, 1) for line in done.stdout.splitlines()]
        return [args for state, args in lines if not state.startswith("Z")]

    # The lock.

    def install_gates(self) -> None:
        """Install get-keys and pam-gate, the first's user, and the break-glass group."""
        self.run(["systemd-sysusers", str(NODE_FILES / "sysusers.conf")])
        self.run(
            ["install", "-d", "-m", "0755", "/usr/lib/sentinel", "/etc/sentinel/breakglass"]
        )
        self.run(["install", "-m", "0755", str(GET_KEYS), "/usr/lib/sentinel/get-keys"])
        self.run(["install", "-m", "0755", str(PAM_GATE_SOURCE), PAM_GATE])
        self.run(["install", "-d", "-m", "0750", "-g", "sentinel-akc", "/var/lib/sentinel"])

    def install_lock(self, *, ignored_users: Sequence[str] = ()) -> None:
        """Install the gates, and sshd's drop-in and PAM's block as the agent writes them.

        There is no /var/lib/sentinel/install.json: the agent leaves the two alone.
        """
        self.install_gates()
        text = LockText(read_version("/usr/sbin/sshd"), "sentinel-akc", "breakglass")
        self.write("/etc/ssh/sshd_config.d/00-sentinel.conf", render_drop_in(text))
        service = self.root / "etc/pam.d/sshd"
        block = render_block("breakglass", ignored_users)
        service.write_text(insert(service.read_text(), block, read_service))

    def write_policy(self, document: Mapping[str, object]) -> None:
        """Put a policy where both gates read it, as the agent does."""
        policy, problems = decode(document)
        assert problems == []
        self.write("/var/lib/sentinel/policy.json", encode(policy).decode(), mode=0o640)
        self.run(["chgrp", "sentinel-akc", "/var/lib/sentinel/policy.json"])
        self.write("/var/lib/sentinel/access", encode_access(policy).decode(), mode=0o600)

    def add_breakglass(self, user: str, key: Path) -> None:
        """Let the user in past the lock with this key (after `install_lock`)."""
        if user != "root":
            self.run(["usermod", "--append", "--groups", "breakglass", user])
        public = key.with_suffix(".pub").read_text()
        self.write(f"/etc/sentinel/breakglass/{user}", public, mode=0o644)

    # sshd.

    def start_sshd(self, config: str = SSHD_CONFIG, port: int = 22) -> None:
        """Start the real sshd with this main config and wait until it answers."""
        if not (self.root / "etc/ssh/lab_host_key").exists():
            self.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f",
                      "/etc/ssh/lab_host_key"])  # fmt: skip
        (self.root / "run/sshd").mkdir(mode=0o755, exist_ok=True)
        self.write("/etc/ssh/sshd_config", config)
        self.run(["/usr/sbin/sshd", "-t"])
        self.sshd = self.popen(["/usr/sbin/sshd", "-D", "-e", "-p", str(port)], log="sshd")
        wait_for("sshd listens", lambda: "Server listening" in self.log("sshd"))

    def reload_sshd(self) -> None:
        """Have the running sshd read its configuration again."""
        assert self.sshd is not None
        before = self.log("sshd").count("Server listening on 0.0.0.0")
        self.send_signal(self.sshd, signal.SIGHUP)
        wait_for(
            "sshd listens again",
            lambda: self.log("sshd").count("Server listening on 0.0.0.0") > before,
        )

    def ssh_argv(self, user: str, key: Path | None, *options: str) -> list[str]:
        """Return the ssh command, up to and with the destination, for a login from here."""
        identity = ["-i", str(key), "-o", "IdentitiesOnly=yes"] if key else []
        return ["ssh", "-F", "none", "-o", "StrictHostKeyChecking=no",
                "-o", "UserKnownHostsFile=/dev/null", "-o", "GlobalKnownHostsFile=/dev/null",
                "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=10",
                *identity, *options, "-o", "BatchMode=yes",
                f"{user}@{self.address}"]  # fmt: skip

    def ssh(
        self, user: str, key: Path | None, *command: str, options: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Log in from here and run a command; return code 255 means that ssh itself failed."""
        return subprocess.run(
            [*self.ssh_argv(user, key, *options), *command],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip

    # The agent.

    def write_agent_config(self, server: str, **settings: Setting) -> None:
        """Write /etc/sentinel/agent.toml; `settings` are further top-level keys."""
        # JSON's texts, numbers, booleans and lists of them are TOML's.
        lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
        self.write("/etc/sentinel/agent.toml", "\n".join([f'server = "{server}"', *lines, ""]))

    def agent_argv(self, *arguments: str) -> list[str]:
        """Return the agent's command line in the node."""
        return [sys.executable, "-m", "sentinel_agent", *arguments]

    def register_agent(self, server: str, code: str, **settings: Setting) -> None:
        """Write the config, then spend the invite code. Raises RuntimeError."""
        self.write_agent_config(server, **{"address": self.address} | settings)
        self.run(self.agent_argv("register", "--plain-http"), env={"SENTINEL_AGENT_CODE": code})

    def start_agent(self) -> None:
        """Start `sentinel-agent run`; its output is `log("agent")`."""
        self.agent = self.popen(self.agent_argv("run"), log="agent")

    def stop_agent(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Signal the agent, wait for its end and return its exit status."""
        assert self.agent is not None
        self.send_signal(self.agent, number)
        status = self.agent.wait(30)
        self.agent = None
        return status

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
