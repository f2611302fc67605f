"""The break-glass accounts, and whether sshd would take their keys. It changes nothing."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

from .. import commands

FOLDER = Path("/etc/sentinel/breakglass")
# sshd starts these as it starts any shell, and they end at once.
NO_SHELLS = ("nologin", "false")


@dataclass(frozen=True)
class Operator:
    """One break-glass account; `problem` says why it cannot log in, as far as files tell."""

    user: str
    uid: int
    problem: str = ""

    @property
    def is_expected(self) -> bool:
        """Say whether somebody means it to get in: root need not, where others do."""
        return self.user != "root" or (FOLDER / "root").exists()


def find_operators(group: str) -> list[Operator]:
    """Return root and the group's members, root the last: the others are tried first."""
    names = set()
    try:
        found = grp.getgrnam(group)
    except KeyError:
        pass
    else:
        names = set(found.gr_mem)
        names |= {entry.pw_name for entry in pwd.getpwall() if entry.pw_gid == found.gr_gid}
    names.discard("root")
    return [_operator(name) for name in (*sorted(names), "root")]


def key_problem(path: Path, uid: int) -> str:
    """Return why sshd would not take a key from this file for this uid; empty when it would.

    As sshd's auth_secure_path() and its reading of the file with the user's own rights.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return f"{path} is not a file"
        for entry in (path.resolve(), *path.resolve().parents):
            found = entry.stat()
            if found.st_mode & 0o022 or found.st_uid not in (0, uid):
                return f"{entry} can be written by others than root"
        if uid != 0 and not _is_readable(path, uid):
            return f"{path} cannot be read by the user; make its mode 0644"
    except OSError as error:
        return f"{path}: {error.strerror}"
    listed = commands.run(["ssh-keygen", "-l", "-f", str(path)])
    return "" if listed.status == 0 else f"{path} has no public key in it"


def _operator(user: str) -> Operator:
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        return Operator(user, -1, "no such account")
    shell = entry.pw_shell or "/bin/sh"
    if Path(shell).name in NO_SHELLS or not os.access(shell, os.X_OK):
        return Operator(user, entry.pw_uid, f"its shell {shell} lets nobody in")
    return Operator(user, entry.pw_uid, key_problem(FOLDER / user, entry.pw_uid))


def _is_readable(path: Path, uid: int) -> bool:
    """Say whether the account can read the file; sshd opens it with the account's rights."""
    entry = pwd.getpwuid(uid)
    groups = {entry.pw_gid, *os.getgrouplist(entry.pw_name, entry.pw_gid)}
    for part in (path.resolve(), *path.resolve().parents):
        found = part.stat()
        wanted = stat.S_IROTH if part == path.resolve() else stat.S_IXOTH
        if found.st_uid == uid:
            wanted <<= 6
        elif found.st_gid in groups:
            wanted <<= 3
        if not found.st_mode & wanted:
            return False
    return True
