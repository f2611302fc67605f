"""Say what is to be asked of each card besides the table of all chips. Pure: asks nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

from ..npu.reading import Details
from .details import (
    ByChip,
    read_bandwidth,
    read_board,
    read_common,
    read_ecc,
    read_health,
    read_memory,
    read_network,
    read_process_memory,
    read_usages,
    read_voltage,
)
from .info import Chip, Info
from .vnpu import read_templates, read_vnpus

# Facts that change with a new card or driver only.
STATIC_S = 3600.0
# In units of the setting `detail_interval_s`.
_OFTEN, _SELDOM = 1.0, 5.0
PROCESSES = "proc-mem"
# What hccn_tool is asked, by the kind of question.
NETWORK = {
    "net_health": ("-net_health", "-g"),
    "bandwidth": ("-bandwidth", "-g"),
}


@dataclass(frozen=True)
class Question:
    """One run of a tool: what it is about, how often, and how its answer is read.

    `chip_id` None: the answer is about the whole card.
    """

    kind: str
    npu_id: int
    chip_id: int | None
    every_s: float
    read: Callable[[str], ByChip]

    @property
    def key(self) -> tuple[str, int, int | None]:
        """What stays the same from read to read."""
        return self.kind, self.npu_id, self.chip_id

    @property
    def place(self) -> str:
        """The card, and the chip where only one is asked for."""
        return f"card {self.npu_id}" + ("" if self.chip_id is None else f" chip {self.chip_id}")

    @property
    def arguments(self) -> tuple[str, ...]:
        """The command line of npu-smi."""
        chip = () if self.chip_id is None else ("-c", str(self.chip_id))
        return "info", "-t", self.kind, "-i", str(self.npu_id), *chip


def list_questions(
    info: Info,
    known: Mapping[tuple[int, int], Details],
    *,
    detail_interval_s: float,
    has_network_tool: bool,
) -> list[Question]:
    """Return what is to be asked of the chips of the table.

    `known` are the details so far: what a template has is asked only where one is used.
    """
    cards: dict[int, list[Chip]] = defaultdict(list)
    for chip in info.chips:
        cards[chip.npu_id].append(chip)
    questions: list[Question] = []
    for npu_id, chips in cards.items():
        for kind, every, read in _of_card(chips, info.counted_npus):
            every_s = every * detail_interval_s
            questions.append(Question(kind, npu_id, None, every_s, read))
        if any(known.get((npu_id, chip.chip_id), Details()).vnpus for chip in chips):
            questions.append(Question("template-info", npu_id, None, STATIC_S, read_templates))
        for chip in chips:
            for kind, every_s, read in _of_chip(chip, detail_interval_s, has_network_tool):
                questions.append(Question(kind, npu_id, chip.chip_id, every_s, read))
    return questions


_Kind = tuple[str, float, Callable[[str], ByChip]]


def _of_card(chips: Collection[Chip], counted_npus: Collection[int]) -> Iterator[_Kind]:
    if not {chip.npu_id for chip in chips} <= set(counted_npus):
        yield PROCESSES, _OFTEN, read_process_memory
    yield "usages", _OFTEN, read_usages
    yield "common", _OFTEN, read_common
    if any(
        chip.hbm or "hbm-usage" in chip.damaged for chip in chips
    ):  # it has no other temperature to tell
        yield "memory", _OFTEN, read_memory
    yield "ecc", _SELDOM, read_ecc
    yield "volt", _SELDOM, read_voltage


def _of_chip(chip: Chip, interval_s: float, has_network_tool: bool) -> Iterator[_Kind]:
    # A chip that is well has no fault to tell; this saves a process for each.
    if chip.health.upper() != "OK":
        yield "health", _OFTEN * interval_s, read_health
    if has_network_tool:
        yield "net_health", _OFTEN * interval_s, read_network
        yield "bandwidth", _OFTEN * interval_s, read_bandwidth
    yield "info-vnpu", _SELDOM * interval_s, read_vnpus
    yield "board", STATIC_S, read_board
