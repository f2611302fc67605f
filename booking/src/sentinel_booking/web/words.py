"""Phrases that several pages need in the page's language."""

from __future__ import annotations

from collections.abc import Sequence

from .texts import _


def what_is_booked(whole_node: bool, indices: Sequence[int]) -> str:
    """Return "whole machine", "Card 3" or "Cards 0–3, 6"; the numbers are the driver's."""
    if whole_node:
        return _("whole machine")
    text = _ranges(sorted(set(indices)))
    if len(indices) == 1:
        return _("Card %(index)s", index=text)
    return _("Cards %(list)s", list=text)


def _ranges(numbers: Sequence[int]) -> str:
    parts: list[list[int]] = []
    for number in numbers:
        if parts and parts[-1][-1] == number - 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    # Two in a row read better as two.
    texts = [
        f"{part[0]}–{part[-1]}" if len(part) > 2 else ", ".join(map(str, part))
        for part in parts
    ]
    return ", ".join(texts)
