"""The policy on the node's disk, where get-keys reads it. It judges no policy."""

from __future__ import annotations

import grp
import stat
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from ..errors import PolicyRefused, StateError
from ..files import identity, read_file, replace_file
from . import model as policies
from .model import Policy

# As get_keys.py: what is larger, it does not read.
CACHE_BYTES_MAX = 32 * 1024 * 1024
CACHE_MODE = 0o640


class Cache:
    """The cache file; only the agent writes it."""

    def __init__(self, path: Path, group: str) -> None:
        self.path = path
        self.group = group
        self._written: tuple[int, ...] | None = None

    def load(self) -> Policy | None:
        """Return the policy written last, None when there is none. Raises as `load_held`."""
        held = self.load_held()
        return held[0] if held is not None else None

    def load_held(self) -> tuple[Policy, dict[int, datetime]] | None:
        """Return the policy and `opens` written last, None when there are none.

        Raises StateError when they are damaged or could have been written by others.
        """
        before = self._identity()
        text = read_file(self.path, bytes_max=CACHE_BYTES_MAX)
        if text is None:
            return None
        try:
            policy, opens, problems = policies.decode_text(text)
        except PolicyRefused as refusal:
            raise StateError(f"{self.path} is damaged: {refusal}") from refusal
        if problems:
            # Only whole grants were written: something else wrote this.
            raise StateError(f"{self.path} is damaged: {problems[0]}")
        # It need not be written again, and must not look newer than the access file for it.
        if before == self._identity() and self._is_readable_to_group():
            self._written = before
        return policy, opens

    def store(self, policy: Policy, opens: Mapping[int, datetime] | None = None) -> None:
        """Replace the cache; `opens` as in `policy.encode`. Raises StateError."""
        # Until the new one is there, what is there is not what was to be stored.
        self._written = None
        try:
            gid = grp.getgrnam(self.group).gr_gid
        except KeyError:
            raise StateError(f"no group {self.group}: get-keys could not read") from None
        content = policies.encode(policy, opens)
        if len(content) > CACHE_BYTES_MAX:
            raise StateError(f"the policy is larger than {CACHE_BYTES_MAX} bytes")
        self._written = identity(replace_file(self.path, content, mode=CACHE_MODE, gid=gid))

    def written_at(self) -> datetime:
        """Return when the cache was written, by this node's clock. Raises StateError."""
        try:
            return datetime.fromtimestamp(self.path.stat().st_mtime, UTC)
        except OSError as error:
            raise StateError(f"cannot read {self.path}: {error.strerror}") from error

    def is_as_stored(self) -> bool:
        """Say whether the file is still the one that this process stored or loaded."""
        return self._written is not None and self._identity() == self._written

    def _identity(self) -> tuple[int, ...] | None:
        try:
            return identity(self.path.lstat())
        except OSError:
            return None

    def _is_readable_to_group(self) -> bool:
        """Say whether the file's owner, group and mode are as `store` makes them."""
        try:
            found = self.path.lstat()
            gid = grp.getgrnam(self.group).gr_gid
        except (OSError, KeyError):
            return False
        return (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (CACHE_MODE, 0, gid)
