"""Clients that say nothing, say it slowly, come in crowds or do not read shut nobody out."""

from __future__ import annotations

import contextlib
import resource
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from sentinel_exporters.connections import Connections
from tests.exporters.running import serving
from tests.exporters.toy import VALUE, Source
from tests.exporters.toy_site import SCRAPE, ToySite, read_all, serving_toy
from tests.lab.wait import wait_for

HEALTH = b"GET /healthz HTTP/1.0\r\n\r\n"
# It gets its answer, and gives its place back, whatever the collector does.
HASTY = b"GET /metrics HTTP/1.0\r\nX-Prometheus-Scrape-Timeout-Seconds: 0.2\r\n\r\n"


def what_came(connection: socket.socket) -> bytes:
    """Return the beginning of the answer, if one has come by now."""
    connection.setblocking(False)
    try:
        return connection.recv(13) or b"dropped"
    except BlockingIOError:
        return b"nothing"
    except ConnectionError:
        return b"dropped"


@pytest.fixture
def site() -> Iterator[ToySite]:
    with serving_toy(Source("a")) as site:
        yield site


def is_page(answer: bytes) -> bool:
    return answer.startswith(b"HTTP/1.0 200 ") and b"toy_value{" in answer


@pytest.mark.parametrize(
    "part",
    [
        b"",
        b"G",
        b"GET /metrics",
        b"GET /metrics\r\n",
        b"GET /metrics HTTP/1.1\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: a\r\nX",
        b"\r\n",
        b"\x00" * 100,
    ],
)
def test_a_request_that_is_cut_short_is_not_answered_with_a_page(
    site: ToySite, part: bytes
) -> None:
    with site.connect() as connection:
        connection.sendall(part)
        connection.shutdown(socket.SHUT_WR)
        assert not is_page(read_all(connection))
    assert site.source.reads == 0
    assert is_page(site.ask())


@contextlib.contextmanager
def limit_of_files(soft: int) -> Iterator[None]:
    """Let this process, and those that it starts, open so many files where that is allowed."""
    before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = soft if hard == resource.RLIM_INFINITY else min(soft, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before, hard))


def test_more_clients_than_are_waited_for_shut_nobody_out(
    site: ToySite, caplog: pytest.LogCaptureFixture
) -> None:
    # Both ends of each connection are here.
    with limit_of_files(4096), contextlib.ExitStack() as held:
        silent = [held.enter_context(site.connect()) for _ in range(1000)]
        for number, connection in enumerate(silent):
            with contextlib.suppress(OSError):
                connection.sendall(b"GET /metrics HTTP/1.1\r\nX: "[: number % 25])
        wait_for("a page in spite of them", lambda: is_page(site.ask()))
        threads = [one for one in threading.enumerate() if one.name == "http"]
        assert len(threads) <= 512
        # Some had to go, some had no room, and the others are waited for still.
        ends = Counter(what_came(connection) for connection in silent)
        assert caplog.text.count("connections refused") == 1
        assert set(ends) == {b"dropped", b"HTTP/1.0 503 ", b"nothing"}
        # Those that have sent no byte may not have been taken in yet.
        assert ends[b"nothing"] <= 256 + 1000 // 25
    wait_for(
        "their threads to end", lambda: "http" not in {t.name for t in threading.enumerate()}
    )


def test_clients_for_whom_there_is_no_file_take_turns(tmp_path: Path) -> None:
    with (
        # systemd's default; it is raised where that is permitted.
        limit_of_files(1024),
        serving(tmp_path / "log", "--verbose", "--collectors", "npu") as exporter,
        contextlib.ExitStack() as held,
    ):
        assert resource.prlimit(exporter.process.pid, resource.RLIMIT_NOFILE)[0] > 1024
        resource.prlimit(exporter.process.pid, resource.RLIMIT_NOFILE, (30, 30))
        for _ in range(40):
            silent = socket.create_connection(("127.0.0.1", exporter.port), timeout=30)
            held.enter_context(silent).sendall(b"G")
        assert exporter.get("/healthz")[0] == 200
        assert (
            exporter.log.read_text().count("connections wait reason=Too many open files") == 1
        )
        # It had to be made for them: they did not go by themselves, when their time was over.
        assert "error=the request was cut short" in exporter.log.read_text()


def test_the_client_that_is_dropped_is_the_oldest_that_has_had_its_time() -> None:
    patient, hasty = Connections(4, patience_s=3600), Connections(4, patience_s=0)
    hasty.drop_oldest()
    with contextlib.ExitStack() as held:
        pairs = [pair() for _ in range(2)]
        for one, other in pairs:
            held.enter_context(one)
            held.enter_context(other).setblocking(False)
            assert patient.admit(one)
            assert hasty.admit(one)
        patient.drop_oldest()
        assert what_came(pairs[0][1]) == b"nothing"
        hasty.drop_oldest()
        assert [what_came(other) for _, other in pairs] == [b"dropped", b"nothing"]


def test_pages_that_are_collected_are_bounded_and_healthz_is_not(
    site: ToySite, caplog: pytest.LogCaptureFixture
) -> None:
    site.source.gate.clear()
    with contextlib.ExitStack() as held:
        scrapes = [held.enter_context(site.connect()) for _ in range(2)]
        for connection in scrapes:
            connection.sendall(SCRAPE)
        refused = b"HTTP/1.0 503 "
        wait_for("both places to be taken", lambda: site.ask(HASTY).startswith(refused))
        assert b"Retry-After: 5\r\n" in site.ask(HASTY)
        # A crowd does not fill the log too.
        assert caplog.text.count("request refused reason=2 requests are being answered") == 1
        assert site.ask(HEALTH).startswith(b"HTTP/1.0 200 ")
        site.source.gate.set()
        assert all(is_page(read_all(connection)) for connection in scrapes)
    assert is_page(site.ask())


def test_a_client_that_does_not_read_holds_up_no_other(site: ToySite) -> None:
    # More than the buffers on both sides take.
    site.source.samples = tuple(
        VALUE.sample(number, f"{number:05d}" + "x" * 2000) for number in range(9000)
    )
    with contextlib.ExitStack() as held:
        for _ in range(5):
            deaf = held.enter_context(socket.socket())
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.connect(("127.0.0.1", site.server.port))
            deaf.sendall(SCRAPE)
        wait_for("a page in spite of them", lambda: is_page(site.ask()))


def test_a_request_of_any_size_is_not_read(site: ToySite) -> None:
    with site.connect() as connection, contextlib.suppress(OSError):
        connection.sendall(
            b"GET /metrics HTTP/1.1\r\n" + (b"X: " + b"y" * 60_000 + b"\r\n") * 99
        )
        assert read_all(connection) == b""
    assert site.source.reads == 0


@pytest.mark.parametrize(
    ("path", "status"),
    [(b"/metrics", b"200"), (b"/healthz", b"200"), (b"/", b"200"), (b"/none", b"404")],
)
def test_head_is_get_without_the_body(site: ToySite, path: bytes, status: bytes) -> None:
    whole = site.ask(b"GET " + path + b" HTTP/1.0\r\n\r\n")
    head = site.ask(b"HEAD " + path + b" HTTP/1.0\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 " + status + b" ")
    assert head.endswith(b"\r\n\r\n")
    names = [line.partition(b":")[0] for line in whole.partition(b"\r\n\r\n")[0].splitlines()]
    assert [line.partition(b":")[0] for line in head.splitlines()[:-1]] == names


@pytest.mark.parametrize(
    "path",
    [
        "/metrics/../metrics",
        "/METRICS",
        "/metrics%2f",
        "http://x/metrics2",
        "http://[/metrics",
        "*",
        "/" + "a" * 60_000,
    ],
)
def test_a_path_that_is_not_served_is_an_error_of_the_client(site: ToySite, path: str) -> None:
    answer = site.ask(f"GET {path} HTTP/1.0\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.0 4")
    assert site.source.reads == 0


def pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair()


def test_the_client_that_was_waited_for_longest_makes_room() -> None:
    connections = Connections(max_waiting=2, patience_s=0)
    pairs = [pair() for _ in range(4)]
    ours, theirs = [one for one, _ in pairs], [other for _, other in pairs]
    try:
        assert all(connections.admit(one) for one in ours[:2])
        with connections.working(ours[0]):
            # One that is being answered is nobody that we wait for.
            assert connections.admit(ours[2])
            assert connections.admit(ours[3])
        theirs[1].settimeout(30)
        assert theirs[1].recv(1) == b""
        for other in (theirs[0], theirs[2], theirs[3]):
            other.setblocking(False)
            with pytest.raises(BlockingIOError):
                other.recv(1)
    finally:
        for one in (*ours, *theirs):
            one.close()


def test_a_client_has_some_time_whoever_comes() -> None:
    connections = Connections(max_waiting=1, patience_s=3600)
    with contextlib.ExitStack() as held:
        first, second = (held.enter_context(one) for one in pair())
        assert connections.admit(first)
        assert not connections.admit(second)
        connections.leave(first)
        assert connections.admit(second)


def test_one_that_is_dropped_counts_until_its_thread_has_ended() -> None:
    connections = Connections(max_waiting=1, patience_s=0)
    with contextlib.ExitStack() as held:
        one, two = (held.enter_context(end) for end in pair())
        three, four = (held.enter_context(end) for end in pair())
        assert connections.admit(one)
        assert connections.admit(two)
        assert not connections.admit(three)
        connections.leave(one)
        assert connections.admit(four)


def test_one_that_is_dropped_while_it_shakes_hands_stays_so() -> None:
    connections = Connections(max_waiting=1, patience_s=0)
    with contextlib.ExitStack() as held:
        in_clear, encrypted = pair(), pair()
        for end in (*in_clear, *encrypted):
            held.enter_context(end).setblocking(False)
        assert connections.admit(in_clear[0])
        connections.replace(in_clear[0], encrypted[0])
        assert what_came(encrypted[1]) == b"nothing"
        # Of one that goes on, the new object is the one that is dropped.
        connections.drop_oldest()
        assert what_came(encrypted[1]) == b"dropped"
        other = pair()
        for end in other:
            held.enter_context(end).setblocking(False)
        connections.replace(encrypted[0], other[0])
        assert what_came(other[1]) == b"dropped"


def test_the_end_waits_for_answers_and_not_for_clients() -> None:
    connections = Connections(max_waiting=2, patience_s=0)
    with contextlib.ExitStack() as held:
        silent, asking = (held.enter_context(end) for end in pair())
        assert connections.admit(silent)
        assert connections.admit(asking)
        assert connections.wait_until_answered(0)
        with connections.working(asking):
            assert not connections.wait_until_answered(0.01)
        # Until the client has taken it.
        assert not connections.wait_until_answered(0.01)
        connections.leave(asking)
        assert connections.wait_until_answered(0)
