"""Decode who uses the chips, as `-t proc-mem` prints it. Pure: runs nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..accelerator import DeviceProcess
from .errors import NotSupported, explain, is_refusal
from .values import BYTES, Damaged, split_lines

# A name may have spaces, or be missing. It is the user's, of 15 bytes at most, and may have
# line feeds (PR_SET_NAME in prctl(2)).
_PROCESS_LINE = re.compile(
    r"\s*Process id:(\d{1,10})\s+Process name:(?:[^\n]*?|.{0,15}?)\s*"
    r"Process memory\((\w+)\):\s*(\d{1,15})\s*",
    re.ASCII | re.DOTALL,
)
_NAME_BYTES = 15
_MARK = re.compile(r"\s*Chip (?:ID\s+:\s*(\d{1,9})|Name\s+:.*)\s*", re.ASCII)


@dataclass(frozen=True)
class Process:
    """One process on a chip.

    `chip_id` is None where only the card is told, `pid` where the tool has no number for it.
    """

    npu_id: int
    chip_id: int | None
    pid: int | None
    memory_bytes: int | None


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
    lines = split_lines(text)
    at = 0
    while at < len(lines):
        line = lines[at]
        at += 1
        if line.lstrip().startswith("Process id"):
            process, count = _read_process_lines(lines[at - 1 : at + _NAME_BYTES])
            rows.append(process)
            has_rows = True
            at += count - 1
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


def _read_process_lines(lines: Sequence[str]) -> tuple[DeviceProcess, int]:
    """Return the process that begins with the first line, and how many lines it has."""
    for count in range(1, len(lines) + 1):
        found = _PROCESS_LINE.fullmatch("\n".join(lines[:count]))
        if found:
            break
    else:
        raise Damaged(f"a line is not known: {lines[0].strip()[:120]}")
    unit = BYTES.get(found[2])
    if unit is None:
        raise Damaged(f"its unit of memory is not known: {lines[0].strip()[:120]}")
    return DeviceProcess(int(found[1]), int(found[3]) * unit), count
