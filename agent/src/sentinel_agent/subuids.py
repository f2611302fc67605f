"""Reads which uids were lent to whom for containers without root. It looks no account up.

The kernel says whose container a process is in (sessions/namespaces.py). This is for processes
outside of any: what a container's root made setuid, everybody can start, under a lent uid.
Ranges that come from a directory (getsubids(1)) are not known here.
"""

from __future__ import annotations

from pathlib import Path

from .files import identity

SUBUID = Path("/etc/subuid")


class LentUids:
    """The ranges of subuid(5), read again when the file has changed."""

    def __init__(self, path: Path = SUBUID) -> None:
        self._path = path
        self._read: tuple[int, ...] | None = None
        self._ranges: list[tuple[str, range]] = []

    def lender_of(self, uid: int) -> str | None:
        """Return the account that the uid was lent to, as the file names it: name or number.

        None for a uid that was lent to nobody, or to several: it is not known whose it is then.
        """
        try:
            found = identity(self._path.stat())
            if found != self._read:
                self._ranges = _parse(self._path.read_text(errors="replace"))
                self._read = found
        except OSError:
            # What was lent before was not taken back by that.
            pass
        lenders = {lender for lender, uids in self._ranges if uid in uids}
        return lenders.pop() if len(lenders) == 1 else None


def _parse(text: str) -> list[tuple[str, range]]:
    ranges = []
    for line in text.splitlines():
        lender, _, numbers = line.strip().partition(":")
        first, _, count = numbers.partition(":")
        if lender and first.isdecimal() and count.isdecimal():
            ranges.append((lender, range(int(first), int(first) + int(count))))
    return ranges
