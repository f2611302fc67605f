"""The alerts: promtool runs their unit tests, and each one has all that an operator needs."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from provisioning.render import ROOT, render_tree

HERE = Path(__file__).parent
RUNBOOKS = ROOT / "docs/runbooks"
UNIT_TESTS = sorted(path.name for path in HERE.glob("*.yml"))
RUNBOOK_SECTIONS = ["## What it means", "## What to do"]

# Any: rule files and unit tests are YAML, of which promtool checks the form.
Rule = dict[str, Any]


def read_alerts() -> Iterator[tuple[str, Rule]]:
    for path in sorted((ROOT / "alert_rules").glob("*.yml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            yield from ((path.name, rule) for rule in group["rules"] if "alert" in rule)


ALERTS = {rule["alert"]: (area, rule) for area, rule in read_alerts()}


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rendered rules, with the unit tests in `tests` beside them."""
    out = tmp_path_factory.mktemp("rules")
    render_tree(out, {"SCRAPE_TOKEN_FILE": "/dev/null", "WEBHOOK_TOKEN_FILE": "/dev/null"})
    shutil.copytree(HERE, out / "tests", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    return out


def promtool(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["promtool", *arguments], capture_output=True, text=True, check=False, cwd=cwd
    )


@pytest.mark.parametrize("name", UNIT_TESTS)
def test_the_unit_tests_pass(rendered: Path, name: str) -> None:
    done = promtool("test", "rules", name, cwd=rendered / "tests")
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_accepts_all_files(rendered: Path) -> None:
    done = promtool("check", "config", "prometheus/prometheus.yml", cwd=rendered)
    assert done.returncode == 0, done.stdout + done.stderr
    rules = [str(path) for path in rendered.glob("prometheus/*/*.yml")]
    done = promtool("check", "rules", "--lint-fatal", *rules, cwd=rendered)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_two_alerts_have_one_name() -> None:
    assert len(ALERTS) == len(list(read_alerts()))


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_how_bad_it_is_what_it_is_and_where_to_look(name: str) -> None:
    _, rule = ALERTS[name]
    assert re.fullmatch(r"([A-Z][a-z]+){2,}", name), "not CamelCase"
    assert set(rule["labels"]) == {"severity"}, "more labels make more identities"
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    annotations = rule["annotations"]
    assert set(annotations) == {"summary", "description", "runbook_url", "dashboard"}
    # A summary with a value makes a new subject for each mail.
    assert "$value" not in annotations["summary"]
    assert annotations["runbook_url"] == f"@RUNBOOKS@/{name}.md"
    assert annotations["dashboard"].startswith("@GRAFANA_PUBLIC_URL@/d/sentinel-")


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_has_a_runbook(name: str) -> None:
    text = (RUNBOOKS / f"{name}.md").read_text()
    assert text.startswith(f"# {name}\n")
    found = [line for line in text.splitlines() if line.startswith("## ")]
    assert found == RUNBOOK_SECTIONS
    for section in text.split("\n## ")[1:]:
        assert len(section.split("\n", 1)[1].split()) >= 15, "says too little"


def test_a_runbook_belongs_to_an_alert() -> None:
    assert {path.stem for path in RUNBOOKS.glob("*.md")} - {"README"} == ALERTS.keys()


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_has_a_unit_test_where_it_fires_and_one_where_it_does_not(name: str) -> None:
    area, rule = ALERTS[name]
    suite = yaml.safe_load((HERE / area).read_text())
    cases = [
        case
        for test in suite["tests"]
        for case in test.get("alert_rule_test", [])
        if case["alertname"] == name
    ]
    firing = [alert for case in cases for alert in case["exp_alerts"]]
    assert firing, "no unit test where it fires"
    assert any(not case["exp_alerts"] for case in cases), "no unit test where it does not"
    # promtool compares all labels and annotations that a case lists, and none that it lacks.
    for alert in firing:
        assert alert["exp_labels"]["severity"] == rule["labels"]["severity"]
        assert set(alert["exp_annotations"]) == set(rule["annotations"])
