"""Say which chip is which: logic id, physical id and uuid, by docs/architecture.md. Pure."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from .info import Chip

Place = tuple[int, int]  # NPU ID, Chip ID
Card = tuple[int, str, str]  # NPU ID, name and bus id


@dataclass(frozen=True)
class NamedChip:
    """A chip of the table with its ids and its lasting name.

    `physical_id` None: it is not known, and must not be guessed: access goes by it.
    """

    chip: Chip
    logic_id: int
    physical_id: int | None
    uuid: str


def name_chips(
    chips: Sequence[Chip],
    mapping: Mapping[Place, int] | None,
    *,
    physical_ids: Mapping[Place, int] | None = None,
    nodes: Collection[int] = (),
    shared: Mapping[Card, bool] | None = None,
) -> tuple[list[NamedChip], list[str]]:
    """Return the chips with their names, and what does not fit together.

    `mapping` is that of `npu-smi info -m`. Without one, the ids are those of the column Device
    or Phy-ID, and without that column the order of the table. `physical_ids` are those of
    `-m`; None: it has no such column. `nodes` are the N of /dev/davinciN; () where there are
    none to compare with. `shared` is that of find_shared(); None: nothing is known from before.
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
    chosen = _choose_physical_ids(chips, physical_ids)
    if chosen is None:
        chosen, misfits = _compare_with_nodes(chips, numbers, nodes)
        problems += misfits
    else:
        problems += [
            f"{_describe(chip)}: its physical id is not known"
            for chip, number in zip(chips, chosen, strict=True)
            if number is None
        ]
    if shared is None:
        shared = find_shared(chips, mapping, {})
    uuids = _choose_uuids(chips, numbers, shared)
    parts = (chips, numbers, chosen, uuids)
    return [NamedChip(*of_one) for of_one in zip(*parts, strict=True)], problems


def find_shared(
    chips: Sequence[Chip], mapping: Mapping[Place, int] | None, known: Mapping[Card, bool]
) -> dict[Card, bool]:
    """Return of the cards with chips in the table whether all their chips have its bus id.

    A chip whose neighbour is not shown keeps its uuid. Where none was seen before (`known`),
    the chips of a 310P share one if `-m` lists two of them. Cards that have one chip, as far as
    can be told, are not in the answer.
    """
    listed = Counter(npu_id for npu_id, _ in mapping or ())
    found: dict[Card, bool] = {}
    for chip in chips:
        if chip.bus_id is None:
            continue
        card = (chip.npu_id, chip.name, chip.bus_id)
        others = [
            one.bus_id
            for one in chips
            if one.npu_id == chip.npu_id and one is not chip and one.bus_id is not None
        ]
        if others:
            found[card] = chip.bus_id in others
        elif card in known:
            found[card] = known[card]
        elif chip.name.startswith("310P") and listed[chip.npu_id] > 1:
            found[card] = True
    return found


def _choose_physical_ids(
    chips: Sequence[Chip], listed: Mapping[Place, int] | None
) -> list[int | None] | None:
    """Return the ids that the tool tells, or None where no column of it has any.

    A chip's own is that of the column Device or Phy-ID, else that of `-m`. One that two chips
    have is neither's.
    """
    if listed is None and not any(chip.has_device_column for chip in chips):
        return None
    shown = Counter(chip.device_id for chip in chips)
    chosen = [
        chip.device_id
        if chip.device_id is not None and shown[chip.device_id] == 1
        else (listed or {}).get((chip.npu_id, chip.chip_id))
        for chip in chips
    ]
    taken = Counter(chosen)
    return [number if taken[number] == 1 else None for number in chosen]


def _compare_with_nodes(
    chips: Sequence[Chip], logic_ids: Sequence[int], nodes: Collection[int]
) -> tuple[list[int | None], list[str]]:
    """Return the logic ids as physical ids where the nodes allow it, and the misfits.

    The tools for cards of one chip have no column of physical ids: on a machine whose cards
    are all there both ids are the same. The driver counts the chips that are there, so that
    behind a gap in the nodes a logic id is another chip's node.
    """
    if not nodes:
        return list(logic_ids), []
    without_gap = next(number for number in itertools.count() if number not in nodes)
    chosen = [number if number < without_gap else None for number in logic_ids]
    problems = [
        f"{_describe(chip)}: its physical id is not known: its logic id {logic_id} does not fit"
        f" the files /dev/davinciN, of which {without_gap} is not there"
        for chip, logic_id, number in zip(chips, logic_ids, chosen, strict=True)
        if number is None
    ]
    return chosen, problems


def _choose_uuids(
    chips: Sequence[Chip], logic_ids: Sequence[int], shared: Mapping[Card, bool]
) -> list[str]:
    # Both chips of a 310P card may show the card's bus id.
    per_chip = Counter((chip.bus_id, chip.chip_id) for chip in chips)
    uuids = []
    for chip, logic_id in zip(chips, logic_ids, strict=True):
        if chip.bus_id is None or per_chip[chip.bus_id, chip.chip_id] > 1:
            uuids.append(f"npu-logic-{logic_id}")
        elif chip.is_bus_shared or shared.get((chip.npu_id, chip.name, chip.bus_id)):
            uuids.append(f"npu-{chip.bus_id}-{chip.chip_id}")
        else:
            uuids.append(f"npu-{chip.bus_id}")
    return uuids


def _describe(chip: Chip) -> str:
    return f"npu card {chip.npu_id} chip {chip.chip_id}"


def _list_places(places: Sequence[tuple[int, int]]) -> str:
    return ", ".join(f"card {npu} chip {chip}" for npu, chip in places)
