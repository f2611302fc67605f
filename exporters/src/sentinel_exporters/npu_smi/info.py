"""Decode the tables of `npu-smi info`. Pure: runs nothing.

The tables differ between versions 21 and 26, so columns are found by the header's names:
21.x has no huge pages; the second column of a chip's row is absent, `Device` or `Phy-ID`;
310 chips have no HBM; 26.x adds a column to the processes; a 950 has four cells and no chip.
A block of two rows is one chip, and cells are split at `|`, because a long word ("Warning")
shifts what is behind it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ..npu.reading import Usage
from .errors import NpuSmiError, explain
from .process_table import ProcessTable, is_process_header, read_process_table
from .processes import Process
from .tables import Block, split_blocks
from .values import (
    BYTES,
    NO_READING,
    Damaged,
    read_bus_id,
    read_decimal,
    read_usage,
    read_whole,
    split_lines,
    split_unit,
)

_VERSION = re.compile(r"npu-smi\s+(\S+)\s+Version:\s*(\S+)")
# A usage is `used / total`, with or without spaces: `30750/ 32768`.
_VALUE = re.compile(r"[^\s/]+\s*/\s*[^\s/]+|[^\s/]+|/")
# In the cell of the readings each name has its unit, and may be two words: `NPU Util(%)`.
_MEASURED = re.compile(r"[^\s()][^()]*\([^()]*\)")
_PAGES = {"page": 1}
_Told = TypeVar("_Told")


@dataclass(frozen=True)
class Chip:
    """Two rows of the table; None is a reading that the tool does not give."""

    position: int  # among the blocks of the table, damaged ones included
    npu_id: int
    chip_id: int
    device_id: int | None  # the column Device or Phy-ID; a 950's NPU ID
    name: str
    health: str
    bus_id: str | None
    has_device_column: bool = False  # so that `device_id` None is one that is not told
    is_bus_shared: bool = False  # another chip shows the same one, be it damaged otherwise
    power_watts: float | None = None
    temperature_celsius: float | None = None
    aicore_percent: float | None = None
    ddr: Usage | None = None  # bytes
    hbm: Usage | None = None  # bytes
    hugepages: Usage | None = None  # pages
    damaged: frozenset[str] = frozenset()  # columns that have a reading that cannot be


@dataclass(frozen=True)
class Info:
    """All that the output says.

    `counted_npus` are the cards whose processes the table tells: of the others it is not known
    whether they have any.
    """

    tool_version: str
    driver_version: str
    chips: tuple[Chip, ...]
    processes: tuple[Process, ...] = ()
    counted_npus: frozenset[int] = frozenset()
    problems: tuple[str, ...] = ()


def parse_info(text: str) -> Info:
    """Return what the output of `npu-smi info` says.

    A chip whose place, name or health is damaged is left out and named in `problems`, with the
    tool's version; of one with a damaged reading only that is left out. So are the
    processes of a card of which a row of the process table is not known. Raises NpuSmiError
    when there is no chip table.
    """
    version = _VERSION.search(text)
    if not version:
        raise NpuSmiError(explain(text))
    lines = split_lines(text)
    end = next((at for at, line in enumerate(lines) if is_process_header(line)), len(lines))
    blocks = list(split_blocks("\n".join(lines[:end])))
    header = next((at for at, block in enumerate(blocks) if _is_chip_header(block)), None)
    if header is None:
        raise NpuSmiError(f"npu-smi {version[1]}: no chip table with a header that is known")
    chips, problems = _read_chips(blocks[header], blocks[header + 1 :])
    table = ProcessTable()
    try:
        if end < len(lines):
            table = read_process_table(lines[end:])
    except Damaged as error:
        problems.append(f"process table: {error}")
    problems += [f"process table: {problem}" for problem in table.problems]
    return Info(
        tool_version=version[1],
        driver_version=version[2],
        chips=chips,
        processes=table.processes,
        counted_npus=table.counted_npus,
        problems=tuple(f"npu-smi {version[1]}: {problem}" for problem in problems),
    )


def _is_chip_header(block: Block) -> bool:
    if len(block.rows) != 2 or block.is_torn:
        return False
    first, second = block.rows
    if first[:2] == ["NPU ID", "Name"]:  # a 950, whose cards have one chip each
        return len(first) == len(second) and "Bus-Id" in second
    return first[0].split() == ["NPU", "Name"] and second[0].split()[:1] == ["Chip"]


def _read_columns(header: Block) -> list[list[tuple[str, str]]]:
    """Return for each cell of both rows the names and units of its values."""
    return [
        [split_unit(name) for name in _split_names(cell)] for row in header.rows for cell in row
    ]


def _split_names(cell: str) -> list[str]:
    if "(" in cell:
        return _MEASURED.findall(cell)
    return ["NPU"] if cell == "NPU ID" else cell.split()


def _read_chips(header: Block, blocks: Sequence[Block]) -> tuple[tuple[Chip, ...], list[str]]:
    """Return the chips and what is wrong with the others."""
    columns = _read_columns(header)
    chips: dict[tuple[int, int], Chip] = {}
    problems: list[str] = []
    shown = Counter(cell for block in blocks for row in block.rows for cell in row)
    for position, block in enumerate(blocks):
        try:
            chip, damage = _read_chip(position, block, columns, shown)
            if (chip.npu_id, chip.chip_id) in chips:
                raise Damaged("this card and chip are there already")
            chips[chip.npu_id, chip.chip_id] = chip
            problems += [f"chip {position} [{block}]: {problem}" for problem in damage]
        except Damaged as error:
            problems.append(f"chip {position} [{block}]: {error}")
    if not blocks:
        problems.append("the table lists no chip")
    elif not blocks[-1].is_closed:
        problems.append("the chip table ends in its middle")
    return tuple(chips.values()), problems


def _read_values(
    block: Block, columns: Sequence[Sequence[tuple[str, str]]]
) -> tuple[dict[str, tuple[str, str]], dict[str, str]]:
    """Return {name of the column: (word, unit)}, and {name: why it has no word}.

    The latter are readings, which have units: a cell that says which chip it is raises Damaged.
    """
    cells = [cell for row in block.rows for cell in row]
    if block.is_torn or len(block.rows) != 2 or len(cells) != len(columns):
        raise Damaged("not two whole rows with the header's cells")
    values: dict[str, tuple[str, str]] = {}
    torn: dict[str, str] = {}
    for names, cell in zip(columns, cells, strict=True):
        words = _VALUE.findall(cell) if len(names) != 1 else [cell]
        if len(words) != len(names):
            problem = f"{len(words)} values under {len(names)} columns: {cell!r}"
            if not all(unit for _, unit in names):
                raise Damaged(problem)
            torn.update((name, problem) for name, _ in names)
            continue
        for (name, unit), word in zip(names, words, strict=True):
            values[name] = (word, unit)
    return values, torn


def _read_chip(
    position: int,
    block: Block,
    columns: Sequence[Sequence[tuple[str, str]]],
    shown: Mapping[str, int],
) -> tuple[Chip, list[str]]:
    """Return the chip, and which of its readings are damaged."""
    values, torn = _read_values(block, columns)
    for needed in ("npu", "name", "health", "bus-id"):
        if not values.get(needed, ("", ""))[0]:
            raise Damaged(f"no {needed}")
    npu_id = read_whole(values["npu"][0])
    chip_id, device_id = _read_place(npu_id, values)
    bus_id = read_bus_id(values["bus-id"][0])
    damaged: dict[str, str] = {}

    def tell(name: str, read: Callable[[tuple[str, str] | None], _Told]) -> _Told | None:
        try:
            if name in torn:
                raise Damaged(torn[name])
            return read(values.get(name))
        except Damaged as error:
            damaged[name] = str(error)
            return None

    used = "aicore" if "aicore" in values or "aicore" in torn else "npu util"
    chip = Chip(
        position=position,
        npu_id=npu_id,
        chip_id=chip_id,
        device_id=device_id,
        name=values["name"][0],
        health=values["health"][0],
        bus_id=bus_id,
        has_device_column=device_id is not None or not {"phy-id", "device"}.isdisjoint(values),
        is_bus_shared=bus_id is not None and shown[bus_id] > 1,
        power_watts=tell("power", lambda value: read_decimal(value, "W")),
        temperature_celsius=tell("temp", lambda value: read_decimal(value, "C", least=-273)),
        aicore_percent=tell(used, lambda value: read_decimal(value, "%", most=100)),
        ddr=tell("memory-usage", lambda value: read_usage(value, BYTES)),
        hbm=tell("hbm-usage", lambda value: read_usage(value, BYTES)),
        hugepages=tell("hugepages-usage", lambda value: read_usage(value, _PAGES)),
        damaged=frozenset(damaged),  # the readings above have been taken
    )
    names: dict[str, list[str]] = {}
    for name, problem in damaged.items():
        names.setdefault(problem, []).append(name)
    return chip, [f"{', '.join(of)}: {problem}" for problem, of in names.items()]


def _read_place(npu_id: int, values: Mapping[str, tuple[str, str]]) -> tuple[int, int | None]:
    """Return the chip's number on its card, and the number that the tool gives the device."""
    if "chip" not in values:
        return 0, npu_id  # a 950 has one chip, and its NPU ID is the driver's own number
    device = values.get("phy-id") or values.get("device")
    told = device is not None and device[0] not in NO_READING
    return read_whole(values["chip"][0]), read_whole(device[0]) if device and told else None
