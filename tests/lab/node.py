"""A node for tests: a machine with real users, sshd and agent.

It fakes nothing that runs on a node, and it leaves nothing behind on the host.

    with Node("gpu-01", tmp_path) as node:      # needs root; why_not() says what is missing
        node.add_user("alice")
        node.install_lock()                     # both gates, drop-in, PAM, breakglass
        node.start_sshd()
        node.register_agent(url, code)          # url as seen from the node, see host_address
        node.start_agent()
        node.ssh("alice", key, "hostname")      # from the host, through the veth pair

What the machine is made of, and how it is reached, is in tests/lab/machine.py.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from sentinel_agent.lock.drop_in import LockText, render_drop_in
from sentinel_agent.lock.pam import PAM_GATE, insert, read_service, render_block
from sentinel_agent.lock.sshd import read_version
from sentinel_agent.policy.access import encode_access
from sentinel_agent.policy.model import decode, encode
from tests.lab.machine import Machine
from tests.lab.wait import wait_for

REPOSITORY = Path(__file__).resolve().parents[2]
AGENT = REPOSITORY / "agent" / "src" / "sentinel_agent"
GET_KEYS = AGENT / "gates" / "get_keys.py"
PAM_GATE_SOURCE = AGENT / "gates" / "pam_gate"
NODE_FILES = AGENT / "install" / "node_files"
Setting = str | float | bool | list[str]
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


class Node(Machine):
    """One node; see the module's docstring."""

    def __init__(self, name: str, folder: Path, *, bare: bool = False) -> None:
        """`folder` is the test's own: keys and logs are kept in it."""
        super().__init__(name, folder, bare=bare)
        self.sshd: subprocess.Popen[str] | None = None
        self.agent: subprocess.Popen[str] | None = None

    def stop(self) -> None:
        """End it with sshd and agent."""
        super().stop()
        for process in (self.sshd, self.agent):
            if process is not None:
                process.wait(10)
        self.sshd = self.agent = None

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
