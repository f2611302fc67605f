"""A page in both forms, as their own parsers read it, and which form who gets."""

from __future__ import annotations

import pytest
from prometheus_client.core import Metric as Family
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

from sentinel_exporters.core import Metric, Sample
from sentinel_exporters.exposition import (
    TEXT,
    accepts_gzip,
    choose_form,
    write_openmetrics,
    write_text,
)

POWER = Metric("toy_power_watts", "gauge", 'In "watts"\\.', ("name",), "watts")
PAGES = Metric("toy_pages_used", "gauge", "Pages.", unit="pages")
ENERGY = Metric("toy_energy_joules_total", "counter", "Energy.", ("name",), "joules")
PEER = Metric("TOY_errors_total", "gauge", "Another exporter's.", ("hostName", "UUID"))
QUOTED = 'quoted "b"\\\n%s'
SAMPLES = [
    POWER.sample(1.5, "a"),
    ENERGY.sample(7, "a"),
    PAGES.sample(3),
    POWER.sample(2, QUOTED),
    PEER.sample(1e22, "n", "Größe"),
]


def openmetrics(samples: list[Sample]) -> dict[str, tuple[str, str, list[str]]]:
    """Return {family: type, unit, names of its samples} as the format's parser reads it."""
    # The library's OpenMetrics parser has no types.
    parsed = parse_openmetrics(write_openmetrics(samples).decode())  # type: ignore[no-untyped-call]
    return {
        family.name: (family.type, family.unit, [sample.name for sample in family.samples])
        for family in parsed
    }


def test_openmetrics_has_units_where_the_name_carries_them() -> None:
    assert openmetrics(SAMPLES) == {
        "TOY_errors_total": ("gauge", "", ["TOY_errors_total"]),
        "toy_power_watts": ("gauge", "watts", ["toy_power_watts"] * 2),
        "toy_pages_used": ("gauge", "", ["toy_pages_used"]),
        "toy_energy_joules": ("counter", "joules", ["toy_energy_joules_total"]),
    }


def test_the_text_format_has_each_family_once_with_its_samples_together() -> None:
    assert write_text(SAMPLES).decode() == (
        "# HELP TOY_errors_total Another exporter's.\n"
        "# TYPE TOY_errors_total gauge\n"
        'TOY_errors_total{hostName="n",UUID="Größe"} 1e+22\n'
        "# HELP toy_energy_joules_total Energy.\n"
        "# TYPE toy_energy_joules_total counter\n"
        'toy_energy_joules_total{name="a"} 7.0\n'
        "# HELP toy_pages_used Pages.\n"
        "# TYPE toy_pages_used gauge\n"
        "toy_pages_used 3.0\n"
        '# HELP toy_power_watts In "watts"\\\\.\n'
        "# TYPE toy_power_watts gauge\n"
        'toy_power_watts{name="a"} 1.5\n'
        'toy_power_watts{name="quoted \\"b\\"\\\\\\n%s"} 2.0\n'
    )


@pytest.mark.parametrize(
    "parsed",
    [
        list(parse_text(write_text(SAMPLES).decode())),
        list(parse_openmetrics(write_openmetrics(SAMPLES).decode())),  # type: ignore[no-untyped-call]
    ],
    ids=["text", "openmetrics"],
)
def test_values_labels_and_help_survive_both_formats(parsed: list[Family]) -> None:
    families = {family.name: family for family in parsed}
    power = families["toy_power_watts"]
    assert power.documentation == POWER.help
    assert {sample.labels["name"]: sample.value for sample in power.samples} == {
        "a": 1.5,
        QUOTED: 2.0,
    }
    peer = families["TOY_errors_total"].samples[0]
    assert (peer.labels, peer.value) == ({"hostName": "n", "UUID": "Größe"}, 1e22)


def test_no_samples_are_an_empty_page() -> None:
    assert write_text([]) == b""
    assert openmetrics([]) == {}


def test_a_label_that_is_no_utf_8_takes_no_other_sample_away() -> None:
    page = write_text(
        [POWER.sample(1, b"\xff".decode(errors="surrogateescape")), PAGES.sample(3)]
    )
    assert b'toy_power_watts{name="?"} 1.0\n' in page
    assert b"toy_pages_used 3.0\n" in page


OPENMETRICS_1 = "application/openmetrics-text; version=1.0.0; charset=utf-8"
OPENMETRICS_0 = "application/openmetrics-text; version=0.0.1; charset=utf-8"


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        # What Prometheus sends, from its scrape/scrape.go and config/config.go.
        # 2.0 to 2.4
        ("text/plain;version=0.0.4;q=1,*/*;q=0.1", TEXT),
        # 2.5 to 2.39
        (
            "application/openmetrics-text; version=0.0.1,text/plain;version=0.0.4;q=0.5,"
            "*/*;q=0.1",
            OPENMETRICS_0,
        ),
        # 2.40 to 2.48
        (
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;"
            "version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            OPENMETRICS_1,
        ),
        # 2.40 and newer with native histograms
        (
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;"
            "encoding=delimited,application/openmetrics-text;version=1.0.0;q=0.8,"
            "application/openmetrics-text;version=0.0.1;q=0.75,"
            "text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            OPENMETRICS_1,
        ),
        # 3
        (
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
            "application/openmetrics-text;version=0.0.1;q=0.4,"
            "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,"
            "text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
            OPENMETRICS_1,
        ),
        # 3 with scrape_protocols: [PrometheusText1.0.0]
        ("text/plain;version=1.0.0;escaping=allow-utf-8;q=0.2,*/*;q=0.1", TEXT),
        # Others
        ("", TEXT),
        ("*/*", TEXT),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", TEXT),
        ("application/openmetrics-text", OPENMETRICS_1),
        (
            "Application/OpenMetrics-Text ; Version=1.0.0 ; q=0.9 , text/plain;q=0.1",
            OPENMETRICS_1,
        ),
        ("application/openmetrics-text;q=0.1,text/plain;q=0.9", TEXT),
        ("text/plain,application/openmetrics-text", TEXT),
        ("application/openmetrics-text;q=0,text/plain;q=0", TEXT),
        ("application/openmetrics-text;version=2.0.0", TEXT),
        ("application/openmetrics-text;version=1.0.0;q=x", TEXT),
        ("application/openmetrics-text;version=1.0.0;q=nan", TEXT),
        ("image/png", TEXT),
        (";;,=,;q=", TEXT),
    ],
)
def test_the_form_is_the_one_that_is_liked_best(accept: str, content_type: str) -> None:
    write, chosen = choose_form(accept)
    assert chosen == content_type
    assert write is (write_text if content_type == TEXT else write_openmetrics)


@pytest.mark.parametrize(
    ("header", "is_accepted"),
    [
        ("gzip", True),
        ("deflate, GZIP;q=0.5", True),
        ("*", True),
        ("gzip;q=0", False),
        ("*;q=1, gzip;q=0", False),
        ("", False),
        ("identity", False),
        ("gzipped", False),
    ],
)
def test_gzip_is_for_who_accepts_it(header: str, is_accepted: bool) -> None:
    assert accepts_gzip(header) is is_accepted
