"""Who may log in and when, on the node's disk, where pam-gate reads it. It judges no policy.

The form is in docs/architecture.md; it is made for a shell's `read`.
"""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from ..errors import StateError
from ..files import identity, read_file, replace_file
from .model import Policy

log = logging.getLogger(__name__)

ACCESS_MODE = 0o600
ACCESS_BYTES_MAX = 32 * 1024 * 1024
HEADER = b"sentinel-access 1 "
# It is printed on the terminal of whoever is refused.
URL = re.compile(r"https?://[!-~]{1,200}")


def encode_access(
    policy: Policy, opens: Mapping[int, datetime] | None = None, booking_url: str = ""
) -> bytes:
    """Return the access file's content; `opens` as in `policy.encode`.

    Whole seconds, so that the gate is never narrower than get-keys. A line for each grant that
    opens at some time and has a key: get-keys lets nobody in without one. The earliest comes
    first: pam-gate reads no further than to the first that is not open yet.
    """
    url = booking_url if URL.fullmatch(booking_url) else "-"
    lines = []
    for grant in policy.grants:
        starts = max(grant.not_before, (opens or {}).get(grant.reservation, grant.not_before))
        if grant.keys and starts < grant.not_after:
            # With its policy's expiry in it, a line is never good for longer than its file.
            ends = min(grant.not_after, policy.expires_at)
            lines.append((_floor(starts), _ceil(ends), grant.user))
    text = "".join(f"{user} {start} {end}\n" for start, end, user in sorted(lines))
    header = f"{HEADER.decode()}{_ceil(policy.expires_at)} {url}\n"
    return (header + text).encode()


class Access:
    """The access file; only the agent writes it."""

    def __init__(self, path: Path, booking_url: str = "") -> None:
        self.path = path
        self.booking_url = booking_url
        self._written: tuple[int, ...] | None = None

    def store(self, policy: Policy, opens: Mapping[int, datetime] | None = None) -> None:
        """Replace the file. Raises StateError: whoever lost access has none all the same."""
        content = encode_access(policy, opens, self.booking_url)
        try:
            self._written = identity(replace_file(self.path, content, mode=ACCESS_MODE))
        except StateError:
            self._written = None
            self._withdraw(set(content.splitlines()))
            raise

    def adopt(self, cached_at: datetime) -> None:
        """Take a file that was written after the cache, at `cached_at`, for the one stored.

        It is never older than the cache unless the agent was cut off between the two. Where it
        says less than the cache, the cache could not be written, and the file must not be made
        from it again.
        """
        try:
            found = self.path.lstat()
            content = read_file(self.path, bytes_max=ACCESS_BYTES_MAX)
        except (OSError, StateError):
            return
        is_newer = found.st_mtime >= cached_at.timestamp()
        if is_newer and content is not None and content.startswith(HEADER):
            self._written = identity(found)

    def is_as_stored(self) -> bool:
        """Say whether the file is still the one that this process stored."""
        try:
            return identity(self.path.lstat()) == self._written
        except OSError:
            return False

    def _withdraw(self, kept: set[bytes]) -> None:
        """Blank out the lines that are not `kept`; remove the file if that fails.

        On a full disk a new file cannot be made, but an old one can be written over. pam-gate,
        reading at the same time, finds in each place the old byte or `#`, and lets nobody in on
        a line with a `#`.
        """
        try:
            content = read_file(self.path, bytes_max=ACCESS_BYTES_MAX)
            if content is None:
                return
            opened = os.open(self.path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                place = content.find(b"\n") + 1
                for line in content[place:].split(b"\n"):
                    if line not in kept:
                        os.pwrite(opened, b"#" * len(line), place)
                    place += len(line) + 1
                os.fsync(opened)
            finally:
                os.close(opened)
        except (OSError, StateError) as error:
            log.error("access file is removed: nobody is let in reason=%s", error)
            try:
                self.path.unlink(missing_ok=True)
            except OSError as worse:
                log.error("access file not removed reason=%s", worse)


def _floor(when: datetime) -> int:
    return math.floor(when.timestamp())


def _ceil(when: datetime) -> int:
    return math.ceil(when.timestamp())
