"""Requests that need no thread: which they are, and that they are answered as others are."""

from __future__ import annotations

import gzip
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sentinel_exporters.answer import Answer
from sentinel_exporters.errors import BadTarget
from sentinel_exporters.quick import read_request
from tests.exporters.bmc import Bmc
from tests.exporters.ipmi_lab import exporting
from tests.exporters.toy import VALUE, Source, refuse_threads
from tests.exporters.toy_site import ToySite, read_all, serving_toy
from tests.lab.wait import wait_for

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
    head = Answer(200, b"12345", "text/plain", {"Vary": "Accept"}).head().decode()

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
        moving = (b"_duration_seconds", b"_timestamp_seconds")
        return [line for line in body.splitlines() if not any(name in line for name in moving)]

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


PROBE = b"GET /bmc?target=10.0.0.1 HTTP/1.0\r\n\r\n"


@pytest.fixture
def site() -> Iterator[ToySite]:
    """A probe that begins, and that the test ends."""
    with serving_toy(Source("bmc", is_probe=True, begins=True)) as site:
        yield site


def begin(site: ToySite, connection: socket.socket) -> Callable[[], None]:
    """Ask, and return what ends the probe that this begins."""
    connection.sendall(PROBE)
    wait_for("the probe to begin", lambda: site.source.begun)
    return site.source.begun.pop()


def http_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "http"]


def is_left(site: ToySite) -> bool:
    """Whether nobody is being answered."""
    return site.server.connections.wait_until_answered(0)


def test_a_probe_that_begins_needs_no_thread(site: ToySite) -> None:
    with site.connect() as connection:
        end = begin(site, connection)
        assert http_threads() == []
        end()
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.0 200 OK\r\n")
    assert b'toy_value{name="10.0.0.1"} 1.0\n' in answer
    assert site.source.reads == 0
    assert is_left(site)


@pytest.mark.parametrize(
    ("error", "status"), [(BadTarget("no such module"), b"400"), (OSError("bug"), b"200")]
)
def test_a_probe_that_begins_is_refused_or_fails_as_others_are(
    site: ToySite, error: Exception, status: bytes
) -> None:
    site.source.error = error
    with site.connect() as connection:
        begin(site, connection)()
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.0 " + status + b" ")
    assert (b'sentinel_collector_success{collector="bmc"} 0.0\n' in answer) == (
        status == b"200"
    )


def test_a_probe_that_cannot_begin_is_answered_by_a_thread(
    site: ToySite, caplog: pytest.LogCaptureFixture
) -> None:
    site.source.begin_error = ValueError("bug")
    # More often than there are places: none is lost.
    for _ in range(5):
        assert b'toy_value{name="10.0.0.1"} 1.0\n' in site.ask(PROBE)
    assert site.source.reads == 5
    assert caplog.text.count("probe not begun probe=bmc") == 5
    wait_for("their connections to be closed", lambda: is_left(site))


def test_a_client_that_goes_away_before_the_end_harms_nothing(site: ToySite) -> None:
    with site.connect() as connection:
        end = begin(site, connection)
        # A reset, which the next write would see.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end()
    assert is_left(site)
    with site.connect() as connection:
        begin(site, connection)()
        assert read_all(connection).startswith(b"HTTP/1.0 200 ")


def make_big(source: Source) -> None:
    """Let it find more than the buffers on both sides take."""
    source.samples = tuple(
        VALUE.sample(number, f"{number:05d}" + "x" * 2000) for number in range(9000)
    )


def test_what_does_not_fit_is_sent_by_a_thread(site: ToySite) -> None:
    make_big(site.source)
    with site.connect() as connection:
        begin(site, connection)()
        assert http_threads() == ["http"]
        answer = read_all(connection)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}\r\n".encode() in head + b"\r\n"
    wait_for("the connection to be closed", lambda: is_left(site))


def test_where_there_is_no_thread_for_the_rest_the_answer_is_cut_short(
    site: ToySite, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    make_big(site.source)
    with site.connect() as connection:
        end = begin(site, connection)
        refuse_threads(monkeypatch, "http")
        # It is called by the collector's own thread, which goes on.
        end()
        assert is_left(site)
        assert len(read_all(connection)) < 18_000_000
    assert "answer cut short reason=can't start new thread" in caplog.text
