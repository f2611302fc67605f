"""Decode the lists of `name : value` that `npu-smi info -t …` prints. Pure: runs nothing.

The chips of a card follow each other. `-t common` says which chip it is before the values,
`-t usages` and most others behind them; a 950, which has one chip, does not say it. The card's
controller is a chip without a number.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from .errors import NotSupported, explain, is_refusal
from .values import Damaged, read_decimal, read_whole, split_lines, split_unit

# There is a space on both sides of the colon, unlike in log lines and the usage text.
_LINE = re.compile(r"\s*(\S[^:]*?)\s+:(?:\s+(.*?))?\s*")
# What a card has besides its chips: the controller, and on some a camera's processor.
_CONTROLLERS = frozenset({"mcu", "3559"})

# What is said once, above the chips.
_HEAD = frozenset({"npu id", "chip count"})

_Pair = tuple[str, tuple[str, str]]  # name, (value, unit)


@dataclass
class Section:
    """The values of one chip; `chip_id` None: the list does not say of which."""

    chip_id: int | None = None
    is_controller: bool = False
    values: dict[str, tuple[str, str]] = field(default_factory=dict)

    def word(self, name: str) -> str | None:
        """Return a value as it is printed, or None where the list has no such name."""
        return self.values[name][0] if name in self.values else None

    def number(
        self, name: str, unit: str = "", *, least: float = 0, most: float = float("inf")
    ) -> float | None:
        """Return a reading, or None where there is none; raises Damaged for what is none."""
        try:
            return read_decimal(self.values.get(name), unit, least=least, most=most)
        except Damaged as error:
            raise Damaged(f"{name}: {error}") from error

    def percent(self, name: str) -> float | None:
        """Return a reading from 0 to 100."""
        return self.number(name, "%", most=100)

    def celsius(self, name: str) -> float | None:
        """Return a temperature."""
        return self.number(name, "C", least=-273)

    def count(self, name: str) -> int | None:
        """Return a whole number."""
        number = self.number(name)
        if number is not None and number % 1:
            raise Damaged(f"{name}: {number} is not a whole number")
        return None if number is None else int(number)


def parse_card(text: str) -> list[Section]:
    """Return the sections of a card's chips and of its controller, by names in lower case.

    Raises NotSupported when the tool says that the device cannot tell it, and Damaged when
    there is no list, or one that is torn or contradicts itself.
    """
    pairs = _split_lines(text)
    head = _make_section(Section(), [pair for pair in pairs if pair[0] in _HEAD])
    body = [pair for pair in pairs if pair[0] not in _HEAD]
    if not body:
        raise _refuse(text)
    sections = list(_split_sections(body))
    _check(sections, head.word("chip count"))
    return sections


def parse_chip(text: str) -> Section:
    """Return what the tool says of the one chip that it was asked for (`-c`).

    Raises as parse_card does.
    """
    section = _make_section(Section(), _split_lines(text))
    if not section.values:
        raise _refuse(text)
    return section


def _refuse(text: str) -> Exception:
    return NotSupported(explain(text)) if is_refusal(text) else Damaged(explain(text))


def _split_lines(text: str) -> list[_Pair]:
    *lines, rest = split_lines(text)
    if rest:
        raise Damaged(f"it ends in the middle of a line: {rest.strip()[:60]!r}")
    pairs = []
    for line in lines:
        found = _LINE.fullmatch(line)
        if found:
            name, unit = split_unit(found[1])
            pairs.append((name, (found[2] or "", unit)))
    return pairs


def _split_sections(pairs: Sequence[_Pair]) -> Iterator[Section]:
    """Yield the sections; what says whose one is stands before or behind its values."""
    marks = [at for at, pair in enumerate(pairs) if _says_whose(pair)]
    if not marks:
        yield _make_section(Section(), pairs)
    elif marks[0] == 0:
        for start, end in itertools.pairwise([*marks, len(pairs)]):
            yield _make_section(_begin(pairs[start]), pairs[start + 1 : end])
    elif marks[-1] != len(pairs) - 1:
        raise Damaged("it ends in the middle of a chip")
    else:
        for start, end in itertools.pairwise([-1, *marks]):
            yield _make_section(_begin(pairs[end]), pairs[start + 1 : end])


def _make_section(section: Section, pairs: Sequence[_Pair]) -> Section:
    for name, value in pairs:
        if name in section.values:
            raise Damaged(f"{name!r} is there twice")
        section.values[name] = value
    return section


def _says_whose(pair: _Pair) -> bool:
    name, (value, _) = pair
    return name == "chip id" or (name == "chip name" and value.lower() in _CONTROLLERS)


def _begin(pair: _Pair) -> Section:
    name, (value, _) = pair
    if name == "chip id":
        return Section(read_whole(value))
    return Section(is_controller=True)


def _check(sections: Sequence[Section], chip_count: str | None) -> None:
    chips = [section.chip_id for section in sections if not section.is_controller]
    if len(set(chips)) != len(chips):
        raise Damaged("a chip is there twice")
    if chip_count is None:
        return  # a 950, or asked for one chip
    told = [chip_id for chip_id in chips if chip_id is not None]
    if len(told) != read_whole(chip_count):
        raise Damaged(f"it tells {len(told)} of {chip_count} chips")
