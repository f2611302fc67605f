"""What `install` made on this node, so that `uninstall` can take away that and no more.

It does neither. The record is written before each change, and complete at the end: install.json
is there only on a node that is installed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import StateError
from ..files import read_file, replace_file

RECORD = "install.json"
UNFINISHED = "install-unfinished.json"
RECORD_BYTES_MAX = 1024 * 1024

Kind = Literal["folder", "mode", "file", "link", "user", "group", "member", "unit"]


class Made(BaseModel):
    """One thing that was made or changed.

    `digest`: a file's SHA-256, a link's target, a member's group, or the mode and gid that a
    folder had. `before`: what was in the file's place, in base64; None: nothing.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Kind
    name: str
    digest: str = ""
    before: str | None = None


class _RecordFile(BaseModel):
    # What another version of the agent put there besides is no damage: without its record a
    # node could be neither upgraded nor given back.
    model_config = ConfigDict(extra="ignore")
    format: Literal[1] = 1
    agent_version: str = ""
    breakglass_port: int = 0
    made: tuple[Made, ...] = ()


@dataclass(frozen=True)
class Record:
    """The record in memory; `made` is in the order in which it was made."""

    agent_version: str = ""
    breakglass_port: int = 0
    made: tuple[Made, ...] = field(default=())

    def with_made(self, made: Made) -> Record:
        """Return the record with this in it, once.

        What is made a second time keeps its place, and what was there before the first.
        """
        known = self.find(made.kind, made.name)
        if known is None:
            return replace(self, made=(*self.made, made))
        again = made.model_copy(update={"before": known.before})
        if made.kind == "mode":
            again = known
        return replace(self, made=tuple(again if one is known else one for one in self.made))

    def find(self, kind: Kind, name: str) -> Made | None:
        """Return what was made of this kind and name."""
        return next((one for one in self.made if (one.kind, one.name) == (kind, name)), None)


def load_record(state_dir: Path) -> tuple[Record | None, bool]:
    """Return the record, and whether the installation is complete. Raises StateError."""
    unfinished = _load(state_dir / UNFINISHED)
    finished = _load(state_dir / RECORD)
    return unfinished or finished, finished is not None and unfinished is None


def store_progress(state_dir: Path, record: Record) -> None:
    """Remember what is being made. Raises StateError."""
    replace_file(state_dir / UNFINISHED, _encode(record), mode=0o600)


def store_complete(state_dir: Path, record: Record) -> None:
    """Remember that all is made: from now on the agent brings sshd to the mode in force.

    Raises StateError.
    """
    replace_file(state_dir / RECORD, _encode(record), mode=0o600)
    (state_dir / UNFINISHED).unlink(missing_ok=True)


def digest(content: bytes) -> str:
    """Return a file's SHA-256."""
    return hashlib.sha256(content).hexdigest()


def _encode(record: Record) -> bytes:
    document = _RecordFile(
        agent_version=record.agent_version,
        breakglass_port=record.breakglass_port,
        made=record.made,
    )
    return document.model_dump_json(indent=1).encode()


def _load(path: Path) -> Record | None:
    text = read_file(path, bytes_max=RECORD_BYTES_MAX)
    if text is None:
        return None
    try:
        document = _RecordFile.model_validate_json(text)
    except ValidationError:
        raise StateError(f"{path} is damaged") from None
    return Record(document.agent_version, document.breakglass_port, document.made)
