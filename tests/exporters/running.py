"""Run sentinel-exporter as a process and read its pages. Judges nothing."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.message import Message
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.lab.wait import wait_for

REPOSITORY = Path(__file__).resolve().parents[2]
FAKES = REPOSITORY / "tests" / "fakes"
NPU_SMI = FAKES / "npu-smi"

# name, labels in alphabetical order: the value.
Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The test's environment without settings of an exporter that may run here."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("SENTINEL_EXPORTER_")}
    return {**kept, **(more or {})}


def run_exporter(
    *arguments: str, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "sentinel_exporters", *arguments],
        env=environment(env), capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


@dataclass
class Exporter:
    """A serving exporter."""

    process: subprocess.Popen[str]
    port: int
    log: Path

    def get(self, path: str, **headers: str) -> tuple[int, bytes, Message]:
        """Return status, body and headers, of refusals too."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            headers={name.replace("_", "-"): value for name, value in headers.items()},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read(), answer.headers
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read(), error.headers

    def series(self, path: str = "/metrics", **headers: str) -> Series:
        """Scrape, as Prometheus would, in the text format."""
        status, body, _ = self.get(path, **headers)
        assert status == 200, body
        return parse_series(body.decode())


@contextlib.contextmanager
def serving(
    log: Path, *arguments: str, env: Mapping[str, str] | None = None, python_path: str = ""
) -> Iterator[Exporter]:
    """Serve on a free port of loopback until the block ends."""
    more = {**(env or {}), **({"PYTHONPATH": python_path} if python_path else {})}
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "sentinel_exporters", "serve", "--listen", "127.0.0.1:0",
             *arguments],
            env=environment(more), stdout=output, stderr=output, text=True,
        )  # fmt: skip
    try:

        def find_port() -> int:
            assert process.poll() is None, log.read_text()
            found = re.search(r"listening .* port=(\d+)", log.read_text())
            return int(found[1]) if found else 0

        wait_for("the exporter listens", find_port)
        yield Exporter(process, find_port(), log)
    finally:
        process.terminate()
        process.wait(20)


def parse_series(text: str) -> Series:
    """Return a page in the text format as series."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def values(series: Series, name: str, label: str = "") -> dict[str, float]:
    """Return {the label's value: value} of one family; "" for a series without the label."""
    return {
        dict(labels).get(label, ""): value
        for (at, labels), value in series.items()
        if at == name
    }


def label_sets(series: Series, name: str) -> Sequence[dict[str, str]]:
    """Return the labels of each of the family's series."""
    return [dict(labels) for at, labels in series if at == name]
