"""What users look up is what the exporter does: metrics, settings, options and ports."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import get_args, get_origin

import pytest
from pydantic import BaseModel

from sentinel_agent.config import Config as AgentConfig
from sentinel_exporters.catalog import Collector, find_collectors
from sentinel_exporters.config import Config, load_config
from sentinel_exporters.core import CollectorSettings
from sentinel_exporters.web.config_file import Http, Tls, WebFile
from tests.exporters.running import REPOSITORY, run_exporter

README = REPOSITORY / "exporters" / "README.md"
PACKAGING = REPOSITORY / "exporters" / "packaging"
METRICS = REPOSITORY / "docs" / "metrics.md"
CONFIG = REPOSITORY / "docs" / "config.md"

Row = dict[str, str]


def section(document: Path, heading: str) -> str:
    """Return the part of a Markdown file under `## heading`."""
    parts = re.split(r"(?m)^## ", document.read_text(encoding="utf-8"))
    return next(part for part in parts if part.startswith(heading + "\n"))


def tables(text: str) -> Iterator[list[Row]]:
    """Yield each table as its rows, {heading: cell}."""
    for found in re.findall(r"(?m)(?:^\|.*\n)+", text):
        lines = [
            [cell.strip() for cell in line.strip().strip("|").split("|")]
            for line in found.splitlines()
        ]
        yield [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]


@pytest.fixture(scope="module")
def listed() -> list[Row]:
    """What `sentinel-exporter metrics` prints."""
    done = run_exporter("metrics")
    names = ("collector", "name", "type", "unit", "labels", "help")
    return [
        dict(zip(names, line.split("\t"), strict=True)) for line in done.stdout.splitlines()
    ]


@pytest.fixture(scope="module")
def documented() -> dict[str, Row]:
    """The rows of all tables of series, by name; `labels` is what stands in the braces."""
    rows = {}
    for table in tables(section(METRICS, "Exporters")):
        for row in table:
            found = re.fullmatch(r"`(\w+)(?:\{([\w,…]*)\})?`", row.get("series", ""))
            if found:
                assert found[1] not in rows
                rows[found[1]] = {**row, "labels": found[2] or "-"}
    return rows


def test_every_metric_is_documented_and_every_documented_one_is_there(
    listed: list[Row], documented: dict[str, Row]
) -> None:
    assert set(documented) == {row["name"] for row in listed}


def test_type_unit_labels_and_meaning_are_those_that_are_documented(
    listed: list[Row], documented: dict[str, Row]
) -> None:
    collectors: dict[str, list[str]] = {}
    for row in listed:
        collectors.setdefault(row["name"], []).append(row["collector"])
    for row in listed:
        if ":" in row["collector"]:
            continue
        assert row["name"] in documented, f"{row['name']} is in no table of docs/metrics.md"
        told = documented[row["name"]]
        assert told["type"] == row["type"], row["name"]
        assert told["unit"].replace("–", "-") == row["unit"], row["name"]
        assert told["labels"] == row["labels"], row["name"]
        assert told["meaning"] == row["help"], row["name"]
        if "of" in told:
            assert told["of"].split(", ") == collectors[row["name"]], row["name"]


def test_the_labels_of_other_exporters_families_are_documented(
    listed: list[Row], documented: dict[str, Row]
) -> None:
    text = section(METRICS, "Exporters")
    for row in listed:
        if ":" not in row["collector"]:
            continue
        told = documented[row["name"]]["labels"]
        if told == "…":  # said once, above their table
            assert all(f"`{label}`" in text for label in row["labels"].split(","))
        else:
            assert told == row["labels"], row["name"]


def test_for_every_label_it_is_said_what_bounds_it(listed: list[Row]) -> None:
    text = section(METRICS, "Exporters").partition("### How many series\n")[2]
    bounded = {
        label
        for row in next(tables(text))
        for label in re.findall(r"`([a-z_]+)`", row["labels"])
    }
    labels = {
        label
        for row in listed
        if ":" not in row["collector"] and row["labels"] != "-"
        for label in row["labels"].split(",")
    }
    assert labels <= bounded


def setting_names(prefix: str, model: type[BaseModel]) -> Iterator[str]:
    """Yield the names; of a table of tables `modules.<name>.user`, of a list `events.name`."""
    for name, info in model.model_fields.items():
        tables = [one for one in get_args(info.annotation) if isinstance(one, type)]
        tables = [one for one in tables if issubclass(one, BaseModel)]
        if tables and get_origin(info.annotation) is tuple:
            yield from setting_names(f"{prefix}{name}.", tables[0])
        elif tables:
            yield from setting_names(f"{prefix}{name}.<name>.", tables[0])
        else:
            yield prefix + name


def test_every_setting_is_described_where_users_look() -> None:
    text = section(REPOSITORY / "docs" / "config.md", "Exporters")
    common = set(CollectorSettings.model_fields)
    known = {*setting_names("", Config), *(f"<collector>.{name}" for name in common)}
    for collector in find_collectors().values():
        known |= set(setting_names(f"{collector.name}.", collector.settings))
        known -= {f"{collector.name}.{name}" for name in common}
    settings, _, web = text.partition("\n### TLS and users\n")
    assert set(re.findall(r"(?m)^\| `([\w.<>]+)`", settings)) == known
    for section_of_web in (WebFile, Tls, Http):
        for name, info in section_of_web.model_fields.items():
            assert f"`{info.alias or name}`" in web


@pytest.fixture
def collectors() -> dict[str, Collector]:
    return find_collectors()


def test_the_defaults_are_those_that_are_documented(collectors: dict[str, Collector]) -> None:
    settings = section(CONFIG, "Exporters").partition("\n### ")[0]
    told = {row["setting"].strip("`"): row["default"] for row in next(tables(settings))}
    config = load_config(None, collectors)
    assert told["listen"] == f"`{config.listen}`"
    assert told["collectors"] == f"`{config.collectors}`"
    for name in ("max_requests", "max_probes"):
        assert told[name] == str(getattr(config, name))
    for common in CollectorSettings.model_fields:
        # One for all, and then those that have another: `5; npu 9; ipmi 30`.
        usual, *others = told[f"<collector>.{common}"].split("; ")
        own = {name.strip("`"): value for name, value in (other.split(" ") for other in others)}
        for name, collector in collectors.items():
            default = getattr(config.section(collector), common)
            assert float(own.get(name, usual)) == default, (name, common)


def test_every_option_is_documented_and_every_documented_one_is_there() -> None:
    rows = [row for table in tables(README.read_text()) for row in table if "option" in row]
    told = {found for row in rows for found in re.findall(r"`(--[\w.-]+)", row["option"])}
    usage = run_exporter("--help").stdout
    there = set(re.findall(r"(?m)^  (?:-\w, )?(--[\w-]+)", usage)) - {"--help"}
    assert told == there


def test_every_command_is_documented() -> None:
    rows = [row for table in tables(README.read_text()) for row in table if "command" in row]
    told = {
        found
        for row in rows
        for found in re.findall(r"sentinel-exporter \[?(\w+)", row["command"])
    }
    choices = re.search(r"\{([\w,]+)\}", run_exporter("--help").stdout)
    assert choices is not None
    assert told == set(choices[1].split(","))


def test_the_examples_are_configurations_that_it_takes(
    collectors: dict[str, Collector], tmp_path: Path
) -> None:
    examples = re.findall(r"```toml\n(.*?)```", README.read_text(), re.DOTALL)
    examples += re.findall(r"```toml\n(.*?)```", section(CONFIG, "Exporters"), re.DOTALL)
    assert len(examples) >= 2
    for text in examples:
        assert tomllib.loads(text)
        # That the passwords' files are there is looked at too.
        (tmp_path / "bmc-password").write_text("x\n")
        here = text.replace("/etc/sentinel/", f"{tmp_path}/")
        (tmp_path / "exporter.toml").write_text(here)
        load_config(tmp_path / "exporter.toml", collectors)


def test_the_default_port_is_where_the_others_look_for_it(
    collectors: dict[str, Collector],
) -> None:
    port = load_config(None, collectors).listen.rpartition(":")[2]
    assert AgentConfig.model_fields["targets"].default["sentinel"] == int(port)
    assert f"Ports: {port} on a node" in README.read_text()
    assert f"on port {port}." in (PACKAGING / "sentinel-exporter.service").read_text()
    assert f"default: 0.0.0.0:{port}" in run_exporter("--help").stdout


def imported_packages() -> Iterator[str]:
    """Yield the names of the distributions whose modules the exporters' sources import."""
    distributions = packages_distributions()
    for source in (REPOSITORY / "exporters" / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(source.read_bytes())):
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names = [node.module]
            for name in names:
                top = name.partition(".")[0]
                if top not in {*sys.stdlib_module_names, "sentinel_exporters"}:
                    yield distributions[top][0].lower().replace("_", "-")


def test_the_package_names_what_it_imports_and_no_more() -> None:
    project = tomllib.loads((REPOSITORY / "exporters" / "pyproject.toml").read_text())
    # The types of pydantic's errors are in its other half.
    imported = set(imported_packages()) - {"pydantic-core"}
    assert imported == set(project["project"]["dependencies"])
