"""The exporter over HTTP: formats, refusals, slow clients, and its end."""

from __future__ import annotations

import contextlib
import gzip
import io
import math
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from sentinel_exporters.deadline import DeadlineReader, DeadlineWriter
from sentinel_exporters.pages import find_limit_s
from tests.exporters.running import NPU_SMI, Exporter, run_exporter, serving, values
from tests.lab.wait import wait_for

ENV = {"SENTINEL_EXPORTER_NPU__COMMAND": str(NPU_SMI)}


@pytest.fixture(scope="module")
def exporter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exporter]:
    log = tmp_path_factory.mktemp("exporter") / "log"
    with serving(log, "--collectors", "npu", env=ENV) as running:
        yield running


def test_the_default_is_the_text_format(exporter: Exporter) -> None:
    status, body, headers = exporter.get("/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert body.count(b"# TYPE accelerator_info gauge\n") == 1


def test_openmetrics_is_given_to_who_accepts_it(exporter: Exporter) -> None:
    status, body, headers = exporter.get(
        "/metrics", Accept="application/openmetrics-text;version=1.0.0,text/plain;q=0.5"
    )
    assert status == 200
    assert headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    # The library's OpenMetrics parser has no types.
    parsed = text_string_to_metric_families(body.decode())  # type: ignore[no-untyped-call]
    families = {family.name: family for family in parsed}
    assert families["accelerator_power_watts"].unit == "watts"
    assert len(families["accelerator_power_watts"].samples) == 8


@pytest.mark.parametrize(
    "accept", ["application/openmetrics-text;version=x", ";;,=", "a" * 5000, "text/html"]
)
def test_a_strange_accept_header_gets_a_page(exporter: Exporter, accept: str) -> None:
    assert exporter.get("/metrics", Accept=accept)[0] == 200


def test_gzip_is_given_to_who_accepts_it(exporter: Exporter) -> None:
    _, body, headers = exporter.get("/metrics", Accept_Encoding="gzip")
    assert headers["Content-Encoding"] == "gzip"
    assert b"accelerator_info" in gzip.decompress(body)
    assert exporter.get("/metrics")[2]["Content-Encoding"] is None


def test_the_exporter_says_which_version_it_is(exporter: Exporter) -> None:
    assert len(values(exporter.series(), "sentinel_exporter_build_info", "version")) == 1


def test_healthz_answers_without_collecting(exporter: Exporter) -> None:
    assert exporter.get("/healthz")[:2] == (200, b"ok\n")


def test_the_landing_page_names_the_paths_and_the_collectors(exporter: Exporter) -> None:
    exporter.series()
    status, body, headers = exporter.get("/")
    assert status == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert b'href="metrics"' in body
    assert b'<td>npu</td><td class="state ok">ok</td>' in body


@pytest.mark.parametrize(
    "path", ["/none", "/metrics/x", "/..%2f", "/ipmi?target=10.0.0.1", "/npu?target=a"]
)
def test_what_is_not_served_is_not_found(exporter: Exporter, path: str) -> None:
    assert exporter.get(path)[0] == 404


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"POST /metrics HTTP/1.0\r\n\r\n", b"501"),
        (b"GET /metrics HTTP/9.9\r\n\r\n", b"505"),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n", b"431"),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", b"414"),
    ],
)
def test_what_is_no_request_is_refused(
    exporter: Exporter, request_bytes: bytes, status: bytes
) -> None:
    assert b" " + status + b" " in ask(exporter.port, request_bytes)
    assert exporter.get("/healthz")[0] == 200


def test_a_client_writes_no_line_of_the_log(tmp_path: Path) -> None:
    options = ("--verbose", "--collectors", "npu")
    with serving(tmp_path / "log", *options, env=ENV) as exporter:
        ask(exporter.port, b"GET /\x1b[31m HTTP/1.0\r\n\r\n")
        ask(exporter.port, b"GET /\rERROR\xa0forged HTTP/1.0\r\n\r\n")
        text = exporter.log.read_bytes()
    assert rb"/\x1b[31m" in text
    assert not set(text) & set(b"\x1b\r\xa0")


def ask(port: int, request: bytes) -> bytes:
    """Send raw bytes and return all that comes back."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(request)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    return answer


def test_a_client_that_goes_away_harms_nothing(exporter: Exporter) -> None:
    for _ in range(8):
        with socket.create_connection(("127.0.0.1", exporter.port)) as connection:
            connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
    assert exporter.get("/healthz")[0] == 200
    assert "Traceback" not in exporter.log.read_text()


def test_a_client_that_sends_byte_by_byte_has_no_more_time_for_it() -> None:
    ours, theirs = socket.socketpair()
    is_over = threading.Event()

    def send_slowly() -> None:
        with contextlib.suppress(OSError):
            while not is_over.wait(0.02):
                theirs.sendall(b"x")

    sender = threading.Thread(target=send_slowly)
    sender.start()
    try:
        # It would never end: no line is ever complete.
        with pytest.raises(TimeoutError):
            io.BufferedReader(DeadlineReader(ours, time.monotonic() + 0.3, 1 << 20)).readline()
    finally:
        is_over.set()
        sender.join(30)
        ours.close()
        theirs.close()


def test_whose_time_is_over_is_not_read_from_and_not_sent_to() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"GET")
        with pytest.raises(TimeoutError):
            DeadlineReader(ours, time.monotonic(), 100).readinto(bytearray(3))
        with pytest.raises(TimeoutError):
            DeadlineWriter(ours, 0).write(b"answer")


def gated_tool(folder: Path) -> Path:
    """A npu-smi that says that it runs, and waits and says so until the file `go` is there.

    It waits for a minute: it ends by itself where nobody is left to end it.
    """
    tool = folder / "npu-smi"
    tool.write_text(
        f"#!/bin/sh\ntouch {folder}/started\nturn=0\n"
        f"while [ ! -e {folder}/go ] && [ $((turn += 1)) -lt 3000 ]; do\n"
        f"touch {folder}/waits; sleep 0.02; done\n"
        f'exec {NPU_SMI} "$@"\n'
    )
    tool.chmod(0o755)
    return tool


def test_the_page_comes_before_prometheus_gives_up(tmp_path: Path) -> None:
    env = {"SENTINEL_EXPORTER_NPU__COMMAND": str(gated_tool(tmp_path)),
           "SENTINEL_EXPORTER_NPU__TIMEOUT_S": "300"}  # fmt: skip
    with serving(tmp_path / "log", "--collectors", "npu,ssh", env=env) as exporter:
        # npu-smi would go on for ever: that the page comes at all is due to the header.
        series = exporter.series(X_Prometheus_Scrape_Timeout_Seconds="0.8")
        assert values(series, "sentinel_collector_success", "collector") == {"npu": 0, "ssh": 1}
        assert "ssh_connections" in {name for name, _ in series}
        (tmp_path / "go").touch()
        wait_for(
            "the next run",
            lambda: values(exporter.series(), "sentinel_collector_success", "collector")["npu"],
        )


def test_while_a_tool_takes_its_time_a_scrape_gets_what_it_said_before(tmp_path: Path) -> None:
    env = {"SENTINEL_EXPORTER_NPU__COMMAND": str(gated_tool(tmp_path)),
           "SENTINEL_EXPORTER_NPU__TIMEOUT_S": "300",
           "SENTINEL_EXPORTER_NPU__INTERVAL_S": "0.2"}  # fmt: skip
    (tmp_path / "go").touch()
    with serving(tmp_path / "log", "--collectors", "npu", env=env) as exporter:
        wait_for("a result", lambda: values(exporter.series(), "accelerator_info", "uuid"))
        (tmp_path / "go").unlink()
        wait_for("a run that takes its time", (tmp_path / "waits").exists)
        ages: list[float] = []
        for _ in range(3):
            series = exporter.series()
            assert values(series, "sentinel_collector_success", "collector") == {"npu": 1}
            assert len(values(series, "accelerator_memory_total_bytes", "uuid")) == 8
            ages += values(series, "sentinel_collector_age_seconds", "collector").values()
        assert ages == sorted(set(ages))
        (tmp_path / "go").touch()
        wait_for(
            "a younger result",
            lambda: [
                age
                for age in values(
                    exporter.series(), "sentinel_collector_age_seconds", "collector"
                ).values()
                if age < ages[-1]
            ],
        )


@pytest.mark.parametrize(
    ("told", "limit_s"),
    [("10", 9.5), ("1", 0.5), ("0.8", 0.4), ("", math.inf), ("0", math.inf)],
)
def test_a_scrape_ends_a_little_before_the_scraper_gives_up(told: str, limit_s: float) -> None:
    assert find_limit_s({"X-Prometheus-Scrape-Timeout-Seconds": told}) == limit_s


@pytest.mark.parametrize("value", ["", "soon", "-1", "0", "nan", "inf", "1e400"])
def test_a_strange_scrape_timeout_is_not_believed(exporter: Exporter, value: str) -> None:
    series = exporter.series(X_Prometheus_Scrape_Timeout_Seconds=value)
    assert values(series, "sentinel_collector_success", "collector") == {"npu": 1}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_after_the_answers_that_are_under_way(
    tmp_path: Path, number: signal.Signals
) -> None:
    # Read at the scrape, so that the tool's run says that the request is being answered.
    env = {"SENTINEL_EXPORTER_NPU__COMMAND": str(gated_tool(tmp_path)),
           "SENTINEL_EXPORTER_NPU__INTERVAL_S": "0"}  # fmt: skip
    with serving(tmp_path / "log", "--collectors", "npu", env=env) as exporter:
        connection = socket.create_connection(("127.0.0.1", exporter.port), timeout=30)
        connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        wait_for("the tool to run", (tmp_path / "started").exists)
        exporter.process.send_signal(number)
        wait_for("the port to be closed", lambda: is_closed(exporter.port))
        (tmp_path / "go").touch()
        answer = b""
        while part := connection.recv(65536):
            answer += part
        connection.close()
        assert b"accelerator_info{" in answer
        assert exporter.process.wait(20) == 0
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines[-2:] == [f"INFO stopping signal={number.name}", "INFO stopped"]


def is_closed(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


def test_an_address_that_is_taken_is_an_error(exporter: Exporter, tmp_path: Path) -> None:
    done = run_exporter("serve", "--listen", f"127.0.0.1:{exporter.port}")
    assert done.returncode == 1
    assert "cannot listen" in done.stderr


def test_it_listens_on_ipv6_too(tmp_path: Path) -> None:
    options = ("--listen", "[::1]:0", "--collectors", "npu")
    with (
        serving(tmp_path / "log", *options, env=ENV) as exporter,
        socket.create_connection(("::1", exporter.port), timeout=30) as connection,
    ):
        connection.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.0 200 ")
