"""Changes several of the site's files so that all are changed or none, whatever happens.

It knows nothing of what is in them. Before the first file is touched a journal says which they
are, and each has a second name (a hard link): to put one back is a rename, which works on a
full disk and brings back owner, mode and label with the bytes.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from .. import commands
from ..errors import StateError
from ..files import read_file, replace_file

log = logging.getLogger(__name__)

JOURNAL_BYTES_MAX = 64 * 1024
NEW_FILE_MODE = 0o644


class _Journal(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    files: dict[str, bool]
    note: str


class Change:
    """One change at a time; `journal` is the file that remembers it over a kill or a power cut.

    The caller sees to it that no other process changes the same files: see switch.py.
    """

    def __init__(self, journal: Path) -> None:
        self.journal = journal

    def is_pending(self) -> bool:
        """Say whether a change was begun and neither kept nor undone."""
        return self.journal.exists()

    def begin(self, paths: Iterable[Path], note: str = "") -> None:
        """Make it possible to undo what is done to these files; `note` is for the undoer.

        Raises StateError.
        """
        entries = {str(path.resolve()): path.exists() for path in paths}
        document = json.dumps({"files": entries, "note": note}).encode()
        try:
            for name in entries:
                _backup(Path(name)).unlink(missing_ok=True)
            replace_file(self.journal, document, mode=0o600)
            for name, existed in entries.items():
                if existed:
                    os.link(name, _backup(Path(name)))
                    _sync(Path(name).parent)
        except OSError as error:
            raise StateError(f"cannot keep {error.filename}: {error.strerror}") from error

    def write(self, path: Path, content: str | None) -> None:
        """Replace a file, or remove it for None. Raises StateError."""
        target = path.resolve()
        try:
            if content is None:
                target.unlink(missing_ok=True)
                _sync(target.parent)
            else:
                _replace(target, content.encode("utf-8", "surrogateescape"))
        except OSError as error:
            raise StateError(f"cannot write {target}: {error.strerror}") from error

    def keep(self) -> None:
        """Let the change stand: what was before is gone. Raises StateError."""
        paths = self._entries()
        self.forget()
        for path in paths:
            # One that stays does no harm: the next change removes it.
            with contextlib.suppress(OSError):
                _backup(path).unlink(missing_ok=True)

    def undo(self) -> None:
        """Put everything back as it was; it is pending until `forget`. Raises StateError.

        What was put back already stays so when it is called again.
        """
        try:
            for path, existed in self._entries().items():
                backup = _backup(path)
                _new(path).unlink(missing_ok=True)
                if not existed:
                    path.unlink(missing_ok=True)
                elif backup.exists():
                    _put_back(backup, path)
                _sync(path.parent)
        except OSError as error:
            raise StateError(f"cannot put {error.filename} back: {error.strerror}") from error

    def forget(self) -> None:
        """End a change that was undone. Raises StateError."""
        try:
            self.journal.unlink(missing_ok=True)
            _sync(self.journal.parent)
        except OSError as error:
            raise StateError(f"cannot remove {self.journal}: {error.strerror}") from error

    def note(self) -> str:
        """Return the note of the change that is pending. Raises StateError."""
        return self._read().note

    def _entries(self) -> dict[Path, bool]:
        """Return the files and whether each was there before. Raises StateError."""
        return {Path(name): existed for name, existed in self._read().files.items()}

    def _read(self) -> _Journal:
        text = read_file(self.journal, bytes_max=JOURNAL_BYTES_MAX)
        if text is None:
            return _Journal(files={}, note="")
        try:
            return _Journal.model_validate_json(text)
        except ValidationError:
            raise StateError(f"{self.journal} is damaged") from None


def restore_context(path: Path) -> None:
    """Give a new file the SELinux label of its place, where SELinux is on."""
    if Path("/sys/fs/selinux/enforce").exists() and shutil.which("restorecon"):
        commands.run(["restorecon", "-F", str(path)])


def _backup(path: Path) -> Path:
    # Neither sshd's *.conf nor PAM takes this name for one of its files.
    return path.with_name(f".{path.name}.before-sentinel")


def _put_back(backup: Path, path: Path) -> None:
    if path.exists() and path.samefile(backup):
        backup.unlink()  # it was not changed yet
        return
    try:
        backup.replace(path)
    except OSError as error:
        # overlayfs may refuse to rename a hard link (ESTALE); what the file says counts.
        log.warning("file not renamed path=%s reason=%s", backup, error.strerror)
        content, found = backup.read_bytes(), backup.stat()
        _replace(path, content)
        os.chown(path, found.st_uid, found.st_gid)
        path.chmod(found.st_mode & 0o7777)
        backup.unlink()


def _new(path: Path) -> Path:
    return path.with_name(f".{path.name}.new-sentinel")


def _replace(target: Path, content: bytes) -> None:
    # One name, so that what a kill leaves is found again.
    new = _new(target)
    new.unlink(missing_ok=True)
    opened = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(opened, "wb") as file:
            file.write(content)
            file.flush()
            if target.exists():
                found = target.stat()
                os.fchown(file.fileno(), found.st_uid, found.st_gid)
                os.fchmod(file.fileno(), found.st_mode & 0o7777)
                _copy_attributes(target, new)
            else:
                os.fchmod(file.fileno(), NEW_FILE_MODE)
            os.fsync(file.fileno())
        is_new = not target.exists()
        new.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            new.unlink()
        raise
    _sync(target.parent)
    if is_new:
        restore_context(target)


def _copy_attributes(source: Path, target: Path) -> None:
    for name in os.listxattr(source):
        # A file system that does not take them has none that matter.
        with contextlib.suppress(OSError):
            os.setxattr(target, name, os.getxattr(source, name))


def _sync(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
