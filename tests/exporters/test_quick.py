"""Requests that need no thread: which they are, and that they are answered as others are."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from sentinel_exporters.pages import Answer
from sentinel_exporters.quick import read_request, write_head
from tests.exporters.bmc import Bmc
from tests.exporters.ipmi_lab import exporting

PROMETHEUS = (
    b"GET /ipmi?target=10.1.2.3&module=default HTTP/1.1\r\nHost: 127.0.0.1:9290\r\n"
    b"User-Agent: Prometheus/2.42.0\r\nAccept: text/plain;version=0.0.4;q=0.5,*/*;q=0.1\r\n"
    b"Accept-Encoding: gzip\r\nX-Prometheus-Scrape-Timeout-Seconds: 10\r\n\r\n"
)


def test_what_prometheus_asks_is_a_simple_request() -> None:
    asked = read_request(PROMETHEUS)

    assert asked is not None
    target, headers = asked
    assert target == "/ipmi?target=10.1.2.3&module=default"
    assert headers["x-prometheus-scrape-timeout-seconds"] == "10"
    assert headers["accept"] == "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"


@pytest.mark.parametrize(
    "request_",
    [
        b"",
        PROMETHEUS[:-1],
        PROMETHEUS[:-2],
        PROMETHEUS + b"GET / HTTP/1.1\r\n\r\n",
        PROMETHEUS.replace(b"GET", b"HEAD"),
        PROMETHEUS.replace(b"GET", b"POST"),
        PROMETHEUS.replace(b"HTTP/1.1", b"HTTP/2.0"),
        PROMETHEUS.replace(b"HTTP/1.1", b""),
        PROMETHEUS.replace(b"GET ", b"GET  "),
        PROMETHEUS.replace(b"\r\n", b"\n"),
        PROMETHEUS.replace(b"Accept-Encoding: gzip", b"Content-Length: 1"),
        PROMETHEUS.replace(b"Accept-Encoding: gzip", b"Transfer-Encoding: chunked"),
        PROMETHEUS.replace(b"Accept-Encoding: gzip", b" folded"),
        PROMETHEUS.replace(b"Accept-Encoding: gzip", b"no colon"),
        PROMETHEUS.replace(b"Accept-Encoding: gzip", b": no name"),
        PROMETHEUS.replace(b"Accept-Encoding: gzip", b"Host: twice"),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ],
)
def test_what_is_unusual_is_left_to_a_thread(request_: bytes) -> None:
    assert read_request(request_) is None


def test_a_head_says_what_follows() -> None:
    head = write_head(Answer(200, b"12345", "text/plain", {"Vary": "Accept"})).decode()

    assert head.startswith("HTTP/1.0 200 OK\r\n")
    assert "\r\nContent-Length: 5\r\n" in head
    assert "\r\nVary: Accept\r\n" in head
    assert head.endswith("\r\n\r\n")


def test_a_page_is_the_same_with_a_thread_and_without(tmp_path: Path) -> None:
    bmc = Bmc(tmp_path).start()
    path = f"/ipmi?target={bmc.target}&module=default"
    with exporting(tmp_path, {"default": {"collectors": ["ipmi", "chassis"]}}) as exporter:
        # A login needs a thread; the next scrapes do not.
        pages = [exporter.get(path) for _ in range(3)]
        _, zipped, headers = exporter.get(path, Accept_Encoding="gzip")
        _, openmetrics, _ = exporter.get(path, Accept="application/openmetrics-text")
        through_thread = exporter.get(path + "&module=default")
    bmc.stop()

    def steady(body: bytes) -> list[bytes]:
        return [line for line in body.splitlines() if b"_duration_seconds" not in line]

    assert [status for status, _, _ in pages] == [200] * 3
    first, *others = [steady(body) for _, body, _ in pages]
    assert b"ipmi_chassis_power_state 1.0" in first
    assert others == [first] * 2
    assert headers["Content-Encoding"] == "gzip"
    assert steady(gzip.decompress(zipped)) == first
    assert openmetrics.endswith(b"# EOF\n")
    for name in ("Content-Type", "Vary", "Server"):
        assert pages[0][2][name].strip() == pages[1][2][name].strip()
    assert through_thread[0] == 400
