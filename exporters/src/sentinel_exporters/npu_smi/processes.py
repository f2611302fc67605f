"""Decode who uses the chips: the process table, and `-t proc-mem`. Pure: runs nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..accelerator import DeviceProcess
from .errors import NotSupported, explain, is_refusal
from .tables import Block
from .values import BYTES, NO_READING, Damaged, read_whole, split_unit

# A name may have spaces, or be missing.
_PROCESS_LINE = re.compile(
    r"\s*Process id:(\d{1,10})\s+Process name:.*?\s*Process memory\((\w+)\):\s*(\d{1,15})\s*",
    re.ASCII,
)
_MARK = re.compile(r"\s*Chip (?:ID\s+:\s*(\d{1,9})|Name\s+:.*)\s*", re.ASCII)
_NO_PROCESS = re.compile(r"No running processes found in NPU (\d{1,9})", re.ASCII)


@dataclass(frozen=True)
class Process:
    """One process on a chip.

    `chip_id` is None where only the card is told, `pid` where the tool has no number for it.
    """

    npu_id: int
    chip_id: int | None
    pid: int | None
    memory_bytes: int | None


def is_process_header(block: Block) -> bool:
    """Whether the block is the heading of the process table."""
    return len(block.rows) == 1 and "Process id" in block.rows[0]


def read_process_table(
    header: Block, blocks: Sequence[Block]
) -> tuple[tuple[Process, ...], frozenset[int]]:
    """Return the processes and the cards that the table speaks of.

    Raises Damaged for anything that is not known: half a table would call busy chips idle.
    """
    if any(block.is_torn or not block.is_closed for block in (header, *blocks)):
        raise Damaged("it is torn or ends in its middle")
    columns = [split_unit(cell) for cell in header.rows[0]]
    at = {name: number for number, (name, _) in enumerate(columns)}
    is_known = {"process id", "process memory"} <= at.keys()
    if not is_known or columns[0][0].split()[:1] != ["npu"]:
        raise Damaged(f"its header is not known: {header}")
    unit = BYTES.get(columns[at["process memory"]][1])
    if unit is None:
        raise Damaged(f"its unit of memory is not known: {header}")
    processes: list[Process] = []
    counted: set[int] = set()
    for row in (row for block in blocks for row in block.rows):
        none_here = _NO_PROCESS.fullmatch(row[0])
        if len(row) == 1 and none_here:
            counted.add(int(none_here[1]))
            continue
        place = [read_whole(word) for word in row[0].split()]
        if len(row) != len(columns) or not 1 <= len(place) <= 2:
            raise Damaged(f"a row is not known: {' | '.join(row)[:120]}")
        pid, memory = row[at["process id"]], row[at["process memory"]]
        processes.append(
            Process(
                npu_id=place[0],
                chip_id=place[1] if len(place) == 2 else None,
                pid=None if pid in NO_READING else read_whole(pid),
                memory_bytes=None if memory in NO_READING else read_whole(memory) * unit,
            )
        )
        counted.add(place[0])
    return tuple(processes), frozenset(counted)


def parse_process_memory(text: str) -> dict[int | None, list[DeviceProcess]]:
    """Return the processes of each chip of a card, as `-t proc-mem` prints them.

    The key None is the only chip. Raises NotSupported when the tool says that it cannot tell
    it, and Damaged for what is not known or not whole.
    """
    if text and not text.endswith("\n"):
        raise Damaged("it ends in the middle of a line")
    chips: dict[int | None, list[DeviceProcess]] = {}
    rows: list[DeviceProcess] = []
    has_rows = False  # "No process" counts: the chip was asked and has none
    for line in text.splitlines():
        if line.lstrip().startswith("Process id"):
            rows.append(_read_process_line(line))
            has_rows = True
        elif "No process in device" in line:
            has_rows = True
        elif has_rows and (mark := _MARK.fullmatch(line)):
            # The controller has a name and no number, and no processes.
            if mark[1]:
                chips[int(mark[1])] = rows
            rows, has_rows = [], False
    if has_rows:
        # With the count of chips it says of each whose processes these are.
        if chips or "Chip Count" in text:
            raise Damaged("it ends in the middle of a chip")
        chips[None] = rows
    if not chips:
        raise NotSupported(explain(text)) if is_refusal(text) else Damaged(explain(text))
    return chips


def _read_process_line(line: str) -> DeviceProcess:
    found = _PROCESS_LINE.fullmatch(line)
    if not found:
        raise Damaged(f"a line is not known: {line.strip()[:120]}")
    unit = BYTES.get(found[2])
    if unit is None:
        raise Damaged(f"its unit of memory is not known: {line.strip()[:120]}")
    return DeviceProcess(int(found[1]), int(found[3]) * unit)
