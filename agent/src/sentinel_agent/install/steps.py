"""The steps that put a file, folder, account or unit on the node, as values that describe
themselves, and their execution. What to put where is plan.py's.

Each step is a no-op where its result is there already, so an installation that was cut off is
simply repeated. What was not there before is recorded before it is made.
"""

from __future__ import annotations

import base64
import grp
import os
import pwd
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .. import commands
from ..errors import InstallError, StateError
from ..files import replace_file
from ..lock.change import restore_context
from ..lock.sshd_listener import is_systemd
from .record import Made, digest

# Records that something is about to be made.
Remember = Callable[[Made], None]


@dataclass(frozen=True)
class MakeAccounts:
    """The account that sshd runs get-keys with, and the break-glass group."""

    akc_user: str
    breakglass_group: str
    sysusers: Path

    def describe(self) -> str:
        """Return the step in words."""
        return f"make the account {self.akc_user} and the group {self.breakglass_group}"

    def is_done(self) -> bool:
        """Say whether there is nothing to do."""
        return _has_user(self.akc_user) and _has_group(self.breakglass_group)

    def do(self, remember: Remember) -> None:
        """Make what is missing. Raises InstallError."""
        for name, is_there, kind in (
            (self.breakglass_group, _has_group(self.breakglass_group), "group"),
            (self.akc_user, _has_group(self.akc_user), "group"),
            (self.akc_user, _has_user(self.akc_user), "user"),
        ):
            if not is_there:
                remember(Made(kind="user" if kind == "user" else "group", name=name))
        is_usual = (self.akc_user, self.breakglass_group) == ("sentinel-akc", "breakglass")
        if is_usual and shutil.which("systemd-sysusers") and self.sysusers.is_file():
            _run("systemd-sysusers", str(self.sysusers))
        else:
            for group in (self.breakglass_group, self.akc_user):
                if not _has_group(group):
                    _run("groupadd", "--system", group)
            if not _has_user(self.akc_user):
                _run("useradd", "--system", "--no-create-home", "--home-dir", "/", "--shell",
                     shutil.which("nologin") or "/bin/false", "--gid", self.akc_user,
                     self.akc_user)  # fmt: skip
        if not self.is_done():
            raise InstallError(f"{self.describe()}: they are not there afterwards")


@dataclass(frozen=True)
class AddMember:
    """An operator joins the break-glass group."""

    user: str
    group: str

    def describe(self) -> str:
        """Return the step in words."""
        return f"put {self.user} into the group {self.group}"

    def is_done(self) -> bool:
        """Say whether there is nothing to do."""
        try:
            found = grp.getgrnam(self.group)
            return self.user in found.gr_mem or pwd.getpwnam(self.user).pw_gid == found.gr_gid
        except KeyError:
            return False

    def do(self, remember: Remember) -> None:
        """Do it. Raises InstallError."""
        remember(Made(kind="member", name=self.user, digest=self.group))
        _run("usermod", "--append", "--groups", self.group, self.user)


@dataclass(frozen=True)
class MakeFolder:
    """A folder of root's."""

    path: Path
    mode: int
    group: str = "root"

    def describe(self) -> str:
        """Return the step in words."""
        return f"make {self.path}, mode {self.mode:04o}, group {self.group}"

    def is_done(self) -> bool:
        """Say whether there is nothing to do."""
        try:
            found = self.path.lstat()
            return (
                self.path.is_dir()
                and found.st_uid == 0
                and found.st_mode & 0o7777 == self.mode
                and found.st_gid == grp.getgrnam(self.group).gr_gid
            )
        except (OSError, KeyError):
            return False

    def do(self, remember: Remember) -> None:
        """Do it. Raises InstallError."""
        if self.path.is_symlink() or (self.path.exists() and not self.path.is_dir()):
            raise InstallError(f"{self.path} is there and is no folder")
        if self.path.exists():
            found = self.path.stat()
            before = f"{found.st_mode & 0o7777:o} {found.st_gid}"
            remember(Made(kind="mode", name=str(self.path), digest=before))
        else:
            remember(Made(kind="folder", name=str(self.path)))
        try:
            self.path.mkdir(mode=self.mode, exist_ok=True)
            os.chown(self.path, 0, grp.getgrnam(self.group).gr_gid)
            self.path.chmod(self.mode)
        except (OSError, KeyError) as error:
            raise InstallError(f"{self.path}: {error}") from error
        restore_context(self.path)


@dataclass(frozen=True)
class WriteFile:
    """A file of root's, all of whose names are ours."""

    path: Path
    content: bytes
    mode: int
    what: str

    def describe(self) -> str:
        """Return the step in words."""
        return f"write {self.path}, mode {self.mode:04o}: {self.what}"

    def is_done(self) -> bool:
        """Say whether there is nothing to do."""
        try:
            found = self.path.lstat()
            return (
                self.path.read_bytes() == self.content
                and found.st_uid == 0
                and found.st_mode & 0o7777 == self.mode
            )
        except OSError:
            return False

    def do(self, remember: Remember) -> None:
        """Do it. Raises InstallError."""
        before = None
        if self.path.is_file():
            before = base64.b64encode(self.path.read_bytes()).decode()
        remember(
            Made(kind="file", name=str(self.path), digest=digest(self.content), before=before)
        )
        try:
            replace_file(self.path, self.content, mode=self.mode)
        except StateError as error:
            raise InstallError(str(error)) from error
        restore_context(self.path)


@dataclass(frozen=True)
class MakeLink:
    """A symbolic link."""

    path: Path
    target: Path

    def describe(self) -> str:
        """Return the step in words."""
        return f"make {self.path}, a link to {self.target}"

    def is_done(self) -> bool:
        """Say whether there is nothing to do."""
        return self.path.is_symlink() and self.path.readlink() == self.target

    def do(self, remember: Remember) -> None:
        """Do it. Raises InstallError."""
        remember(Made(kind="link", name=str(self.path), digest=str(self.target)))
        try:
            self.path.unlink(missing_ok=True)
            self.path.symlink_to(self.target)
        except OSError as error:
            raise InstallError(f"{self.path}: {error.strerror}") from error


@dataclass(frozen=True)
class StartUnit:
    """A unit runs now and from each boot on; where systemd is not init, somebody must start it.

    `command` is what to start there.
    """

    unit: str
    command: str

    def describe(self) -> str:
        """Return the step in words."""
        if is_systemd():
            return f"enable and start {self.unit}"
        return f"start it yourself, systemd is not init here: {self.command}"

    def is_done(self) -> bool:
        """Say whether there is nothing to do."""
        return not is_systemd()

    def do(self, remember: Remember) -> None:
        """Do it. Raises InstallError."""
        _run("systemctl", "daemon-reload")
        if commands.run(["systemctl", "is-enabled", "--quiet", self.unit]).status != 0:
            remember(Made(kind="unit", name=self.unit))
        _run("systemctl", "enable", self.unit)
        _run("systemctl", "restart", self.unit)


Step = MakeAccounts | AddMember | MakeFolder | WriteFile | MakeLink | StartUnit


def _run(*argv: str) -> None:
    done = commands.run(argv)
    if done.status != 0:
        raise InstallError(f"{' '.join(argv)}: {done.reason}")


def _has_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _has_group(name: str) -> bool:
    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True
