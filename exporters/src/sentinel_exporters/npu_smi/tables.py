"""Split npu-smi's drawn tables into blocks of rows and cells. Pure: knows no column."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from .values import split_lines

BORDER = re.compile(r"\+[-=+]*|\|=+\|")


@dataclass
class Block:
    """The rows between two borders."""

    rows: list[list[str]] = field(default_factory=list)
    is_torn: bool = False  # a row has lost its end
    is_closed: bool = False  # a border follows

    def __str__(self) -> str:
        return " / ".join(" | ".join(row) for row in self.rows)[:120]


def split_blocks(text: str) -> Iterator[Block]:
    """Yield the blocks of rows; what is neither row nor border is a log line."""
    block = Block()
    for line in split_lines(text):
        stripped = line.strip()
        if BORDER.fullmatch(stripped):
            if block.rows:
                block.is_closed = True
                yield block
                block = Block()
        elif stripped.startswith("|"):
            block.is_torn |= len(stripped) < 2 or not stripped.endswith("|")
            inner = stripped[1:].removesuffix("|")
            block.rows.append([cell.strip() for cell in inner.split("|")])
    if block.rows:
        yield block
