"""Who held a reservation on this node, on the disk: a restart of the agent forgets nothing.

It ends nobody and decides nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import StateError
from ..files import read_file, replace_file
from .handover import NOTHING

STATE_BYTES_MAX = 4 * 1024 * 1024


class _GrantedFile(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    users: dict[str, int] = {}
    touched: dict[str, list[str]] = {}
    exempt: list[str] = []


class GrantedUsers:
    """Users who held a reservation on this node at some time, and what they may still use.

    `users`: their uid when it was looked up last. `touched`: the devices that each of them
    holds or held last (handover.WHOLE_NODE for all); whoever had left nothing when it was
    looked is not in it. `exempt`: who was seen in the break-glass group: that may be in a
    directory that is away for the moment.
    """

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / "granted.json"
        self.users: Mapping[str, int] = {}
        self.touched: Mapping[str, frozenset[str]] = {}
        self.exempt: frozenset[str] = frozenset()
        self._stored = b""

    def load(self) -> None:
        """Read the file, if there is one. Raises StateError and knows nobody then."""
        text = read_file(self.path, bytes_max=STATE_BYTES_MAX)
        if text is None:
            return
        try:
            document = _GrantedFile.model_validate_json(text)
        except ValidationError:
            raise StateError(f"{self.path} is damaged and was ignored") from None
        self.users = document.users
        self.touched = {user: frozenset(found) for user, found in document.touched.items()}
        self.exempt = frozenset(document.exempt)
        self._stored = text

    def touch(self, held: Mapping[str, frozenset[str]]) -> None:
        """Add to what these users may still use; `save` writes it."""
        more = {user: self.touched.get(user, NOTHING) | them for user, them in held.items()}
        self.touched = {**self.touched, **more}

    @property
    def is_changed(self) -> bool:
        """Say whether `save` has something to write."""
        return self._content() != self._stored

    def save(self) -> None:
        """Write what has changed. Raises StateError; it stays in memory then."""
        content = self._content()
        if content != self._stored:
            replace_file(self.path, content, mode=0o600)
            self._stored = content

    def _content(self) -> bytes:
        document = {
            "users": dict(sorted(self.users.items())),
            "touched": {user: sorted(them) for user, them in sorted(self.touched.items())},
            "exempt": sorted(self.exempt),
        }
        return json.dumps(document).encode()
