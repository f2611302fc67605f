"""The pages before Prometheus' judges: promtool's linter, and a server that scrapes them."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from prometheus_client.core import Metric as Family
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

from tests.exporters.bmc import Bmc
from tests.exporters.ipmi_lab import exporting
from tests.exporters.nvml_driver import BARE, FULL, Driver
from tests.exporters.prometheus_server import prometheus, query
from tests.exporters.running import NPU_SMI, REPOSITORY, Exporter, serving
from tests.lab.wait import wait_for

pytestmark = pytest.mark.skipif(
    None in {shutil.which("promtool"), shutil.which("prometheus"), shutil.which("gcc")},
    reason="needs promtool, prometheus and gcc",
)
# By the names for the setting compat: how their families' names begin.
PEERS = {"dcgm": "DCGM_FI_", "nvidia_smi": "nvidia_smi_", "npu_exporter": "npu_"}
PROMETHEUS_2_42 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)


@pytest.fixture(scope="module")
def exporter(
    tmp_path_factory: pytest.TempPathFactory, nvml_library: Path
) -> Iterator[Exporter]:
    """A machine with two GPUs, eight NPUs and processes on them, and the peers' families."""
    folder = tmp_path_factory.mktemp("node")
    driver = Driver(folder / "scenario", nvml_library)
    driver.set({**FULL, "compute": "1:1000"}, BARE)
    tool = folder / "npu"
    shutil.copytree(NPU_SMI.parent / "npu-smi-910b", tool)
    table = (tool / "info.txt").read_text()
    row = f"| 3       0{' ' * 17} | 1{' ' * 13} | python3{' ' * 18} | 300{' ' * 21} |"
    idle = next(line for line in table.splitlines() if "found in NPU 3" in line)
    (tool / "info.txt").write_text(table.replace(idle, row))
    env = {
        **driver.env,
        "FAKE_NPU_SMI": str(tool),
        "SENTINEL_EXPORTER_NPU__COMMAND": str(NPU_SMI),
        "SENTINEL_EXPORTER_COMPAT": ",".join(PEERS),
    }
    with serving(folder / "log", "--collectors", "gpu,npu,ssh", env=env) as running:
        yield running


@pytest.fixture(scope="module")
def bmcs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Exporter, str]]:
    """An exporter that asks a BMC for everything, and the path of the BMC's page."""
    folder = tmp_path_factory.mktemp("bmcs")
    bmc = Bmc(folder).start()
    everything = {"collectors": ["ipmi", "dcmi", "bmc", "chassis", "sel", "bmc-watchdog"]}
    with exporting(folder, {"default": everything}) as running:
        yield running, f"/ipmi?target={bmc.target}"
    bmc.stop()


def lint(page: bytes) -> list[str]:
    """Return what promtool has to say of a page that it can read."""
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=page, capture_output=True, check=False
    )
    said = (done.stdout + done.stderr).decode().splitlines()
    # 3 is for a page with bad style, 1 for one that it cannot read.
    assert done.returncode == (3 if said else 0), said
    return said


def test_promtool_finds_nothing_to_say_but_of_the_peers_names(exporter: Exporter) -> None:
    page = exporter.get("/metrics")[1]
    assert page.count(b"accelerator_process_memory_bytes{") == 2
    assert all(f"\n{name}".encode() in page for name in PEERS.values())
    assert [line for line in lint(page) if not line.startswith(tuple(PEERS.values()))] == []


def test_promtool_finds_nothing_to_say_of_a_bmcs_page_but_of_one_name(
    bmcs: tuple[Exporter, str],
) -> None:
    page = bmcs[0].get(bmcs[1])[1]
    assert b"ipmi_temperature_celsius{" in page
    # The names are those of ipmi_exporter; this one is no histogram's.
    assert [line for line in lint(page) if not line.startswith("ipmi_sel_logs_count ")] == []


def in_text(page: bytes) -> dict[tuple[str, str], float]:
    return flat(parse_text(page.decode()))


def in_openmetrics(page: bytes) -> dict[tuple[str, str], float]:
    # The library's OpenMetrics parser has no types.
    return flat(parse_openmetrics(page.decode()))  # type: ignore[no-untyped-call]


def flat(families: Iterable[Family]) -> dict[tuple[str, str], float]:
    """Return {name and labels: value}; no two samples may be the same."""
    found: dict[tuple[str, str], float] = {}
    for family in families:
        for sample in family.samples:
            at = (sample.name, json.dumps(sample.labels, sort_keys=True))
            assert at not in found
            found[at] = sample.value
    return found


@pytest.mark.parametrize("page", ["node", "bmc"])
def test_both_forms_say_the_same(
    page: str, exporter: Exporter, bmcs: tuple[Exporter, str]
) -> None:
    asked, path = (exporter, "/metrics") if page == "node" else bmcs
    _, text, told = asked.get(path)
    assert told["Content-Type"].startswith("text/plain; version=0.0.4")
    _, other, told = asked.get(path, Accept=PROMETHEUS_2_42, Accept_Encoding="gzip")
    assert told["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    in_one, in_other = in_text(text), in_openmetrics(gzip.decompress(other))
    assert len(in_one) > 30
    assert in_one.keys() == in_other.keys()
    # What passes between the two scrapes may differ, and nothing else.
    changed = {
        name for (name, labels), value in in_one.items() if in_other[name, labels] != value
    }
    moving = re.compile("seconds|clock|sessions|^process_")
    assert {name for name in changed if not moving.search(name)} == set()


def test_a_real_prometheus_takes_the_page_and_joins_the_identity(
    exporter: Exporter, tmp_path: Path
) -> None:
    with prometheus(tmp_path, f"127.0.0.1:{exporter.port}") as address:
        wait_for("a scrape", lambda: query(address, 'up{job="sentinel"} == 1'))
        text = (REPOSITORY / "docs" / "metrics.md").read_text()
        joined = next(line for line in text.splitlines() if "group_left (model)" in line)
        rows = wait_for("the join of the documentation", lambda: query(address, joined))
        assert {row["model"] for row in rows} == {"NVIDIA H100 80GB HBM3", "Ascend 910B3"}
        assert len(rows) == 9
        failed = query(address, "sentinel_collector_success == 0")
        assert failed == []
        users = query(address, "accelerator_process_memory_bytes > 0")
        assert {row["vendor"] for row in users} == {"nvidia", "ascend"}
        assert {row["user"] for row in users} == {"root"}
