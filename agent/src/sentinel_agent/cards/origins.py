"""What each card's device file was before the agent changed it, kept on the disk.

It gives the files back, and decides neither when nor which. A disk that hangs holds nobody up
for longer than a second.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import StateError
from ..files import read_file, replace_file
from .acl import Acl, DeviceFile, NotADevice, read_device, write_device

log = logging.getLogger(__name__)

BYTES_MAX = 1024 * 1024
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
DEV = Path("/dev")
# A disk that is well takes a few milliseconds.
WRITE_WAIT_S = 1.0


@dataclass(frozen=True)
class Origin:
    """Owner and ACL of a device's file as it was found; `file` as in `DeviceFile`."""

    file: tuple[int, int]
    uid: int
    gid: int
    acl: Acl


class _OriginFile(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    file_system: int
    inode: int
    uid: int
    gid: int
    # As the kernel has it, in hexadecimal.
    acl: str


class _OriginsFile(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    # /dev is made anew at each start of the machine, and its inodes are counted from the start.
    boot_id: str
    cards: dict[str, _OriginFile]


class Origins:
    """The file `cards.json` of the state folder.

    `was_changed` says whether device files were changed and not given back, be it before the
    last start of the machine: then they are as their drivers make them, and locked no more.
    """

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / "cards.json"
        self._boot_id = BOOT_ID.read_text().strip()
        self._origins: dict[str, Origin] = {}
        # Whether the file says what is in memory.
        self._is_stored = True
        self._writer: threading.Thread | None = None
        self.was_changed = False

    def get(self, card: str) -> Origin | None:
        """Return what the card's file was, None for one that was never changed."""
        return self._origins.get(card)

    def load(self) -> None:
        """Read the file, if there is one. Raises StateError and knows nothing then."""
        text = read_file(self.path, bytes_max=BYTES_MAX)
        if text is None:
            return
        try:
            document = _OriginsFile.model_validate_json(text)
            origins = {
                card: Origin(
                    (entry.file_system, entry.inode), entry.uid, entry.gid,
                    Acl.decode(bytes.fromhex(entry.acl)),
                )
                for card, entry in document.cards.items()
            }  # fmt: skip
        except (ValidationError, ValueError):
            self.was_changed = True
            raise StateError(
                f"{self.path} is damaged: what the device files were before is not known"
            ) from None
        self.was_changed = True
        if document.boot_id == self._boot_id:
            self._origins = origins

    def add(self, found: Mapping[str, Origin]) -> None:
        """Remember what these were, and write it down.

        Raises StateError; it is remembered in memory then, and the next call writes it.
        """
        if any(self._origins.get(card) != origin for card, origin in found.items()):
            self._origins |= found
            self._is_stored = False
            self.was_changed = True
        if not self._is_stored:
            self._store()

    def give_back(self, dev: Path = DEV) -> list[str]:
        """Make all files what they were, and forget those; return one problem for each other.

        A file that was made anew since then is not the one that was changed: it stays as it is.
        Raises StateError when the file cannot be written or removed.
        """
        problems: list[str] = []
        if not self.was_changed:
            return problems
        for card, origin in sorted(self._origins.items()):
            try:
                if read_device(dev / card).file == origin.file:
                    write_device(dev / card, uid=origin.uid, gid=origin.gid, acl=origin.acl)
                    log.info("card given back card=%s acl=%s", card, origin.acl)
            except (FileNotFoundError, NotADevice):
                pass
            except OSError as error:
                problems.append(f"{dev / card} cannot be given back: {error.strerror}")
                continue
            del self._origins[card]
            self._is_stored = False
        if not self._origins or not self._is_stored:
            self._store()
        self.was_changed = bool(self._origins)
        return problems

    def _store(self) -> None:
        """Have the file say what is in memory. Raises StateError, also when the disk hangs."""
        overdue = StateError(f"cannot write {self.path}: the disk does not answer")
        if self._writer is not None and self._writer.is_alive():
            raise overdue
        failures: list[Exception] = []
        content = self._encode()

        def write() -> None:
            try:
                self._write(content)
            except Exception as error:  # raised again below, by who waits for it
                failures.append(error)

        self._writer = threading.Thread(target=write, name="card-origins", daemon=True)
        self._writer.start()
        self._writer.join(WRITE_WAIT_S)
        if self._writer.is_alive():
            raise overdue
        if failures:
            raise failures[0]
        self._is_stored = True

    def _write(self, content: bytes) -> None:
        if content:
            replace_file(self.path, content, mode=0o600)
            return
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise StateError(f"cannot remove {self.path}: {error.strerror}") from error

    def _encode(self) -> bytes:
        """Return the file's content, empty where there is to be none."""
        if not self._origins:
            return b""
        cards = {
            card: _OriginFile(
                file_system=origin.file[0], inode=origin.file[1], uid=origin.uid,
                gid=origin.gid, acl=origin.acl.encode().hex(),
            )
            for card, origin in self._origins.items()
        }  # fmt: skip
        document = _OriginsFile(boot_id=self._boot_id, cards=cards)
        return document.model_dump_json().encode()


def origin_of(found: DeviceFile) -> Origin:
    """Return what the file is now, to make it that again."""
    return Origin(found.file, found.uid, found.gid, found.acl)
