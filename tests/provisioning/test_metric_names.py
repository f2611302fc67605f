"""Every series that a rule or a dashboard asks for is one that something exports."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from provisioning.render import ROOT
from sentinel_exporters import outcome, pages
from sentinel_exporters.catalog import find_collectors

# What the programs of others export; each name was seen on Prometheus 2.42, Alertmanager 0.25
# and node_exporter 1.5.
OF_OTHERS = {
    "alertmanager_notifications_failed_total",
    "node_cpu_seconds_total",
    "node_filesystem_avail_bytes",
    "node_filesystem_readonly",
    "node_filesystem_size_bytes",
    "prometheus_rule_evaluation_failures_total",
    "prometheus_sd_http_failures_total",
}
# A name of ours, or of those whose series we ask for; `node` alone is a label.
NAME = re.compile(
    r"[a-z_]+:[a-z_]+:[a-z]+"
    r"|(?:accelerator|alertmanager|ipmi|node|prometheus|sentinel|ssh)_[a-z0-9_]*[a-z0-9]"
)


def rules(pattern: str) -> list[dict[str, Any]]:
    return [
        rule
        for path in ROOT.glob(pattern)
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
    ]


ALERTS = rules("alert_rules/*.yml")
RECORDED = rules("provisioning/prometheus/rules/*.yml")


def exported() -> set[str]:
    families = [*pages.METRICS, *outcome.METRICS]
    for collector in find_collectors().values():
        families += collector.metrics
    found = {metric.name for metric in families}
    # Booking's series are a contract: tests of booking hold it to the same page.
    contract = (ROOT / "docs/architecture.md").read_text()
    found |= set(re.findall(r"`(sentinel_[a-z_]+)", contract))
    # The agent's too: a test of the agent holds what it exports to this page.
    of_agent = (ROOT / "docs/metrics.md").read_text().partition("\n## Agent\n")[2]
    found |= set(re.findall(r"(?m)^\| `(sentinel_agent_[a-z_]+)", of_agent))
    return found | {rule["record"] for rule in RECORDED} | OF_OTHERS


def asked() -> set[str]:
    texts = [rule["expr"] for rule in (*ALERTS, *RECORDED)]
    texts += [
        query
        for rule in ALERTS
        for query in re.findall(r'printf "([^"]*)"', rule["annotations"]["description"])
    ]
    for path in (ROOT / "provisioning/grafana/json").glob("*.json"):
        texts += find_values(json.loads(path.read_text()), {"expr", "definition"})
    found = set()
    for text in texts:
        # What stands in quotes is a label's value, as in alertname="NodeOffline".
        bare = re.sub(r'"[^"]*"|\'[^\']*\'', '""', text)
        found |= set(NAME.findall(bare))
        for pattern in re.findall(r'__name__=~"([^"]*)"', text):
            prefix, choices, suffix = re.fullmatch(r"(.*)\((.*)\)(.*)", pattern).groups()  # type: ignore[union-attr]  # the one form in use
            found |= {prefix + choice + suffix for choice in choices.split("|")}
    return found


def find_values(part: object, names: set[str]) -> list[str]:
    if isinstance(part, list):
        return [text for one in part for text in find_values(one, names)]
    if not isinstance(part, dict):
        return []
    own = [text for name, text in part.items() if name in names and isinstance(text, str)]
    return own + [text for one in part.values() for text in find_values(one, names)]


def test_the_search_for_names_finds_them() -> None:
    found = asked()
    assert {"accelerator_info", "ipmi_fan_speed_state", "node:monitored:max"} <= found
    assert len(found) > 30


def test_every_series_that_is_asked_for_is_exported_by_something() -> None:
    assert asked() - exported() == set()


def test_every_recorded_series_is_asked_for() -> None:
    assert {rule["record"] for rule in RECORDED} <= asked()
