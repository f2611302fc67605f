"""Print `npu-smi info` tables as tests want them: any width, with or without each column.

Written after the forms of npu-smi 21 to 26; the readings are made up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sentinel_exporters.npu_smi.info import Chip, parse_info


@dataclass(frozen=True)
class Row:
    """What the table shows of a chip, as text; a usage is `used / total`."""

    npu: str
    chip: str
    device: str = ""
    name: str = "910B3"
    health: str = "OK"
    bus: str = "0000:C1:00.0"
    power: str = "95.2"
    temp: str = "41"
    hugepages: str = "0    / 0"
    aicore: str = "0"
    ddr: str = "0    / 0"
    hbm: str = "3412 / 65536"


@dataclass(frozen=True)
class Table:
    """A whole output. `processes` None: no process table; rows are lists of cells."""

    rows: Sequence[Row]
    processes: Sequence[Sequence[str]] | None = None
    version: str = "24.1.rc2"
    driver: str = "24.1.rc2"
    device_column: str = ""
    has_hugepages: bool = True
    has_hbm: bool = True
    process_columns: Sequence[str] = (
        "NPU     Chip",
        "Process id",
        "Process name",
        "Process memory(MB)",
    )
    # Added to each cell, and between the words of one.
    padding: Sequence[int] = field(default=(1, 1, 1))
    gap: int = 4

    def text(self) -> str:
        """Return the output."""
        gap = " " * self.gap
        headers = [
            [
                f"NPU{gap}Name",
                "Health",
                gap.join(
                    self._words(
                        ["Power(W)", "Temp(C)"], self.has_hugepages, "Hugepages-Usage(page)"
                    )
                ),
            ],
            [
                f"Chip{gap}{self.device_column}".strip(),
                "Bus-Id",
                gap.join(
                    self._words(
                        ["AICore(%)", "Memory-Usage(MB)"], self.has_hbm, "HBM-Usage(MB)"
                    )
                ),
            ],
        ]
        blocks = [self._chip(row) for row in self.rows]
        cells = [line for block in [headers, *blocks] for line in block]
        widths = [
            max(len(line[column]) for line in cells) + 1 + self.padding[column]
            for column in range(3)
        ]
        total = sum(widths) + 2
        lines = [
            f"+{'-' * total}+",
            self._wide(f"npu-smi {self.version}{gap}Version: {self.driver}", total),
        ]
        lines += [self._border("-", widths), *(self._line(line, widths) for line in headers)]
        lines.append(self._border("=", widths))
        for number, block in enumerate(blocks):
            lines += [self._line(line, widths) for line in block]
            has_twin = (
                number + 1 < len(self.rows)
                and self.rows[number + 1].npu == self.rows[number].npu
            )
            lines.append(f"+{'-' * total}+" if has_twin else self._border("=", widths))
        if self.processes is not None:
            lines += self._process_lines(total)
        return "\n".join(lines) + "\n"

    def chips(self) -> tuple[Chip, ...]:
        """Return the chips as they are read from the output."""
        return parse_info(self.text()).chips

    def _process_lines(self, total: int) -> list[str]:
        assert self.processes is not None
        columns = len(self.process_columns)
        table = [
            list(self.process_columns),
            *(list(row) for row in self.processes if len(row) > 1),
        ]
        widths = [max(len(line[at]) for line in table) + 2 for at in range(columns)]
        lines = [
            self._border("-", widths),
            self._line(list(self.process_columns), widths),
            self._border("=", widths),
        ]
        for number, row in enumerate(self.processes):
            lines.append(
                self._wide(row[0], total) if len(row) == 1 else self._line(list(row), widths)
            )
            # One card's processes share a block.
            following = self.processes[number + 1 : number + 2]
            if not following or following[0][0].split()[:1] != row[0].split()[:1]:
                lines.append(self._border("=", widths))
        return lines

    def _chip(self, row: Row) -> list[list[str]]:
        gap = " " * self.gap
        place = f"{row.chip}{gap}{row.device}" if self.device_column else row.chip
        return [
            [
                f"{row.npu}{gap}{row.name}",
                row.health,
                gap.join(self._words([row.power, row.temp], self.has_hugepages, row.hugepages)),
            ],
            [
                place,
                row.bus,
                gap.join(self._words([row.aicore, row.ddr], self.has_hbm, row.hbm)),
            ],
        ]

    @staticmethod
    def _words(words: list[str], has_more: bool, more: str) -> list[str]:
        return [*words, more] if has_more else words

    @staticmethod
    def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
        shown = (f" {cell}".ljust(width) for cell, width in zip(cells, widths, strict=True))
        return f"|{'|'.join(shown)}|"

    @staticmethod
    def _wide(text: str, width: int) -> str:
        return f"|{f' {text}'.ljust(width)}|"

    @staticmethod
    def _border(line: str, widths: Sequence[int]) -> str:
        return f"+{'+'.join(line * width for width in widths)}+"


def none_running(npu: str) -> list[str]:
    """The row of a card without processes."""
    return [f"No running processes found in NPU {npu}"]


def mapping(places: Sequence[tuple[int, int, int | str]]) -> str:
    """Print `npu-smi info -m`; a logic id `-` is a card's controller."""
    header = ("NPU ID", "Chip ID", "Chip Logic ID")
    lines = ["\t" + "".join(word.ljust(31) for word in header) + "Chip Name"]
    for npu, chip, logic in places:
        name = "Mcu" if logic == "-" else "Ascend 910B3"
        lines.append("\t" + "".join(str(part).ljust(31) for part in (npu, chip, logic)) + name)
    return "\n".join(lines) + "\n"
