"""What the lock's files should say, locked and open, and how they differ from what is there.

It reads them and writes nothing.
"""

from __future__ import annotations

from pathlib import Path

from ..config import Config
from ..errors import LockError
from . import drop_in, pam, sshd
from .drop_in import LockText
from .sshd import Sshd

PAM_FILE = Path("/etc/pam.d/sshd")


def lock_text(config: Config, program: Sshd) -> LockText:
    """Return what the drop-in for this sshd depends on. Raises LockError for one too old."""
    if program.version < drop_in.OLDEST:
        raise LockError("sshd", f"OpenSSH {program.version_text} is older than 8.2")
    return LockText(
        program.version, config.cache_group, config.breakglass_group, config.operator_networks
    )


def locked_files(config: Config, text: LockText) -> dict[Path, str]:
    """Return the files that must change, as they are when locked, in the order of writing.

    Raises LockError where the lock cannot be written into what is there.
    """
    files = {config.sshd_drop_in: drop_in.render_drop_in(text)}
    main = read_text(sshd.MAIN_CONFIG)
    if not _is_first(config, main):
        files[sshd.MAIN_CONFIG] = drop_in.put_first(main, str(config.sshd_drop_in))
    if not PAM_FILE.exists():
        raise LockError("pam", f"no {PAM_FILE}: PAM has no configuration for sshd")
    try:
        files[PAM_FILE] = pam.insert(read_text(PAM_FILE), _block(config), pam.read_service)
    except ValueError as error:
        raise LockError("pam", f"{PAM_FILE}: {error}") from error
    return files


def open_files(config: Config) -> dict[Path, str | None]:
    """Return the files that must change, as they are without the lock; None: not there."""
    files: dict[Path, str | None] = {}
    if config.sshd_drop_in.exists():
        files[config.sshd_drop_in] = None
    main, service = read_text(sshd.MAIN_CONFIG), read_text(PAM_FILE)
    if (without := drop_in.take_out(main, str(config.sshd_drop_in))) != main:
        files[sshd.MAIN_CONFIG] = without
    # The last: until sshd has read its own, get-keys holds the door, as pam-gate does.
    if (without := pam.remove(service)) != service:
        files[PAM_FILE] = without
    return files


def find_drift(config: Config) -> list[str]:
    """Say in words how the files differ from the locked ones. Raises LockError."""
    found = []
    own = config.sshd_drop_in
    text = lock_text(config, sshd.find_sshd())
    if not own.exists():
        found.append(f"{own} is missing")
    elif read_text(own) != drop_in.render_drop_in(text):
        found.append(f"{own} is not as it should be")
    if not _is_first(config, read_text(sshd.MAIN_CONFIG)):
        found.append(f"sshd reads something else before {own.name}{_earlier(own)}")
    if not pam.has_block(read_text(PAM_FILE), _block(config), pam.read_service):
        found.append(f"{PAM_FILE} does not begin its account phase with pam-gate")
    return found


def find_foreign_commands(config: Config) -> list[str]:
    """Return each AuthorizedKeysCommand of another package, as `file: command`."""
    files = [sshd.MAIN_CONFIG, *sorted(config.sshd_drop_in.parent.glob("*.conf"))]
    texts = [(str(path), read_text(path)) for path in files if path != config.sshd_drop_in]
    return drop_in.foreign_commands(texts)


def read_text(path: Path) -> str:
    """Return a file's text, whatever its bytes are; empty when it is not there.

    Raises LockError.
    """
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise LockError("read", f"{path}: {error.strerror}") from error


def _block(config: Config) -> str:
    try:
        return pam.render_block(config.breakglass_group, config.ignored_users)
    except ValueError as error:
        raise LockError("pam", str(error)) from error


def _is_first(config: Config, main: str) -> bool:
    folder = config.sshd_drop_in.parent
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return drop_in.is_read_first(main, str(config.sshd_drop_in), names)


def _earlier(own: Path) -> str:
    names = sorted(path.name for path in own.parent.glob("*.conf") if path.name < own.name)
    return f": {', '.join(names)}" if names else ""
