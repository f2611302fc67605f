"""Decode `npu-smi info -m`: which card and chip has which logic id. Pure: runs nothing."""

from __future__ import annotations

import re

from .errors import NpuSmiError, explain

_COLUMNS = re.compile(r"\t+|\s{2,}")
_WHOLE = re.compile(r"\d{1,9}", re.ASCII)
# A card's controller has a row too, without a logic id.
_NO_LOGIC_ID = frozenset({"-", "NA"})


def parse_mapping(text: str) -> dict[tuple[int, int], int] | None:
    """Return {(NPU ID, Chip ID): logic id}, or None where the tool tells no logic ids (950).

    Raises NpuSmiError when there is no table, or a row or an id that cannot be right.
    """
    lines = [_COLUMNS.split(line.strip()) for line in text.splitlines() if line.strip()]
    start = next((at for at, line in enumerate(lines) if line[0] == "NPU ID"), None)
    if start is None:
        raise NpuSmiError(f"info -m: {explain(text)}")
    header = lines[start]
    if "Chip Name" not in header:
        raise NpuSmiError(f"info -m: its header is not known: {' '.join(header)[:120]}")
    if "Chip ID" not in header or "Chip Logic ID" not in header:
        return None
    npu, chip = header.index("NPU ID"), header.index("Chip ID")
    logic = header.index("Chip Logic ID")
    ids: dict[tuple[int, int], int] = {}
    for line in lines[start + 1 :]:
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
