"""What programs can call and what operators can set is in the documents, and only that."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from apiflask import APIFlask

from sentinel_booking.config import Config

DOCS = Path(__file__).resolve().parents[2] / "docs"
# "GET, POST /api/me/keys": methods joined by commas, then one path.
_ENDPOINT = re.compile(r"\b((?:(?:GET|POST|PUT|PATCH|DELETE),? )+)(/[^\s,|?{}()]+)")
_SETTING = re.compile(r"^\| `([a-z_]+)` \|", re.MULTILINE)

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def same(path: str) -> str:
    """Parameters have other names in the documents than in the code."""
    return re.sub(r"<[^>]+>", "<>", path)


def documented() -> set[tuple[str, str]]:
    """Every method and path in the tables of docs/architecture.md."""
    found = set()
    for line in (DOCS / "architecture.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("|"):
            for methods, path in _ENDPOINT.findall(line.replace("`", "")):
                found |= {(method, same(path)) for method in re.findall("[A-Z]+", methods)}
    return found


def served(app: APIFlask) -> Iterator[tuple[str, str]]:
    """Every method and path that is not a page for people."""
    pages = tuple(name for name in app.blueprints if name.startswith("web_"))
    for rule in app.url_map.iter_rules():
        if rule.endpoint != "static" and not rule.endpoint.startswith(pages):
            for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
                yield method, same(rule.rule)


def test_every_endpoint_for_programs_is_in_the_tables(app: APIFlask) -> None:
    assert sorted(set(served(app)) - documented()) == []


def test_every_endpoint_in_the_tables_is_served(app: APIFlask) -> None:
    assert sorted(documented() - set(served(app))) == []


def test_every_operation_says_who_may_call_it(app: APIFlask) -> None:
    spec = app.test_client().get("/openapi.json").get_json()
    roles = re.compile(
        r"Anybody|Readonly and above|User and above|Operator and above|Admin|holder|Holder"
        r"|agent|Prometheus|Alertmanager|operator",
        re.IGNORECASE,
    )
    silent = [
        f"{method} {path}"
        for path, operations in spec["paths"].items()
        for method, operation in operations.items()
        if not roles.search(f"{operation['summary']} {operation.get('description', '')}")
    ]
    assert silent == []


def test_every_setting_is_documented_with_its_default(app: APIFlask) -> None:
    section = (DOCS / "config.md").read_text(encoding="utf-8").split("\n## Booking\n")[1]
    section = section.split("\n## ")[0]
    assert sorted(_SETTING.findall(section)) == sorted(Config.model_fields)
    for name, field in Config.model_fields.items():
        row = next(line for line in section.splitlines() if line.startswith(f"| `{name}` |"))
        shown = row.split("|")[2].strip().strip("`")
        is_bare = field.is_required() or field.default is None
        default = "" if is_bare else str(field.default) or "empty"
        assert shown == default, name
