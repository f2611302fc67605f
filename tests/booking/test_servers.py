"""Booking with a real Prometheus and a real Alertmanager around it."""

from __future__ import annotations

import datetime as dt
import http.server
import shutil
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from apiflask import APIFlask

from sentinel_booking.domain.charts import CHARTS, Window, chart_query
from sentinel_booking.models import Role
from tests.booking.lab import AgentOf, add_node, nvidia, register, reserve
from tests.booking.page_lab import lab_config
from tests.booking.people import Person, add_person, add_user
from tests.booking.programs import (
    answers,
    booking_server,
    free_port,
    migrated_app,
    running,
    until,
)

HOUR = dt.timedelta(hours=1)

PROMETHEUS = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [{folder}/rules.yml]
alerting:
  alertmanagers: [{{static_configs: [{{targets: ['127.0.0.1:{alertmanager}']}}]}}]
scrape_configs:
  - job_name: sentinel
    http_sd_configs:
      - url: {booking}/sd/sentinel
        refresh_interval: 1s
        authorization: {{type: Bearer, credentials_file: {folder}/scrape}}
  - job_name: booking
    authorization: {{type: Bearer, credentials_file: {folder}/scrape}}
    static_configs: [{{targets: ['{booking_address}']}}]
"""
RULES = """
groups:
  - name: test
    rules:
      - alert: TooHot
        expr: max by (node, uuid) (accelerator_temperature_celsius) > 90
        labels: {severity: warning}
        annotations: {summary: 'A device is too hot'}
"""
ALERTMANAGER = """
route: {{receiver: booking, group_by: [node], group_wait: 1s, group_interval: 1s}}
receivers:
  - name: booking
    webhook_configs:
      - url: {booking}/api/alerts/webhook
        http_config:
          authorization: {{type: Bearer, credentials_file: {folder}/webhook}}
"""


class Exporter(http.server.ThreadingHTTPServer):
    """Stands in for a node's sentinel-exporter: one GPU, as warm as the test wants."""

    celsius = 40

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Scraped)


class _Scraped(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, Exporter)
        labels = '{uuid="GPU-0",index="0",vendor="nvidia"}'
        body = f"accelerator_temperature_celsius{labels} {server.celsius}\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""


@dataclass(frozen=True)
class Lab:
    """All of it, running."""

    app: APIFlask
    booking: str
    prometheus: str
    exporter: Exporter
    agent: AgentOf
    rita: Person

    def get(self, path: str) -> Any:
        """Ask booking as rita."""
        answer = requests.get(f"{self.booking}{path}", headers=self.rita.headers, timeout=15)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def query(self, promql: str) -> list[Any]:
        """Ask Prometheus; returns its samples."""
        answer = requests.get(
            f"{self.prometheus}/api/v1/query", params={"query": promql}, timeout=15
        )
        assert answer.status_code == 200, answer.text
        result: list[Any] = answer.json()["data"]["result"]
        return result

    def until(self, promql: str) -> dict[str, str]:
        """Wait until the query finds something; returns the first sample's labels."""
        until(lambda: self.query(promql) != [], lambda: f"nothing for {promql}")
        labels: dict[str, str] = self.query(promql)[0]["metric"]
        return labels

    def report(self, targets: list[dict[str, object]]) -> None:
        """Let the agent report its GPU and these targets, to the real server."""
        answer = requests.put(
            f"{self.booking}/api/agent/inventory",
            json={"devices": [nvidia(0)], "targets": targets},
            headers=self.agent.headers,
            timeout=15,
        )
        assert answer.status_code == 200, answer.text

    @property
    def target(self) -> dict[str, object]:
        """The exporter, as an agent reports it."""
        return {"job": "sentinel", "port": self.exporter.server_port}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Booking, Prometheus and Alertmanager on the loopback, in a folder of their own."""
    for program in ("prometheus", "prometheus-alertmanager"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    folder = tmp_path_factory.mktemp("servers")
    prometheus, alertmanager = (f"127.0.0.1:{free_port()}" for _ in range(2))
    config = lab_config(folder, prometheus_url=f"http://{prometheus}")
    app = migrated_app(config)
    add_node(app, "gpu1", cluster="room-2", tags=["hot"])
    agent = register(app, address="127.0.0.1")
    rita = add_person(app, "rita", Role.READONLY)
    exporter = Exporter()
    with ExitStack() as stack:
        threading.Thread(target=exporter.serve_forever, args=(0.05,), daemon=True).start()
        stack.callback(exporter.server_close)
        stack.callback(exporter.shutdown)
        server = stack.enter_context(booking_server(config, folder))
        values = {
            "folder": folder,
            "booking": server.url,
            "booking_address": server.url.removeprefix("http://"),
            "alertmanager": alertmanager.partition(":")[2],
        }
        (folder / "rules.yml").write_text(RULES)
        (folder / "prometheus.yml").write_text(PROMETHEUS.format(**values))
        (folder / "alertmanager.yml").write_text(ALERTMANAGER.format(**values))
        lab = Lab(app, server.url, f"http://{prometheus}", exporter, agent, rita)
        lab.report([lab.target])
        stack.enter_context(_alertmanager(folder, alertmanager))
        stack.enter_context(_prometheus(folder, prometheus))
        yield lab


def _prometheus(folder: Path, address: str) -> Any:
    command = [
        "prometheus",
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/tsdb",
        f"--web.listen-address={address}",
        "--log.level=warn",
    ]
    log = folder / "prometheus.log"
    return running(command, log, lambda: answers(f"http://{address}/-/ready"))


def _alertmanager(folder: Path, address: str) -> Any:
    command = [
        "prometheus-alertmanager",
        f"--config.file={folder}/alertmanager.yml",
        f"--storage.path={folder}/alertmanager",
        f"--web.listen-address={address}",
        "--cluster.listen-address=",
    ]
    log = folder / "alertmanager.log"
    return running(command, log, lambda: answers(f"http://{address}/-/ready"))


def test_bookings_are_series_that_join_with_the_nodes(lab: Lab) -> None:
    reserve(lab.app, add_user(lab.app, "alice"), slots=[0])
    joined = lab.until(
        "accelerator_temperature_celsius * on (node, uuid) group_left (user)"
        " sentinel_reservation_device"
    )
    assert joined["user"] == "alice"
    assert lab.until('up{job="booking"} == 1')


def test_an_alert_that_fires_and_ends_is_in_the_history_with_its_holder(lab: Lab) -> None:
    reserve(lab.app, add_user(lab.app, "bob"), slots=[1])
    lab.exporter.celsius = 99
    until(lambda: lab.get("/api/alerts?state=firing")["items"] != [], lambda: "no alert")
    (fired,) = lab.get("/api/alerts?node=gpu1")["items"]
    assert (fired["name"], fired["severity"]) == ("TooHot", "warning")
    assert "bob" in fired["holders"]
    lab.exporter.celsius = 40
    until(lambda: lab.get("/api/alerts?state=resolved")["items"] != [], lambda: "no end")
    (ended,) = lab.get("/api/alerts")["items"]
    assert ended["id"] == fired["id"]
    assert ended["ends_at"] >= ended["starts_at"]


def test_a_charts_data_comes_from_prometheus(lab: Lab) -> None:
    lab.until("accelerator_temperature_celsius")
    path = "/api/nodes/gpu1/charts/accelerator-temperature?minutes=5"
    # The last point of the grid lies up to a step in the past.
    until(lambda: lab.get(path)["series"] != [], lambda: "no series")
    chart = lab.get(path)
    assert [line["label"] for line in chart["series"]] == ["nvidia 0"]
    assert chart["series"][0]["values"][-1] in (40, 99)
    assert len(chart["times"]) == len(chart["series"][0]["values"])


def test_every_chart_is_a_query_that_prometheus_takes(lab: Lab) -> None:
    for name, chart in CHARTS.items():
        for node in ("gpu1", 'a"b\\c'):
            promql = chart_query(chart, node, Window(0, 600, 15))
            assert isinstance(lab.query(promql), list), name


def test_a_target_is_scraped_while_it_is_reported(lab: Lab) -> None:
    labels = lab.until('up{job="sentinel"} == 1')
    assert (labels["node"], labels["cluster"], labels["tags"]) == ("gpu1", "room-2", ",hot,")
    lab.report([])
    until(
        lambda: lab.query('up{job="sentinel"}') == [],
        lambda: f"it is still scraped: {lab.query('up')}",
    )
    lab.report([lab.target])
    lab.until('up{job="sentinel"} == 1')
