"""The collector contract: what is shipped keeps it, and adding a collector is adding a file."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from pydantic import ValidationError

import sentinel_exporters
from sentinel_exporters import outcome, pages
from sentinel_exporters.catalog import (
    check_metric,
    check_module,
    find_collectors,
    load_collector,
)
from sentinel_exporters.core import Compat, Metric, MetricType
from sentinel_exporters.errors import ContractError
from tests.exporters.running import REPOSITORY, serving, values

README = REPOSITORY / "exporters" / "README.md"
SHIPPED = sorted(find_collectors())


def readme_collector() -> str:
    found = re.search(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert found
    return found[1]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Path]:
    """A copy of the package on a path of its own, to which collectors can be added."""
    package = tmp_path / "site" / "sentinel_exporters"
    shutil.copytree(
        Path(sentinel_exporters.__file__).parent,
        package,
        ignore=shutil.ignore_patterns("__py*"),
    )
    yield package / "collectors"


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_collector_keeps_the_contract(name: str) -> None:
    collector = load_collector(name)
    assert collector.metrics
    assert collector.settings().timeout_s > 0
    with pytest.raises(ValidationError):
        collector.settings(timeout_s=0)


def test_every_shipped_collector_has_tests_and_fixtures() -> None:
    here = Path(__file__).parent
    for name in SHIPPED:
        assert list(here.glob(f"test_{name}*.py")), name
    assert {folder.name for folder in (here / "fixtures").iterdir()} == set(SHIPPED)


def test_no_two_families_share_a_name_with_different_meanings() -> None:
    seen: dict[str, Metric] = {
        metric.name: metric for metric in (*outcome.METRICS, *pages.METRICS)
    }
    for collector in find_collectors().values():
        for metric in collector.families:
            assert seen.setdefault(metric.name, metric) == metric


def test_a_unit_is_a_base_unit_and_in_the_name() -> None:
    for collector in find_collectors().values():
        for metric in collector.metrics:
            base = metric.name.removesuffix("_total")
            if metric.unit and metric.unit != "pages":
                assert base.endswith("_" + metric.unit), metric.name
                assert metric.unit in {
                    "seconds", "bytes", "celsius", "watts", "joules", "hertz", "ratio",
                    "volts", "amperes",
                }  # fmt: skip


def test_a_slow_or_broken_collector_neither_delays_nor_hides_the_others(
    site: Path, tmp_path: Path
) -> None:
    (site / "toy.py").write_text(readme_collector())
    (site / "aaa_import.py").write_text("import no_such_module\n")
    (site / "aab_contract.py").write_text("METRICS = ()\n")
    (site / "aac_raising.py").write_text(
        "METRICS = ()\ndef read(settings): raise OSError('no disk')\ndef parse(r): ...\n"
    )
    # It would outlive the test: that the page comes at all shows that nobody waits for it.
    (site / "aad_hanging.py").write_text(
        "import threading\n"
        f"from pathlib import Path\nRUNS = Path({str(tmp_path / 'runs')!r})\n"
        "METRICS = ()\n"
        "def read(settings):\n"
        "    with RUNS.open('a') as runs: runs.write('x')\n"
        "    threading.Event().wait()\n"
        "def parse(r): ...\n"
    )
    (site / "zzz_other.py").write_text(
        "from sentinel_exporters.core import Metric\n"
        "METRICS = (Metric('toy_open_files', 'gauge', 'Something else.'),)\n"
        "def read(settings): ...\ndef parse(r): ...\n"
    )
    names = "aaa_import,aab_contract,aac_raising,aad_hanging,toy,zzz_other"
    with serving(
        tmp_path / "log",
        "--collectors",
        names,
        python_path=str(site.parent.parent),
        env={"SENTINEL_EXPORTER_AAD_HANGING__TIMEOUT_S": "0.2"},
    ) as exporter:
        for _ in range(3):
            series = exporter.series()
            assert values(series, "sentinel_collector_success", "collector") == {
                "aaa_import": 0,
                "aab_contract": 0,
                "aac_raising": 0,
                "aad_hanging": 0,
                "toy": 1,
                "zzz_other": 0,
            }
            assert values(series, "toy_open_files")[""] > 0
        landing = exporter.get("/")[1].decode()
    assert (tmp_path / "runs").read_text() == "x"
    reasons = (
        "no_such_module", "needs either read() or probe()", "no disk", "time limit",
        "toy_open_files is declared a second time",
    )  # fmt: skip
    for reason in reasons:
        assert reason in landing
        assert (tmp_path / "log").read_text().count(reason) == 1


def make_module(**content: object) -> ModuleType:
    module = ModuleType("toy")
    vars(module).update(
        {"METRICS": (), "read": lambda _settings: "", "parse": lambda _reading: None, **content}
    )
    return module


@pytest.mark.parametrize(
    "content",
    [
        {"METRICS": None},
        {"METRICS": ("toy_value",)},
        {"METRICS": (Metric("toy", "gauge", "x"), Metric("toy", "gauge", "x"))},
        {"parse": None},
        {"read": None},
        {"probe": lambda _settings, _target: ""},
        {"Settings": dict},
    ],
)
def test_a_module_that_is_no_collector_is_refused(content: dict[str, object]) -> None:
    check_module("toy", make_module())
    with pytest.raises(ContractError):
        check_module("toy", make_module(**content))


GAUGE = Metric("TOY_Value_total", "gauge", "x", ("hostName", "UUID"))


def make_compat(*metrics: Metric) -> Compat:
    return Compat(metrics, lambda _reading: ())


def test_another_exporters_families_may_have_its_own_style_of_names() -> None:
    collector = check_module("toy", make_module(COMPAT={"peer": make_compat(GAUGE)}))
    assert list(collector.families) == [GAUGE]


@pytest.mark.parametrize(
    "content",
    [
        {"COMPAT": ()},
        {"COMPAT": {"peer": (GAUGE,)}},
        {"COMPAT": {1: make_compat(GAUGE)}},
        {"COMPAT": {"peer": make_compat(GAUGE, GAUGE)}},
        {"COMPAT": {"peer": make_compat(Metric("toy:value", "gauge", "x"))}},
        {"COMPAT": {"peer": make_compat(Metric("toy_total", "counter", "x"))}},
        {"COMPAT": {"peer": make_compat(Metric("toy", "gauge", ""))}},
        {"COMPAT": {"peer": make_compat(Metric("sentinel_toy", "gauge", "x"))}},
        {"COMPAT": {"peer": make_compat(Metric("toy", "gauge", "x", ("__name__",)))}},
        {"COMPAT": {"peer": make_compat(Metric("toy", "gauge", "x", ("a-b",)))}},
    ],
)
def test_another_exporters_family_that_prometheus_would_not_take_is_refused(
    content: dict[str, object],
) -> None:
    with pytest.raises(ContractError):
        check_module("toy", make_module(**content))


@pytest.mark.parametrize(
    ("name", "kind", "help_text", "labels"),
    [
        ("Toy", "gauge", "x", ()),
        ("toy-value", "gauge", "x", ()),
        ("toy", "gauge", "", ()),
        ("toy", "counter", "x", ()),
        ("toy_total", "gauge", "x", ()),
        ("sentinel_collector_success", "gauge", "x", ()),
        ("toy", "gauge", "x", ("a-b",)),
        ("toy", "gauge", "x", ("a", "a")),
    ],
)
def test_a_family_that_prometheus_would_not_take_is_refused(
    name: str, kind: MetricType, help_text: str, labels: tuple[str, ...]
) -> None:
    with pytest.raises(ContractError):
        check_metric(Metric(name, kind, help_text, labels))


def test_a_sample_needs_a_value_for_each_label() -> None:
    with pytest.raises(ValueError, match="toy"):
        Metric("toy", "gauge", "x", ("a", "b")).sample(1, "only one")
