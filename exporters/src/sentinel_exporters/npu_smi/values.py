"""Read the single values that npu-smi prints. Pure: knows no table and runs nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..npu.reading import Usage

NO_READING = frozenset({"NA", "N/A", "-", "--", ""})
# npu-smi says MB and means MiB: a chip of 64 GiB has 65536.
BYTES = {"B": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}

_BUS_ID = re.compile(r"[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-9A-Fa-f]")
_DECIMAL = re.compile(r"-?\d{1,9}(\.\d{1,6})?", re.ASCII)
# Memory in bytes has 11 digits and more.
_WHOLE = re.compile(r"\d{1,15}", re.ASCII)
# `HBM-Usage(MB)` or `NPU Temperature (C)`.
_NAME_AND_UNIT = re.compile(r"(.*?)\s*\(([^()]*)\)")


class Damaged(Exception):
    """Something cannot be read; the message says what."""


def split_lines(text: str) -> list[str]:
    """Return the lines, which end with a line feed and nothing else; "" behind the last.

    str.splitlines() would split at characters that users may put into a process's name.
    """
    return [line.removesuffix("\r") for line in text.split("\n")]


def split_unit(heading: str) -> tuple[str, str]:
    """Return name and unit of a heading: `HBM-Usage(MB)` is `hbm-usage` and `MB`."""
    found = _NAME_AND_UNIT.fullmatch(heading.strip())
    name, unit = (found[1], found[2]) if found else (heading.strip(), "")
    return " ".join(name.lower().split()), unit


def read_whole(word: str) -> int:
    """Return a number without sign and point; raises Damaged for anything else."""
    if not _WHOLE.fullmatch(word):
        raise Damaged(f"{word!r} is not a whole number")
    return int(word)


def read_bus_id(word: str) -> str | None:
    """Return a PCI address, or None where there is none."""
    if word in NO_READING:
        return None
    if not _BUS_ID.fullmatch(word):
        raise Damaged(f"{word!r} is not a bus id")
    return word


def read_decimal(
    value: tuple[str, str] | None, unit: str, *, least: float = 0, most: float = float("inf")
) -> float | None:
    """Return a reading of the unit within the bounds, or None where there is no reading.

    `value` is the word and its unit. Raises Damaged for another unit and for what is no number.
    """
    if value is None or value[0] in NO_READING:
        return None
    if value[1].lower() != unit.lower():
        raise Damaged(f"the unit is {value[1]!r}, not {unit!r}")
    if not _DECIMAL.fullmatch(value[0]) or not least <= float(value[0]) <= most:
        raise Damaged(f"{value[0]!r} is not a reading in {unit or 'whole numbers'}")
    return float(value[0])


def read_usage(value: tuple[str, str] | None, units: Mapping[str, int]) -> Usage | None:
    """Return `used / total` in units of 1, or None where there is no reading or no total."""
    if value is None or value[0] in NO_READING:
        return None
    factor = units.get(value[1])
    if factor is None:
        raise Damaged(f"the unit {value[1]!r} is not known")
    used, slash, total = (part.strip() for part in value[0].partition("/"))
    if not slash:
        raise Damaged(f"{value[0]!r} is not a usage")
    if used in NO_READING or total in NO_READING:
        return None
    usage = Usage(read_whole(used) * factor, read_whole(total) * factor)
    if usage.used > usage.total:
        raise Damaged(f"{value[0]!r} uses more than there is")
    # "0 / 0": a 910B has no DDR of its own, and no huge pages are set up.
    return usage if usage.total else None
