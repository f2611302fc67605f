"""From a table of `npu-smi info` to its series, in a form that tests compare."""

from __future__ import annotations

from collections.abc import Iterator

from sentinel_exporters.collectors.npu import Reading, parse
from sentinel_exporters.core import Sample, Scrape
from sentinel_exporters.npu_smi.info import parse_info
from tests.exporters.npu_tables import Row, Table

Places = dict[tuple[int, int], int]

TWO_CARDS = Table([Row("0", "0", bus="0000:C1:00.0"), Row("5", "0", bus="0000:02:00.0")])


def scrape(table: Table, places: Places | None = None, **owners: str) -> Scrape:
    found = {int(pid.removeprefix("pid")): user for pid, user in owners.items()}
    return parse(Reading(parse_info(table.text()), places, found))


def series(samples: Iterator[Sample] | list[Sample], name: str) -> dict[tuple[str, ...], float]:
    """Return {labels without the vendor: value} of one family."""
    return {
        tuple(label for label in sample.labels if label != "ascend"): sample.value
        for sample in samples
        if sample.metric.name == name
    }
