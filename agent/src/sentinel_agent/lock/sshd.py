"""The system's sshd: where it is, which version, and what it makes of its configuration.

It asks sshd and changes nothing; sshd_listener.py has the running one.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import commands
from ..errors import LockError

BINARIES = ("/usr/sbin/sshd", "/usr/local/sbin/sshd")
MAIN_CONFIG = Path("/etc/ssh/sshd_config")
VERSION = re.compile(r"OpenSSH_(\d+)\.(\d+)")
# As sshd.8 has it: privilege separation's folder, without which sshd does not start.
PRIVSEP_FOLDER = Path("/run/sshd")

_versions: dict[tuple[str, int, int], tuple[int, int]] = {}


@dataclass(frozen=True)
class Sshd:
    """One sshd program. `version` is OpenSSH's, as (9, 2)."""

    binary: Path
    version: tuple[int, int]
    config: Path = MAIN_CONFIG

    @property
    def version_text(self) -> str:
        """The version as people write it."""
        return ".".join(str(part) for part in self.version)


def find_sshd() -> Sshd:
    """Return the system's sshd. Raises LockError."""
    found = [path for path in BINARIES if os.access(path, os.X_OK)]
    binary = found[0] if found else shutil.which("sshd", path=commands.ENVIRONMENT["PATH"])
    if binary is None:
        raise LockError("sshd", "no sshd on this node; install OpenSSH's server")
    return Sshd(Path(binary), read_version(binary))


def read_version(binary: str) -> tuple[int, int]:
    """Return OpenSSH's version. Raises LockError.

    `sshd -V` answers from 9.2 on; older ones print the version with their usage, and where
    that fails too, the client is of the same version.
    """
    try:
        found = Path(binary).stat()
    except OSError as error:
        raise LockError("sshd", f"{binary}: {error.strerror}") from error
    key = (binary, found.st_ino, found.st_mtime_ns)
    if key not in _versions:
        for argv in ((binary, "-V"), ("ssh", "-V")):
            done = commands.run(argv)
            if match := VERSION.search(done.errors + done.output):
                _versions[key] = (int(match[1]), int(match[2]))
                break
        else:
            raise LockError("sshd", f"{binary} does not say which version of OpenSSH it is")
    return _versions[key]


def test_config(sshd: Sshd, prefix: Sequence[str] = (), more: Sequence[str] = ()) -> None:
    """Have sshd read its configuration and keys. Raises LockError with sshd's own words.

    `prefix` is a command that runs sshd somewhere else; `more` are further arguments.
    """
    done = commands.run([*prefix, str(sshd.binary), "-t", "-f", str(sshd.config), *more])
    if done.status != 0:
        raise LockError("sshd -t", done.reason)


def effective(
    sshd: Sshd, user: str, prefix: Sequence[str] = ()
) -> Mapping[str, tuple[str, ...]]:
    """Return the settings that sshd uses for a user who logs in from loopback.

    Keywords are in small letters; the values of one that is repeated are all there. Raises
    LockError.
    """
    where = f"user={user},host=localhost,addr=127.0.0.1,laddr=127.0.0.1,lport=22"
    argv = [*prefix, str(sshd.binary), "-T", "-f", str(sshd.config), "-C", where]
    done = commands.run(argv)
    if done.status != 0:
        raise LockError("sshd -T", done.reason)
    settings: dict[str, tuple[str, ...]] = {}
    for line in done.output.splitlines():
        keyword, _, value = line.partition(" ")
        settings[keyword.lower()] = (*settings.get(keyword.lower(), ()), value)
    return settings
