"""Samples become families of both formats under the names that are declared."""

from __future__ import annotations

from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from sentinel_exporters.core import Metric, Sample
from sentinel_exporters.exposition import Page
from sentinel_exporters.server import as_registry, render

POWER = Metric("toy_power_watts", "gauge", 'In "watts"\\.', ("name",), "watts")
PAGES = Metric("toy_pages_used", "gauge", "Pages.", unit="pages")
ENERGY = Metric("toy_energy_joules_total", "counter", "Energy.", ("name",), "joules")
SAMPLES = [
    POWER.sample(1.5, "a"),
    ENERGY.sample(7, "a"),
    PAGES.sample(3),
    POWER.sample(2, 'quoted "b"\\\n'),
]


def openmetrics(samples: list[Sample]) -> dict[str, tuple[str, str, list[str]]]:
    """Return {family: type, unit, names of its samples} as the format's parser reads it."""
    page = generate_latest(as_registry(Page(samples))).decode()  # type: ignore[no-untyped-call]
    return {
        family.name: (family.type, family.unit, [sample.name for sample in family.samples])
        for family in text_string_to_metric_families(page)  # type: ignore[no-untyped-call]
    }


def test_openmetrics_has_units_where_the_name_carries_them() -> None:
    assert openmetrics(SAMPLES) == {
        "toy_power_watts": ("gauge", "watts", ["toy_power_watts"] * 2),
        "toy_pages_used": ("gauge", "", ["toy_pages_used"]),
        "toy_energy_joules": ("counter", "joules", ["toy_energy_joules_total"]),
    }


def test_the_text_format_has_each_family_once_with_its_samples_together() -> None:
    assert render(SAMPLES) == (
        "# HELP toy_energy_joules_total Energy.\n"
        "# TYPE toy_energy_joules_total counter\n"
        'toy_energy_joules_total{name="a"} 7.0\n'
        "# HELP toy_pages_used Pages.\n"
        "# TYPE toy_pages_used gauge\n"
        "toy_pages_used 3.0\n"
        '# HELP toy_power_watts In "watts"\\\\.\n'
        "# TYPE toy_power_watts gauge\n"
        'toy_power_watts{name="a"} 1.5\n'
        'toy_power_watts{name="quoted \\"b\\"\\\\\\n"} 2.0\n'
    )


def test_no_samples_are_an_empty_page() -> None:
    assert render([]) == ""
    assert openmetrics([]) == {}
