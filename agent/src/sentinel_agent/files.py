"""Reading and replacing the agent's own files so that others see the old or the new one whole.

It knows nothing of what is in them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .errors import StateError

# Held by the agent that runs, in the state folder.
AGENT_LOCK = "agent.lock"


def replace_file(path: Path, content: bytes, *, mode: int, gid: int = 0) -> os.stat_result:
    """Put a root-owned file in place of `path` and return its stat; survives power loss.

    A symbolic link at `path` is replaced, never followed; a folder is moved aside. Raises
    StateError.
    """
    try:
        _check_folder(path.parent)
        opened, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(opened, "wb") as new:
                new.write(content)
                new.flush()
                if os.geteuid() == 0:
                    os.fchown(new.fileno(), 0, gid)
                os.fchmod(new.fileno(), mode)
                os.fsync(new.fileno())
                written = os.fstat(new.fileno())
            if path.is_dir() and not path.is_symlink():
                # Only root can have made it. What is in it is kept, under another name.
                path.replace(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
            Path(name).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(name).unlink()
            raise
        # The new name itself must be on the disk too.
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise StateError(f"cannot write {path}: {error.strerror}") from error
    return written


def read_file(path: Path, *, bytes_max: int) -> bytes | None:
    """Return the file's content, None when there is none.

    Raises StateError for what only root should have written and others can write, for a
    symbolic link, and for more than `bytes_max` bytes.
    """
    try:
        opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateError(f"cannot read {path}: {error.strerror}") from error
    try:
        found = os.fstat(opened)
        if not stat.S_ISREG(found.st_mode):
            raise StateError(f"cannot read {path}: not a file")
        if found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o022:
            raise StateError(f"cannot read {path}: others than root can write it")
        if found.st_size > bytes_max:
            raise StateError(f"cannot read {path}: larger than {bytes_max} bytes")
        # Only now: Python makes no file of a folder.
        with os.fdopen(opened, "rb", closefd=False) as file:
            return file.read(bytes_max)
    except OSError as error:
        raise StateError(f"cannot read {path}: {error.strerror}") from error
    finally:
        os.close(opened)


def identity(found: os.stat_result) -> tuple[int, ...]:
    """Return what changes when the file is replaced, written or given to somebody else."""
    # Not the change time: the rename itself moves it.
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_mode,
            found.st_uid, found.st_gid)  # fmt: skip


@contextlib.contextmanager
def sole_agent(state_dir: Path) -> Iterator[bool]:
    """Keep other agents of this node away, and say whether none runs. Raises StateError.

    The kernel ends it with the process, however that ends.
    """
    try:
        opened = os.open(
            state_dir / AGENT_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
    except OSError as error:
        raise StateError(f"cannot use {state_dir}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(opened)


def _check_folder(folder: Path) -> None:
    found = folder.stat()
    if found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o022:
        raise StateError(f"cannot write in {folder}: others than root can write it")
