"""Say which chip is which: logic id, physical id and uuid, by docs/architecture.md. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .info import Chip


@dataclass(frozen=True)
class NamedChip:
    """A chip of the table with its ids and its lasting name."""

    chip: Chip
    logic_id: int
    physical_id: int
    uuid: str


def name_chips(
    chips: Sequence[Chip], mapping: Mapping[tuple[int, int], int] | None
) -> tuple[list[NamedChip], list[str]]:
    """Return the chips with their names, and what does not fit together.

    `mapping` is that of `npu-smi info -m`. Without one, the ids are those of the column Device
    or Phy-ID, and without that column the order of the table.
    """
    problems: list[str] = []
    logic_ids: list[int | None] = [chip.device_id for chip in chips]
    if mapping is not None:
        places = [(chip.npu_id, chip.chip_id) for chip in chips]
        unmapped = [place for place in places if place not in mapping]
        if unmapped:
            problems.append(f"npu-smi info -m lacks {_list_places(unmapped)}")
        else:
            logic_ids = [mapping[place] for place in places]
        missing = sorted(set(mapping) - set(places))
        if missing:
            problems.append(f"npu-smi info lacks {_list_places(missing)}")
    if None in logic_ids or len(set(logic_ids)) != len(logic_ids):
        logic_ids = [chip.position for chip in chips]
    # For the type checker: there is no None left.
    numbers = [number for number in logic_ids if number is not None]
    parts = (
        chips,
        numbers,
        _choose_physical_ids(chips, numbers),
        _choose_uuids(chips, numbers),
    )
    return [NamedChip(*of_one) for of_one in zip(*parts, strict=True)], problems


def _choose_physical_ids(chips: Sequence[Chip], logic_ids: Sequence[int]) -> Sequence[int]:
    """Return the column Device or Phy-ID where it tells all chips apart, else the logic ids.

    The tools for cards of one chip have no such column: on a machine whose cards are all there
    both ids are the same.
    """
    told = [chip.device_id for chip in chips if chip.device_id is not None]
    return told if len(set(told)) == len(chips) else logic_ids


def _choose_uuids(chips: Sequence[Chip], logic_ids: Sequence[int]) -> list[str]:
    # Both chips of a 310P card may show the card's bus id.
    per_chip = Counter((chip.bus_id, chip.chip_id) for chip in chips)
    uuids = []
    for chip, logic_id in zip(chips, logic_ids, strict=True):
        if chip.bus_id is None or per_chip[chip.bus_id, chip.chip_id] > 1:
            uuids.append(f"npu-logic-{logic_id}")
        elif chip.is_bus_shared:
            uuids.append(f"npu-{chip.bus_id}-{chip.chip_id}")
        else:
            uuids.append(f"npu-{chip.bus_id}")
    return uuids


def _list_places(places: Sequence[tuple[int, int]]) -> str:
    return ", ".join(f"card {npu} chip {chip}" for npu, chip in places)
