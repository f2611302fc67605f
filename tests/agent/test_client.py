"""The agent's HTTP: what it sends, what it believes, and which failures are for good."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
from collections.abc import Iterator

import pytest

from sentinel_agent.errors import ServerError
from sentinel_agent.server import client as client_module
from sentinel_agent.server.client import BookingClient
from tests.agent.booking_server import CODE, TOKEN, BookingServer
from tests.lab.wait import wait_for


@pytest.fixture
def server() -> Iterator[BookingServer]:
    with BookingServer() as server:
        yield server


@pytest.fixture
def client(server: BookingServer) -> Iterator[BookingClient]:
    client = BookingClient(server.url, None, TOKEN)
    yield client
    client.close()


def test_a_code_is_answered_with_name_and_token(server: BookingServer) -> None:
    stranger = BookingClient(server.url, None)
    assert stranger.register(CODE, "host", "10.0.0.1") == ("gpu-01", TOKEN)
    with pytest.raises(ServerError, match="status 403: this code is not valid") as failure:
        stranger.register("spent", "host", "10.0.0.1")
    assert failure.value.is_permanent


def test_a_policy_is_given_once_and_again_when_it_changed(
    server: BookingServer, client: BookingClient
) -> None:
    first = client.get_policy("", 0)
    assert first.document == server.policy
    assert not client.get_policy(first.etag, 0).is_new
    changer = threading.Timer(0.2, server.grant)
    changer.start()
    second = client.get_policy(first.etag, 30)
    assert second.document == server.policy
    assert second.etag != first.etag
    changer.join()


@pytest.mark.parametrize(
    ("status", "is_permanent"),
    [(400, True), (401, True), (403, True), (404, True), (422, True), (408, False),
     (429, False), (500, False), (502, False), (503, False), (302, True)],
)  # fmt: skip
def test_a_failure_says_whether_it_is_for_good(
    server: BookingServer, client: BookingClient, status: int, is_permanent: bool
) -> None:
    server.failures["heartbeat"] = (status, {"Location": f"{server.url}/api/agent/policy"})
    before = len(server.requests)
    with pytest.raises(ServerError) as failure:
        client.heartbeat({})
    assert failure.value.is_permanent == is_permanent
    # A redirection is not followed: the token is for this server only.
    assert len(server.requests) == before + 1


def test_the_server_may_say_how_long_to_stay_away(
    server: BookingServer, client: BookingClient
) -> None:
    server.failures["heartbeat"] = (503, {"Retry-After": "17"})
    with pytest.raises(ServerError) as failure:
        client.heartbeat({})
    assert failure.value.retry_after_s == 17
    server.failures["heartbeat"] = (503, {"Retry-After": "9999999"})
    with pytest.raises(ServerError) as failure:
        client.heartbeat({})
    assert failure.value.retry_after_s == 300
    server.failures["policy"] = (304, {"Retry-After": "5"})
    assert client.get_policy('"1"', 0).retry_after_s == 5


def test_no_failure_shows_the_token(server: BookingServer, client: BookingClient) -> None:
    server.stop()
    with pytest.raises(ServerError, match="no answer: ConnectionRefusedError") as failure:
        client.heartbeat({})
    assert not failure.value.is_permanent
    assert TOKEN not in str(failure.value)


def test_no_proxy_of_the_environment_gets_the_token(
    server: BookingServer, client: BookingClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    client.put_inventory([], {"node": 9100})
    assert server.inventories == [{"devices": [], "targets": [{"job": "node", "port": 9100}]}]


def answer_raw(content: bytes) -> Iterator[str]:
    """Answer one connection with these bytes; yield the URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.sendall(content)
                connection.shutdown(socket.SHUT_WR)
                # Closing on a request that was not read would reset the connection.
                while connection.recv(65536):
                    pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join(10)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"not json", "the answer is not JSON"),
        (b"[" * 100_000, "the answer is not JSON"),
        (b"[]", "the answer has no server_time"),
        (b'{"server_time": 5}', "the answer has no server_time"),
        (b'{"server_time": "now"}', "server_time is not a time"),
        (b" " * (client_module.ANSWER_BYTES_MAX + 1), "more than 16777216 bytes"),
    ],
)
def test_an_odd_answer_is_an_error(body: bytes, why: str) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
    for url in answer_raw(head + body):
        with pytest.raises(ServerError, match=why):
            BookingClient(url, None, TOKEN).heartbeat({})


def test_an_answer_that_breaks_off_is_an_error() -> None:
    for url in answer_raw(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"):
        with pytest.raises(ServerError) as failure:
            BookingClient(url, None, TOKEN).get_policy("", 0)
        assert not failure.value.is_permanent


def test_a_request_that_waits_looks_whether_the_network_is_still_there(
    server: BookingServer, client: BookingClient
) -> None:
    etag = client.get_policy("", 0).etag
    waiting = threading.Thread(target=client.get_policy, args=(etag, 30))
    waiting.start()
    try:
        # ss(8): the timer that runs for the socket.
        command = ["ss", "-Htno", "dst", f"127.0.0.1:{server.port}"]
        wait_for(
            "a keepalive timer runs",
            lambda: "timer:(keepalive" in subprocess.check_output(command, text=True),
        )
    finally:
        server.grant()
        waiting.join()
