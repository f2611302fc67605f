"""Run a Prometheus that scrapes one exporter, and ask it. Judges nothing."""

from __future__ import annotations

import contextlib
import json
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.lab.ports import free_ports


@contextlib.contextmanager
def prometheus(
    folder: Path, target: str, jobs: Mapping[str, Mapping[str, object]] | None = None
) -> Iterator[str]:
    """Run Prometheus on one target; yields its address.

    `jobs` are names and options of those that scrape it; else it is one, `sentinel`.
    """
    address = f"127.0.0.1:{free_ports(1)[0]}"
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
        "scrape_configs": [
            {"job_name": name, "static_configs": [{"targets": [target]}], **options}
            for name, options in (jobs or {"sentinel": {}}).items()
        ],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config))
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen(
            ["prometheus", f"--config.file={folder}/prometheus.yml",
             f"--storage.tsdb.path={folder}/data", f"--web.listen-address={address}"],
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        yield address
    finally:
        process.terminate()
        process.wait(20)


def query(address: str, expression: str) -> list[dict[str, str]]:
    """Return the labels of each series of the answer."""
    url = f"http://{address}/api/v1/query?" + urllib.parse.urlencode({"query": expression})
    with urllib.request.urlopen(url, timeout=10) as answer:
        return [row["metric"] for row in json.load(answer)["data"]["result"]]
