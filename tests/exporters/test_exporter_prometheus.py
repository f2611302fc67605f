"""The pages before Prometheus' judges: promtool's linter, and a server that scrapes them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.exporters.nvml_driver import BARE, FULL, Driver, build
from tests.exporters.prometheus_server import prometheus, query
from tests.exporters.running import NPU_SMI, REPOSITORY, Exporter, serving
from tests.lab.wait import wait_for

pytestmark = pytest.mark.skipif(
    None in {shutil.which("promtool"), shutil.which("prometheus"), shutil.which("gcc")},
    reason="needs promtool, prometheus and gcc",
)


@pytest.fixture
def exporter(tmp_path: Path) -> Iterator[Exporter]:
    """A machine with two GPUs, eight NPUs and processes on them."""
    (tmp_path / "library").mkdir()
    build(tmp_path / "library", "550.54")
    driver = Driver(tmp_path / "scenario", tmp_path / "library")
    driver.set({**FULL, "compute": "1:1000"}, BARE)
    tool = tmp_path / "npu"
    shutil.copytree(NPU_SMI.parent / "npu-smi-910b", tool)
    table = (tool / "info.txt").read_text()
    row = f"| 3       0{' ' * 17} | 1{' ' * 13} | python3{' ' * 18} | 300{' ' * 21} |"
    idle = next(line for line in table.splitlines() if "found in NPU 3" in line)
    (tool / "info.txt").write_text(table.replace(idle, row))
    env = {
        **driver.env,
        "FAKE_NPU_SMI": str(tool),
        "SENTINEL_EXPORTER_NPU__COMMAND": str(NPU_SMI),
    }
    with serving(tmp_path / "log", "--collectors", "gpu,npu,ssh", env=env) as running:
        yield running


def test_promtool_finds_nothing_to_say(exporter: Exporter) -> None:
    page = exporter.get("/metrics")[1]
    assert page.count(b"accelerator_process_memory_bytes{") == 2
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=page, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


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
