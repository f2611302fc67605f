"""Decode the tables of `npu-smi info`. Pure: runs nothing.

The tables differ between versions 21 and 26, so columns are found by the header's names:
21.x has no huge pages; the second column of a chip's row is absent, `Device` or `Phy-ID`;
310 chips have no HBM; 26.x adds a column to the processes. A block of two rows is one chip,
and cells are split at `|`, because a long word ("Warning") shifts what is behind it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from .errors import NpuSmiError, explain

_VERSION = re.compile(r"npu-smi\s+(\S+)\s+Version:\s*(\S+)")
_BORDER = re.compile(r"\+[-=+]*")
_NO_PROCESS = re.compile(r"No running processes found in NPU (\d{1,9})", re.ASCII)
_BUS_ID = re.compile(r"[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-9A-Fa-f]")
_DECIMAL = re.compile(r"-?\d{1,9}(\.\d{1,6})?", re.ASCII)
_WHOLE = re.compile(r"\d{1,10}", re.ASCII)
# A usage is `used / total`, with or without spaces: `30750/ 32768`.
_VALUE = re.compile(r"[^\s/]+\s*/\s*[^\s/]+|[^\s/]+|/")
_NO_READING = frozenset({"NA", "N/A", "-", "--", ""})
# npu-smi says MB and means MiB: a chip of 64 GiB has 65536.
_UNIT_BYTES = {"B": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}
_PAGES = {"page": 1}


@dataclass(frozen=True)
class Usage:
    """So much of a total; bytes or pages."""

    used: int
    total: int


@dataclass(frozen=True)
class Chip:
    """Two rows of the table; None is a reading that the tool does not give."""

    position: int  # among the blocks of the table, damaged ones included
    npu_id: int
    chip_id: int
    device_id: int | None  # the column Device or Phy-ID
    name: str
    health: str
    bus_id: str | None
    power_watts: float | None = None
    temperature_celsius: float | None = None
    aicore_percent: float | None = None
    ddr: Usage | None = None  # bytes
    hbm: Usage | None = None  # bytes
    hugepages: Usage | None = None  # pages


@dataclass(frozen=True)
class Process:
    """A row of the process table; newer tools leave out the chip where a card has one."""

    npu_id: int
    chip_id: int | None
    pid: int
    memory_bytes: int | None


@dataclass(frozen=True)
class Info:
    """All that the output says.

    `counted_npus` are the cards that the process table speaks of: of the others it is not
    known whether they have processes.
    """

    tool_version: str
    driver_version: str
    chips: tuple[Chip, ...]
    processes: tuple[Process, ...] = ()
    counted_npus: frozenset[int] = frozenset()
    problems: tuple[str, ...] = ()


@dataclass
class _Block:
    """The rows between two borders."""

    rows: list[list[str]] = field(default_factory=list)
    is_torn: bool = False  # a row has lost its end
    is_closed: bool = False  # a border follows

    def __str__(self) -> str:
        return " / ".join(" | ".join(row) for row in self.rows)[:120]


class _Damaged(Exception):
    """Something cannot be read; the message says what."""


@dataclass(frozen=True)
class _Column:
    """A word of the header: `HBM-Usage(MB)` is hbm-usage in MB."""

    name: str
    unit: str

    @classmethod
    def read(cls, word: str) -> _Column:
        name, _, unit = word.partition("(")
        return cls(name.strip().lower(), unit.removesuffix(")"))


def parse_info(text: str) -> Info:
    """Return what the output of `npu-smi info` says.

    A damaged chip is left out and named in `problems`, with the tool's version; a damaged
    process table is left out as a whole. Raises NpuSmiError when there is no chip table.
    """
    version = _VERSION.search(text)
    if not version:
        raise NpuSmiError(explain(text))
    blocks = list(_split(text))
    header = next((at for at, block in enumerate(blocks) if _is_chip_header(block)), None)
    if header is None:
        raise NpuSmiError(f"npu-smi {version[1]}: no chip table with a header that is known")
    end = next(
        (at for at, block in enumerate(blocks) if at > header and _is_process_header(block)),
        len(blocks),
    )
    chips, problems = _read_chips(blocks[header], blocks[header + 1 : end])
    processes: tuple[Process, ...] = ()
    counted: frozenset[int] = frozenset()
    try:
        if end < len(blocks):
            processes, counted = _read_processes(blocks[end], blocks[end + 1 :])
    except _Damaged as error:
        problems.append(f"process table: {error}")
    return Info(
        tool_version=version[1],
        driver_version=version[2],
        chips=chips,
        processes=processes,
        counted_npus=counted,
        problems=tuple(f"npu-smi {version[1]}: {problem}" for problem in problems),
    )


def _split(text: str) -> Iterator[_Block]:
    """Yield the blocks of rows; what is neither row nor border is a log line."""
    block = _Block()
    for line in text.splitlines():
        stripped = line.strip()
        if _BORDER.fullmatch(stripped):
            if block.rows:
                block.is_closed = True
                yield block
                block = _Block()
        elif stripped.startswith("|"):
            block.is_torn |= len(stripped) < 2 or not stripped.endswith("|")
            inner = stripped[1:].removesuffix("|")
            block.rows.append([cell.strip() for cell in inner.split("|")])
    if block.rows:
        yield block


def _is_chip_header(block: _Block) -> bool:
    return (
        len(block.rows) == 2
        and not block.is_torn
        and block.rows[0][0].split() == ["NPU", "Name"]
        and block.rows[1][0].split()[:1] == ["Chip"]
    )


def _is_process_header(block: _Block) -> bool:
    return len(block.rows) == 1 and "Process id" in block.rows[0]


def _read_chips(header: _Block, blocks: Sequence[_Block]) -> tuple[tuple[Chip, ...], list[str]]:
    """Return the chips and what is wrong with the others."""
    columns = [
        [_Column.read(word) for word in cell.split()] for row in header.rows for cell in row
    ]
    chips: dict[tuple[int, int], Chip] = {}
    problems: list[str] = []
    for position, block in enumerate(blocks):
        try:
            chip = _read_chip(position, block, columns)
            if (chip.npu_id, chip.chip_id) in chips:
                raise _Damaged("this card and chip are there already")
            chips[chip.npu_id, chip.chip_id] = chip
        except _Damaged as error:
            problems.append(f"chip {position} [{block}]: {error}")
    if not blocks:
        problems.append("the table lists no chip")
    elif not blocks[-1].is_closed:
        problems.append("the chip table ends in its middle")
    return tuple(chips.values()), problems


def _read_chip(position: int, block: _Block, columns: Sequence[Sequence[_Column]]) -> Chip:
    cells = [cell for row in block.rows for cell in row]
    if block.is_torn or len(block.rows) != 2 or len(cells) != len(columns):
        raise _Damaged("not two whole rows with the header's cells")
    values: dict[str, tuple[str, str]] = {}
    for names, cell in zip(columns, cells, strict=True):
        words = _VALUE.findall(cell) if len(names) > 1 else [cell]
        if len(words) != len(names):
            raise _Damaged(f"{len(words)} values under {len(names)} columns: {cell!r}")
        for column, word in zip(names, words, strict=True):
            values[column.name] = (word, column.unit)
    for needed in ("npu", "name", "health", "chip", "bus-id"):
        if not values.get(needed, ("", ""))[0]:
            raise _Damaged(f"no {needed}")
    device = values.get("phy-id") or values.get("device")
    return Chip(
        position=position,
        npu_id=_whole(values["npu"][0]),
        chip_id=_whole(values["chip"][0]),
        device_id=_whole(device[0]) if device and device[0] not in _NO_READING else None,
        name=values["name"][0],
        health=values["health"][0],
        bus_id=_bus_id(values["bus-id"][0]),
        power_watts=_decimal(values.get("power"), "W", least=0),
        temperature_celsius=_decimal(values.get("temp"), "C", least=-273),
        aicore_percent=_decimal(values.get("aicore"), "%", least=0, most=100),
        ddr=_usage(values.get("memory-usage"), _UNIT_BYTES),
        hbm=_usage(values.get("hbm-usage"), _UNIT_BYTES),
        hugepages=_usage(values.get("hugepages-usage"), _PAGES),
    )


def _read_processes(
    header: _Block, blocks: Sequence[_Block]
) -> tuple[tuple[Process, ...], frozenset[int]]:
    """Return the processes and the cards that the table speaks of."""
    if any(block.is_torn or not block.is_closed for block in (header, *blocks)):
        raise _Damaged("it is torn or ends in its middle")
    columns = [_Column.read(cell) for cell in header.rows[0]]
    at = {column.name: number for number, column in enumerate(columns)}
    if not {"process id", "process memory"} <= at.keys() or columns[0].name.split()[0] != "npu":
        raise _Damaged(f"its header is not known: {header}")
    unit = _UNIT_BYTES.get(columns[at["process memory"]].unit)
    if unit is None:
        raise _Damaged(f"its unit of memory is not known: {header}")
    processes: list[Process] = []
    counted: set[int] = set()
    for row in (row for block in blocks for row in block.rows):
        none_here = _NO_PROCESS.fullmatch(row[0])
        if len(row) == 1 and none_here:
            counted.add(int(none_here[1]))
            continue
        place = [_whole(word) for word in row[0].split()]
        if len(row) != len(columns) or not 1 <= len(place) <= 2:
            raise _Damaged(f"a row is not known: {' | '.join(row)[:120]}")
        memory = row[at["process memory"]]
        processes.append(
            Process(
                npu_id=place[0],
                chip_id=place[1] if len(place) == 2 else None,
                pid=_whole(row[at["process id"]]),
                memory_bytes=None if memory in _NO_READING else _whole(memory) * unit,
            )
        )
        counted.add(place[0])
    return tuple(processes), frozenset(counted)


def _whole(word: str) -> int:
    if not _WHOLE.fullmatch(word):
        raise _Damaged(f"{word!r} is not a whole number")
    return int(word)


def _bus_id(word: str) -> str | None:
    if word in _NO_READING:
        return None
    if not _BUS_ID.fullmatch(word):
        raise _Damaged(f"{word!r} is not a bus id")
    return word


def _decimal(
    value: tuple[str, str] | None, unit: str, *, least: float, most: float = float("inf")
) -> float | None:
    if value is None or value[0] in _NO_READING:
        return None
    if value[1] != unit:
        raise _Damaged(f"the unit is {value[1]!r}, not {unit!r}")
    if not _DECIMAL.fullmatch(value[0]) or not least <= float(value[0]) <= most:
        raise _Damaged(f"{value[0]!r} is not a reading in {unit}")
    return float(value[0])


def _usage(value: tuple[str, str] | None, units: Mapping[str, int]) -> Usage | None:
    if value is None or value[0] in _NO_READING:
        return None
    factor = units.get(value[1])
    if factor is None:
        raise _Damaged(f"the unit {value[1]!r} is not known")
    used, slash, total = (part.strip() for part in value[0].partition("/"))
    if not slash:
        raise _Damaged(f"{value[0]!r} is not a usage")
    if used in _NO_READING or total in _NO_READING:
        return None
    usage = Usage(_whole(used) * factor, _whole(total) * factor)
    if usage.used > usage.total:
        raise _Damaged(f"{value[0]!r} uses more than there is")
    # "0 / 0": a 910B has no DDR of its own, and no huge pages are set up.
    return usage if usage.total else None
