"""Decode the tables of `-t info-vnpu` and `-t template-info`. Pure: runs nothing.

A chip that is split says how much of it is free, and which shares it has by the name of their
template; what a template has is in a table of its own.
"""

from __future__ import annotations

import itertools
import re

from ..npu.reading import Details, Template, Vnpu
from .details import ByChip
from .errors import NotSupported, explain, is_refusal
from .tables import Block, split_blocks
from .values import NO_READING, Damaged, read_whole

_TOTAL = re.compile(r"Total number of vnpu: *(\d+)", re.ASCII)
# What stands for no container; the second is also that of one that the tool cannot name.
_NO_CONTAINER = re.compile(r"0+|f+", re.IGNORECASE)
_VNPU_COLUMNS = ["Vnpu ID", "Vgroup ID", "Container ID", "Status", "Template Name"]
_TEMPLATE_COLUMNS = ["Name", "AICORE", "Memory"]
_GIBIBYTE = 1 << 30


def read_vnpus(text: str) -> ByChip:
    """Decode `-t info-vnpu` of one chip: its shares, and its AI cores.

    Raises NotSupported when it cannot be split, or not in this mode, and Damaged for a table
    that is not known or not whole.
    """
    blocks = _read_blocks(text)
    total = _TOTAL.search(text)
    if total is None:
        raise Damaged("it does not say how many vNPUs there are")
    heading = [block.rows == [_VNPU_COLUMNS] for block in blocks]
    start = heading.index(True) + 1 if True in heading else len(blocks)
    rows = [row for block in blocks[start:] for row in block.rows]
    if len(rows) != int(total[1]):
        raise Damaged(f"it lists {len(rows)} of {total[1]} vNPUs")
    free, aicores = _read_aicores(blocks)
    vnpus = tuple(_read_vnpu(row) for row in rows)
    return {None: Details(vnpus=vnpus, free_aicores=free, aicores=aicores)}


def read_templates(text: str) -> ByChip:
    """Decode `-t template-info` of a card; raises as read_vnpus does."""
    heading, *blocks = _read_blocks(text)
    if not any(row[0].split()[:3] == _TEMPLATE_COLUMNS for row in heading.rows):
        raise Damaged(f"its header is not known: {heading}")
    templates: dict[str, Template] = {}
    for block in blocks:
        words = block.rows[0][0].split()
        # The second row has the parts for images and videos.
        if len(block.rows) != 2 or len(words) < len(_TEMPLATE_COLUMNS) or words[0] in templates:
            raise Damaged(f"a row is not known: {block}")
        templates[words[0]] = Template(read_whole(words[1]), read_whole(words[2]) * _GIBIBYTE)
    return {None: Details(templates=templates)}


def _read_blocks(text: str) -> list[Block]:
    blocks = list(split_blocks(text))
    if not blocks:
        raise NotSupported(explain(text)) if is_refusal(text) else Damaged(explain(text))
    if any(block.is_torn or not block.is_closed for block in blocks):
        raise Damaged("the table is torn or ends in its middle")
    return blocks


def _read_aicores(blocks: list[Block]) -> tuple[int | None, int | None]:
    """Return how many AI cores are free and how many there are."""
    for heading, values in itertools.pairwise(blocks):
        if heading.rows[0][0].startswith("NPU resource"):
            columns = next((row[0].split() for row in heading.rows if "AICORE" in row[0]), [])
            words = values.rows[0][0].split()
            if len(words) != len(columns) or "AICORE" not in columns:
                raise Damaged(f"the resources are not known: {values}")
            free, _, total = words[columns.index("AICORE")].partition("/")
            if free in NO_READING or total in NO_READING:
                return None, None
            return read_whole(free), read_whole(total)
    raise Damaged("it does not tell the chip's resources")


def _read_vnpu(row: list[str]) -> Vnpu:
    if len(row) != len(_VNPU_COLUMNS):
        raise Damaged(f"a vNPU's row is not known: {' | '.join(row)[:120]}")
    number, group, container, status, template = row
    return Vnpu(
        vnpu_id=read_whole(number),
        group="" if group in NO_READING else group,
        container="" if _is_none(container) else container,
        is_used=None if status in NO_READING else read_whole(status) != 0,
        template="" if template in NO_READING else template,
    )


def _is_none(container: str) -> bool:
    return container in NO_READING or _NO_CONTAINER.fullmatch(container) is not None
