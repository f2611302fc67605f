"""From a table of `npu-smi info` to its series, in a form that tests compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sentinel_exporters.collectors.npu import parse
from sentinel_exporters.core import Sample, Scrape
from sentinel_exporters.npu.reading import Details, Reading
from sentinel_exporters.npu_smi.assemble import assemble
from sentinel_exporters.npu_smi.identity import name_chips
from sentinel_exporters.npu_smi.info import Info, parse_info
from tests.exporters.npu_tables import Row, Table

Places = dict[tuple[int, int], int]

TWO_CARDS = Table([Row("0", "0", bus="0000:C1:00.0"), Row("5", "0", bus="0000:02:00.0")])


def make_reading(
    info: Info,
    places: Places | None = None,
    details: Mapping[tuple[int, int], Details] | None = None,
    owners: Mapping[int, str] | None = None,
) -> Reading:
    """Put together what the tool's answers say, as its source does."""
    named, problems = name_chips(info.chips, places)
    return Reading(
        tool="npu-smi",
        tool_version=info.tool_version,
        driver_version=info.driver_version,
        chips=assemble(info, named, details or {}),
        owners=owners or {},
        problems=(*info.problems, *problems),
    )


def scrape(table: Table, places: Places | None = None, **owners: str) -> Scrape:
    found = {int(pid.removeprefix("pid")): user for pid, user in owners.items()}
    return parse(make_reading(parse_info(table.text()), places, owners=found))


def series(samples: Sequence[Sample], name: str) -> dict[tuple[str, ...], float]:
    """Return {labels without the vendor: value} of one family."""
    return {
        tuple(label for label in sample.labels if label != "ascend"): sample.value
        for sample in samples
        if sample.metric.name == name
    }
