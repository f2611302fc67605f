"""Starts Prometheus, Alertmanager and small HTTP services for tests; ends them by their pid."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from provisioning.render import render_tree
from tests.lab.ports import free_ports
from tests.lab.wait import wait_for

SCRAPE_TOKEN = "scrape-token-of-the-tests"
WEBHOOK_TOKEN = "webhook-token-of-the-tests"


@dataclass
class Lab:
    """What the stand-in for booking and the exporters says; tests change it while it serves."""

    # Job: http_sd groups.
    targets: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    # Path: text in Prometheus' format.
    metrics: dict[str, str] = field(default_factory=dict)
    # Bodies that came to the webhook with the right token.
    alerts: list[dict[str, Any]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    # Each request line's target with its Authorization header, "" for none.
    requests: set[tuple[str, str]] = field(default_factory=set)
    is_broken: bool = False
    port: int = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def add_target(self, job: str, address: str, **labels: str) -> None:
        group = {"targets": [address], "labels": labels}
        self.targets.setdefault(job, []).append(group)


@contextlib.contextmanager
def serving(lab: Lab) -> Iterator[Lab]:
    """Serve the lab's service discovery, metrics and webhook, each behind its token."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            lab.requests.add((self.path, self.headers.get("Authorization", "")))
            if lab.is_broken:
                self.answer(503, "text/plain", "")
            elif path.startswith("/sd/"):
                if self.is_allowed(SCRAPE_TOKEN):
                    groups = lab.targets.get(path.removeprefix("/sd/"), [])
                    self.answer(200, "application/json", json.dumps(groups))
            elif path in lab.metrics:
                self.answer(200, "text/plain; version=0.0.4", lab.metrics[path])
            else:
                self.answer(404, "text/plain", "")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.is_allowed(WEBHOOK_TOKEN):
                lab.alerts.append(json.loads(body))
                self.answer(204, "text/plain", "")

        def is_allowed(self, token: str) -> bool:
            if self.headers.get("Authorization") == f"Bearer {token}":
                return True
            lab.refused.append(self.path)
            self.answer(401, "text/plain", "")
            return False

        def answer(self, status: int, kind: str, text: str) -> None:
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Keep the tests' output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    lab.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield lab
    finally:
        server.shutdown()
        server.server_close()


def answers(url: str) -> bool:
    """Whether the address answers 200. Raises OSError when nobody does."""
    with urllib.request.urlopen(url, timeout=5) as response:
        return bool(response.status == 200)


@contextlib.contextmanager
def running(command: Sequence[str | Path], ready: str, log: Path) -> Iterator[None]:
    """Run the program until the block ends; enter it when `ready` answers."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            wait_for(f"{command[0]}, see {log}", lambda: process.poll() or answers(ready))
            assert process.poll() is None, log.read_text()
            yield
        finally:
            process.terminate()
            process.wait(timeout=20)


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus, asked over its HTTP API."""

    address: str

    def get(self, path: str, **parameters: str) -> Any:
        """Return `data` of the answer. Raises AssertionError with Prometheus' own words."""
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as response:
                # Any: Prometheus' answers have many shapes, and a test looks at one of them.
                return json.load(response)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from error

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the instant query's vector."""
        result: list[dict[str, Any]] = self.get("query", query=expression)["result"]
        return result


def settings(folder: Path, lab: Lab, **more: str) -> Mapping[str, str]:
    """Return settings for the renderer that point at the lab; the token files are made."""
    (folder / "scrape").write_text(SCRAPE_TOKEN + "\n")
    (folder / "webhook").write_text(WEBHOOK_TOKEN + "\n")
    return {
        "BOOKING_ADDRESS": lab.address,
        "SCRAPE_TOKEN_FILE": str(folder / "scrape"),
        "WEBHOOK_TOKEN_FILE": str(folder / "webhook"),
        "IPMI_EXPORTER_ADDRESS": lab.address,
        # Nobody's port: the default one may be a running lab's, which would mail our alerts.
        "ALERTMANAGER_ADDRESS": "127.0.0.1:9",
        **more,
    }


@contextlib.contextmanager
def prometheus(folder: Path, lab: Lab, **more: str) -> Iterator[Prometheus]:
    """Run Prometheus on the rendered files, in `folder`."""
    address = f"127.0.0.1:{free_ports(1)[0]}"
    out = folder / "rendered"
    render_tree(out, settings(folder, lab, PROMETHEUS_ADDRESS=address, **more))
    command = [
        "prometheus",
        f"--config.file={out}/prometheus/prometheus.yml",
        f"--storage.tsdb.path={folder}/tsdb",
        f"--web.listen-address={address}",
        "--log.level=warn",
    ]
    with running(command, f"http://{address}/-/ready", folder / "prometheus.log"):
        yield Prometheus(address)


@contextlib.contextmanager
def alertmanager(folder: Path, lab: Lab, **more: str) -> Iterator[str]:
    """Run Alertmanager on the rendered files, in `folder`; give its host:port."""
    address = f"127.0.0.1:{free_ports(1)[0]}"
    out = folder / "rendered"
    render_tree(out, settings(folder, lab, ALERTMANAGER_ADDRESS=address, **more))
    command = [
        "prometheus-alertmanager",
        f"--config.file={out}/alertmanager/alertmanager.yml",
        f"--storage.path={folder}/alertmanager",
        f"--web.listen-address={address}",
        "--cluster.listen-address=",
        "--log.level=warn",
    ]
    with running(command, f"http://{address}/-/ready", folder / "alertmanager.log"):
        yield address


def send_alerts(address: str, alerts: Sequence[Mapping[str, object]]) -> None:
    """Post alerts to Alertmanager as Prometheus does."""
    request = urllib.request.Request(
        f"http://{address}/api/v2/alerts",
        data=json.dumps(alerts).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10):
        pass
