"""Decode the process table of `npu-smi info`. Pure: runs nothing.

Users choose the names of their processes: up to 15 bytes of anything (PR_SET_NAME in prctl(2)),
`|` and line feeds too. So a row is read by the places of the header's separators, from the
left before the name and from the right behind it, and what lies between is the name.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from .processes import Process
from .tables import BORDER
from .values import BYTES, NO_READING, Damaged, read_whole, split_unit

_NO_PROCESS = re.compile(r"\|\s*No running processes found in NPU (\d{1,9})\s*\|", re.ASCII)
_NAME_BYTES = 15
_MAX_LINES = _NAME_BYTES + 1  # of a row


@dataclass(frozen=True)
class ProcessTable:
    """What the table tells.

    `counted_npus` are the cards that it speaks of and of whose rows all could be read.
    """

    processes: tuple[Process, ...] = ()
    counted_npus: frozenset[int] = frozenset()
    problems: tuple[str, ...] = ()


def is_process_header(line: str) -> bool:
    """Whether the line is the heading of the process table."""
    return line.lstrip().startswith("|") and "Process id" in map(str.strip, line.split("|"))


def read_process_table(lines: Sequence[str]) -> ProcessTable:
    """Return what the lines tell, of which the first is the heading.

    A row that is not known takes its card out of those that are counted, for half a list would
    call a busy chip idle. Raises Damaged when it is not known whose the row is, when the
    heading is not known, and when the table ends in its middle.
    """
    form = _read_header(lines[0].rstrip())
    groups = [_Group()]
    at, is_closed = 1, False
    while at < len(lines):
        line = lines[at].strip()
        if _is_border(line):
            groups.append(_Group())
            is_closed = True
        elif none_here := _NO_PROCESS.fullmatch(line):
            groups[-1].idle_npus.add(int(none_here[1]))
            is_closed = False
        elif line.startswith("|"):
            at += groups[-1].read_row(form, lines[at : at + _MAX_LINES]) - 1
            is_closed = False
        at += 1
    if not is_closed:
        raise Damaged("it ends in its middle")
    lost = {npu for group in groups if group.refused for npu in group.npus()}
    counted = {npu for group in groups for npu in group.npus()} - lost
    return ProcessTable(
        tuple(one for group in groups for one in group.processes if one.npu_id in counted),
        frozenset(counted),
        tuple(group.problem() for group in groups if group.refused),
    )


@dataclass(frozen=True)
class _Form:
    """Where the header has its separators: those before the name, and those behind it.

    The latter are counted from the end of the line: a name that is not ASCII is padded by its
    bytes, and has fewer characters.
    """

    width: int
    cells: int
    left: Sequence[int]
    right: Sequence[int]
    memory_unit: int

    def split(self, row: str) -> tuple[list[str], list[str]] | None:
        """Return the cells before and behind the name, or None where the row has another form.

        Those before are the place and the process id, the first behind is its memory. A whole
        line that is as wide as the header is no piece of a name, and may be shifted by a long
        value: it needs the header's number of cells only.
        """
        return self._split_at_separators(row) or self._split_shifted(row)

    def _split_shifted(self, row: str) -> tuple[list[str], list[str]] | None:
        cells = [cell.strip() for cell in row.split("|")[1:-1]]
        count = self.cells
        if len(row) < self.width or len(cells) != count or "\n" in row or row[-1] != "|":
            return None
        return cells[: len(self.left) - 1], cells[count + 1 - len(self.right) :]

    def _split_at_separators(self, row: str) -> tuple[list[str], list[str]] | None:
        if len(row) != self.width and row.isascii():
            return None
        right = [len(row) + offset for offset in self.right]
        if self.left[-1] >= right[0] or any(row[one] != "|" for one in (*self.left, *right)):
            return None
        before, behind = (
            [row[start + 1 : end] for start, end in itertools.pairwise(separators)]
            for separators in (self.left, right)
        )
        if any("|" in cell for cell in (*before, *behind)):
            return None
        return [cell.strip() for cell in before], [cell.strip() for cell in behind]

    def take_row(self, lines: Sequence[str]) -> tuple[str, int]:
        """Return the row that begins with the first line, and how many lines it has.

        A line feed in the name counts for the width of the row, which is in bytes.
        """
        for count in range(1, len(lines) + 1):
            row = "\n".join(lines[:count]).rstrip()
            width = len(row.encode(errors="replace"))
            if (count == 1 or width == self.width) and self.split(row):
                return row, count
        return lines[0].rstrip(), 1

    def read_npu(self, row: str) -> int | None:
        """Return whose a row is that has another form, where it begins like the others."""
        start, end = self.left[:2]
        if len(row) > end and row[start] == row[end] == "|":
            words = row[start + 1 : end].split()
            if words and words[0].isdecimal() and words[0].isascii():
                return int(words[0])
        return None


def _read_header(header: str) -> _Form:
    offsets = [at for at, character in enumerate(header) if character == "|"]
    cells = [split_unit(cell) for cell in header.split("|")[1:-1]]
    at = {name: number for number, (name, _) in enumerate(cells)}
    pid, memory = at.get("process id", 0), at.get("process memory", 0)
    # The name is between the two.
    is_known = header.endswith("|") and pid == 1 and memory > 2
    if not is_known or cells[0][0].split()[:1] != ["npu"]:
        raise Damaged(f"its header is not known: {header.strip()[:120]}")
    unit = BYTES.get(cells[memory][1])
    if unit is None:
        raise Damaged(f"its unit of memory is not known: {header.strip()[:120]}")
    right = [offset - len(header) for offset in offsets[memory:]]
    return _Form(len(header), len(cells), offsets[: pid + 2], right, unit)


def _is_border(line: str) -> bool:
    # A shorter one may be a part of a name.
    return len(line) > _NAME_BYTES and BORDER.fullmatch(line) is not None


@dataclass
class _Group:
    """The rows between two borders: of one card, or of one chip."""

    processes: list[Process] = field(default_factory=list)
    idle_npus: set[int] = field(default_factory=set)
    refused: list[str] = field(default_factory=list)
    refused_npus: set[int] = field(default_factory=set)

    def npus(self) -> set[int]:
        """Return the cards that the rows are about; raises Damaged when that is not known."""
        npus = {one.npu_id for one in self.processes} | self.idle_npus | self.refused_npus
        if self.refused and not npus:
            raise Damaged(self.problem())
        return npus

    def problem(self) -> str:
        """Return what could not be read: one row for all, of which a user can make many."""
        more = f" (and {len(self.refused) - 1} more)" if len(self.refused) > 1 else ""
        return f"a row is not known: {self.refused[0]}{more}"

    def read_row(self, form: _Form, lines: Sequence[str]) -> int:
        """Read the row that begins with the first line, and return how many lines it has."""
        row, count = form.take_row(lines)
        try:
            self.processes.append(_read_process(form, row))
        except Damaged:
            self.refused.append(repr(row.strip())[:120])
            npu = form.read_npu(row)
            if npu is not None:
                self.refused_npus.add(npu)
        return count


def _read_process(form: _Form, row: str) -> Process:
    cells = form.split(row)
    if cells is None:
        raise Damaged("not the header's cells")
    (where, pid), (memory, *_) = cells
    place = [read_whole(word) for word in where.split()]
    if not 1 <= len(place) <= 2:
        raise Damaged("not a card and a chip")
    return Process(
        npu_id=place[0],
        chip_id=place[1] if len(place) == 2 else None,
        pid=None if pid in NO_READING else read_whole(pid),
        memory_bytes=None if memory in NO_READING else read_whole(memory) * form.memory_unit,
    )
