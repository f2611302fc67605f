"""Decode `npu-smi info -m`: which card and chip has which logic and physical id. Pure."""

from __future__ import annotations

import re
from collections import Counter

from .errors import NpuSmiError, explain
from .values import split_lines

_COLUMNS = re.compile(r"\t+|\s{2,}")
_WHOLE = re.compile(r"\d{1,9}", re.ASCII)
# A card's controller has a row too, without a logic id.
_NO_LOGIC_ID = frozenset({"-", "NA"})


def parse_mapping(text: str) -> dict[tuple[int, int], int] | None:
    """Return {(NPU ID, Chip ID): logic id}, or None where the tool tells no logic ids (950).

    Raises NpuSmiError when there is no table, or a row or an id that cannot be right.
    """
    header, rows = _read_rows(text)
    if "Chip ID" not in header or "Chip Logic ID" not in header:
        return None
    npu, chip = header.index("NPU ID"), header.index("Chip ID")
    logic = header.index("Chip Logic ID")
    ids: dict[tuple[int, int], int] = {}
    for line in rows:
        if len(line) == len(header) and line[logic] in _NO_LOGIC_ID:
            continue
        if len(line) != len(header) or not all(
            _WHOLE.fullmatch(line[column]) for column in (npu, chip, logic)
        ):
            raise NpuSmiError(f"info -m: a row is not known: {' '.join(line)[:120]}")
        place, logic_id = (int(line[npu]), int(line[chip])), int(line[logic])
        if place in ids or logic_id in ids.values():
            raise NpuSmiError(f"info -m: there twice: {' '.join(line)[:120]}")
        ids[place] = logic_id
    return ids


def parse_physical_ids(text: str) -> dict[tuple[int, int], int] | None:
    """Return {(NPU ID, Chip ID): physical id}, or None without the column Chip Phy-ID.

    A chip whose id is no number, or that of another chip too, is left out. Raises NpuSmiError
    when there is no table.
    """
    header, rows = _read_rows(text)
    if "Chip ID" not in header or "Chip Phy-ID" not in header:
        return None
    columns = [header.index(name) for name in ("NPU ID", "Chip ID", "Chip Phy-ID")]
    told = [
        [int(line[column]) for column in columns]
        for line in rows
        if len(line) == len(header) and all(_WHOLE.fullmatch(line[one]) for one in columns)
    ]
    shown = Counter(physical_id for _, _, physical_id in told)
    return {(npu, chip): number for npu, chip, number in told if shown[number] == 1}


def _read_rows(text: str) -> tuple[list[str], list[list[str]]]:
    lines = [_COLUMNS.split(line.strip()) for line in split_lines(text) if line.strip()]
    start = next((at for at, line in enumerate(lines) if line[0] == "NPU ID"), None)
    if start is None:
        raise NpuSmiError(f"info -m: {explain(text)}")
    header = lines[start]
    if "Chip Name" not in header:
        raise NpuSmiError(f"info -m: its header is not known: {' '.join(header)[:120]}")
    return header, lines[start + 1 :]
