"""The counts of a GPU's memory errors, under keys that other exporters' names stand for."""

from __future__ import annotations

from ..gpu.reading import Gpu


def error_counts(gpu: Gpu) -> dict[str, float | None]:
    """Return each count and claim by its key; what the GPU does not tell is None or missing."""
    counts: dict[str, float | None] = {
        f"{counter} {kind}": count
        for counter, kinds in (("volatile", gpu.ecc.volatile), ("aggregate", gpu.ecc.aggregate))
        for kind, count in kinds.items()
    }
    if pages := gpu.retired_pages:
        counts["single-bit pages"] = pages.single_bit
        counts["double-bit pages"] = pages.double_bit
        counts["pages pending"] = pages.is_pending
    if rows := gpu.remapped_rows:
        counts["corrected rows"] = rows.corrected
        counts["uncorrected rows"] = rows.uncorrected
        counts["rows pending"] = rows.is_pending
        counts["rows failed"] = rows.has_failed
    return counts
