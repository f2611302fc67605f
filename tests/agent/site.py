"""A node of a careless site: every way in that sshd knows is open in its own configuration.

It locks nothing by itself; the tests compare one with the lock to one without.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.lab.node import SSHD_CONFIG, Node

# Later than the lock's drop-in, as all that a site writes; with `Match` blocks of its own.
CARELESS = (
    SSHD_CONFIG
    + """\
PermitUserEnvironment yes
AcceptEnv *
AllowTcpForwarding yes
TrustedUserCAKeys /etc/ssh/site_ca.pub
AuthorizedPrincipalsFile none
Match User mallory
    AuthorizedKeysFile /etc/ssh/site_keys .ssh/authorized_keys
    PermitTunnel yes
Match User root
    AuthorizedKeysFile /etc/ssh/site_keys
"""
)
ASKPASS = "#!/bin/sh\necho {password}\n"


class Site:
    """One node with sshd, the people, their keys, and the site's certificate authority.

    mallory attacks and has no reservation; bob has one wherever there is a lock.
    """

    def __init__(self, node: Node) -> None:
        self.node = node
        self.keys = {name: node.make_key(name) for name in ("mallory", "bob", "ca")}
        for name in ("mallory", "bob"):
            node.add_user(name, password=f"{name}-password")
        node.run(["chpasswd"], stdin="root:root-password\n")
        node.write("/etc/ssh/site_ca.pub", self.public("ca"))
        node.write("/etc/ssh/site_keys", "")
        node.write("/etc/environment", "")

    def public(self, name: str) -> str:
        """Return the line of the public key."""
        return self.keys[name].with_suffix(".pub").read_text()

    def put_home(self, user: str, path: str, text: str) -> None:
        """Write a file of the user's own, in ~/.ssh as sshd wants it."""
        self.node.run(["install", "-d", "-o", user, "-m", "0700", f"/home/{user}/.ssh"])
        self.node.write(f"/home/{user}/{path}", text, mode=0o600, owner=user)

    def log_in(
        self, user: str, key: str | Path, *options: str, command: str = "echo in"
    ) -> str:
        """Return what the command printed; empty when the user was not let in."""
        path = self.keys[key] if isinstance(key, str) else key
        return self.node.ssh(user, path, command, options=options).stdout

    def seen_before_login(self, user: str, key: str) -> str:
        """Return what ssh shows of what the server says before it lets the user in or not."""
        argv = self.node.ssh_argv(user, self.keys[key])
        argv[argv.index("LogLevel=ERROR")] = "LogLevel=INFO"
        return subprocess.run(
            [*argv, "true"], stdin=subprocess.DEVNULL, capture_output=True, text=True,
            check=False, env={"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"},
        ).stderr  # fmt: skip

    def log_in_by_password(self, user: str, method: str, owner: str = "") -> str:
        """Log in by `password` or `keyboard-interactive`; the password is the owner's."""
        askpass = self.node.folder / "askpass"
        askpass.write_text(ASKPASS.format(password=f"{owner or user}-password"))
        askpass.chmod(0o755)
        # ssh takes the first value of an option.
        options = ("-o", "BatchMode=no", "-o", f"PreferredAuthentications={method}",
                   "-o", "NumberOfPasswordPrompts=1")  # fmt: skip
        return subprocess.run(
            [*self.node.ssh_argv(user, None, *options), "echo in"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
            env={"SSH_ASKPASS": str(askpass), "SSH_ASKPASS_REQUIRE": "force",
                 "PATH": "/usr/bin:/bin"},
        ).stdout  # fmt: skip

    def sign(self, key: str, principal: str) -> Path:
        """Return the key's path, with a certificate for the principal beside it."""
        path = self.keys[key].with_name(f"signed-{key}-{principal.replace('/', '_')}")
        path.write_bytes(self.keys[key].read_bytes())
        path.chmod(0o600)
        public = path.with_suffix(".pub")
        public.write_text(self.public(key))
        subprocess.run(
            ["ssh-keygen", "-q", "-s", self.keys["ca"], "-I", "site", "-n", principal, public],
            check=True,
        )
        return path
