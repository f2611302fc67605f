"""Other exporters' public dashboards on a Prometheus that scrapes ours: each query has data."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as open_metrics_to_families,
)
from prometheus_client.parser import text_string_to_metric_families

from tests.exporters.dashboard_queries import Query, load_queries
from tests.exporters.nvml_driver import FULL, SLICE, Driver, build, split
from tests.exporters.prometheus_server import prometheus, query
from tests.exporters.running import FAKES, NPU_SMI, Exporter, run_exporter, serving
from tests.lab.wait import wait_for

pytestmark = pytest.mark.skipif(
    None in {shutil.which("prometheus"), shutil.which("gcc")},
    reason="needs prometheus and gcc",
)

OF_GPUS = [*load_queries("dcgm"), *load_queries("nvidia_smi")]
OF_NPUS = load_queries("npu_exporter")
COMPUTING = {
    # NVML's counters of Hopper: the metrics that FULL does not have; of all, and of instance 7.
    "gpm.3": "30",
    "gpm.10": "20",
    "gpm.60": "5",
    "gpm.61": "6",
    **{f"gpm.{metric}.of.7": "25" for metric in (1, 2, 3, 5, 10, 20, 21)},
    "throttle_reasons_supported": str(0x1FF),
}
# Before Hopper, without NVLink and MIG.
OLDER = {
    key: value
    for key, value in FULL.items()
    if not key.startswith(("gpm", "nvlink", "field.13", "fabric", "mig"))
} | {"throttle_reasons_supported": str(0x1FF)}
NPU_LISTS = Path(__file__).parent / "fixtures" / "npu"


@dataclass(frozen=True)
class Npus:
    """What npu-smi prints: the table of all, and of each card the lists of its series."""

    table: Path
    series: str
    cards: tuple[int, ...]

    def write(self, folder: Path) -> Path:
        """Write it as the stand-in reads it; returns the folder."""
        folder.mkdir()
        shutil.copy(self.table, folder / "info.txt")
        if (mapping := self.table.with_name("mapping.txt")).exists():
            shutil.copy(mapping, folder)
        for path in NPU_LISTS.glob(f"*-{self.series}.txt"):
            kind = path.name.removesuffix(f"-{self.series}.txt")
            for card in self.cards:
                text = re.sub(r"(NPU ID +: )\d+", rf"\g<1>{card}", path.read_text())
                # Some lists are asked for by the chip too.
                (folder / f"{kind}-{card}.txt").write_text(text)
                (folder / f"{kind}-{card}-0.txt").write_text(text)
        return folder


EIGHT_910B = Npus(NPU_SMI.parent / "npu-smi-910b" / "info.txt", "910b", tuple(range(8)))
TWO_910A = Npus(NPU_LISTS / "info-910a-21.0.txt", "910a", (2, 6))


@dataclass
class Lab:
    """An exporter, and a Prometheus that scrapes it."""

    exporter: Exporter
    address: str
    driver: Driver

    def rows(self, asked: Query) -> list[dict[str, str]]:
        """Return the labels of each series of the answer."""
        return query(self.address, asked.expression())

    def wait_until_all_is_there(self) -> None:
        """Let the GPU have an XID error, and wait for that, the NPUs, and rates."""

        def wait(expression: str) -> None:
            wait_for(expression, lambda: query(self.address, expression))

        wait("accelerator_xid_watched == 1")
        self.driver.set(*self.driver.gpus, xids="0:79")
        wait("accelerator_xid_errors_total")
        wait("npu_chip_info_hbm_utilization")
        wait("count_over_time(up[1m]) > 2")


@contextlib.contextmanager
def scraped(folder: Path, *gpus: dict[str, str], npus: Npus) -> Iterator[Lab]:
    """Run exporter and Prometheus on these devices, with all three peers' families."""
    (folder / "library").mkdir()
    build(folder / "library", "550.54")
    driver = Driver(folder / "scenario", folder / "library")
    driver.set(*gpus)
    env = {
        **driver.env,
        "FAKE_NPU_SMI": str(npus.write(folder / "npus")),
        "SENTINEL_EXPORTER_NPU__COMMAND": str(NPU_SMI),
        "SENTINEL_EXPORTER_NPU__HCCN_TOOL": str(FAKES / "hccn_tool"),
        "SENTINEL_EXPORTER_NPU__INTERVAL_S": "1",
        "SENTINEL_EXPORTER_GPU__PID_SERIES": "10",
        "SENTINEL_EXPORTER_COMPAT": "dcgm,nvidia_smi,npu_exporter",
    }
    with (
        serving(folder / "log", "--collectors", "gpu,npu", env=env) as exporter,
        prometheus(folder, f"127.0.0.1:{exporter.port}") as address,
    ):
        yield Lab(exporter, address, driver)


@pytest.fixture(scope="module")
def labs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lab, Lab]]:
    """The two labs below, started together."""
    compute = {"compute": f"{os.getpid()}:1000"}
    whole = {**FULL, **COMPUTING, **compute}
    part = split({**whole, "uuid": "GPU-33333333-dddd"}, SLICE)
    with (
        scraped(tmp_path_factory.mktemp("lab"), whole, part, npus=EIGHT_910B) as lab,
        scraped(tmp_path_factory.mktemp("older"), {**OLDER, **compute}, npus=TWO_910A) as older,
    ):
        lab.wait_until_all_is_there()
        older.wait_until_all_is_there()
        # Of all that is asked of a chip it comes last.
        wait_for("the traffic", lambda: query(lab.address, "npu_chip_info_bandwidth_rx"))
        yield lab, older


@pytest.fixture
def lab(labs: tuple[Lab, Lab]) -> Lab:
    """GPUs that tell everything, one of them split, and eight NPUs that do."""
    return labs[0]


@pytest.fixture
def older(labs: tuple[Lab, Lab]) -> Lab:
    """A GPU of the generation before Hopper, and two NPUs of the first one."""
    return labs[1]


@pytest.mark.parametrize("asked", OF_GPUS, ids=lambda asked: asked.name)
def test_a_query_for_gpus_has_data_and_the_labels_that_it_shows(lab: Lab, asked: Query) -> None:
    rows = lab.rows(asked)
    assert rows, lab.exporter.log.read_text()
    assert any(asked.shown() <= row.keys() for row in rows)
    if asked.groups:
        assert any(set(asked.groups) <= row.keys() for row in rows)
        assert any(not set(asked.groups) & row.keys() for row in rows)


@pytest.mark.parametrize("asked", OF_GPUS, ids=lambda asked: asked.name)
def test_only_what_the_hardware_cannot_tell_has_no_data_on_an_older_gpu(
    older: Lab, asked: Query
) -> None:
    assert bool(older.rows(asked)) == (asked.needs == "")


@pytest.mark.parametrize("asked", OF_NPUS, ids=lambda asked: asked.name)
def test_a_query_for_npus_has_data_and_the_labels_that_it_shows(
    lab: Lab, older: Lab, asked: Query
) -> None:
    # Only older chips have memory of the kind that is asked for.
    rows = (older if asked.needs == "ddr" else lab).rows(asked)
    assert rows, lab.exporter.log.read_text()
    assert any(asked.shown() <= row.keys() for row in rows)


def test_both_formats_have_the_peers_names_and_parse(lab: Lab) -> None:
    _, text, _ = lab.exporter.get("/metrics")
    _, open_metrics, _ = lab.exporter.get("/metrics", Accept="application/openmetrics-text")
    named = [
        {
            sample.name
            for family in parse(page.decode())
            for sample in family.samples
            if sample.name.startswith(("DCGM_", "nvidia_smi_", "npu_", "machine_"))
        }
        for parse, page in (
            (text_string_to_metric_families, text),
            (open_metrics_to_families, open_metrics),
        )
    ]
    assert named[0] == named[1]
    assert {"DCGM_FI_DEV_XID_ERRORS", "nvidia_smi_xid_errors_total"} <= named[0]


def test_no_family_of_another_exporter_is_there_without_being_asked_for(lab: Lab) -> None:
    done = run_exporter("check", "--collectors", "gpu", env=lab.driver.env)
    assert "accelerator_info{" in done.stdout
    assert not re.search(r"(?m)^(DCGM_|nvidia_smi_|npu_|machine_)", done.stdout)
