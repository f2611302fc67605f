"""A booking server as the agent sees it: the contract of docs/architecture.md and no more.

It stands in for a remote host; tests/contract/ holds the agent against the real one.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self
from urllib.parse import parse_qs, urlsplit

import jsonschema

from tests.lab.node import REPOSITORY

SCHEMA = json.loads(
    (REPOSITORY / "booking/src/sentinel_booking/contract/policy.schema.json").read_text()
)
CODE = "an-invite-code"
TOKEN = "a-token-that-nobody-guesses"


def at(seconds: float) -> str:
    """Return the time so many seconds from now, in the contract's form."""
    when = datetime.now(UTC) + timedelta(seconds=seconds)
    return when.isoformat(timespec="microseconds").replace("+00:00", "Z")


def make_grant(
    user: str, *keys: Path | str, start_s: float = -60, end_s: float = 3600, **more: object
) -> dict[str, object]:
    """Return a grant of device 0 that began a minute ago and lasts an hour, unless told.

    Keys are private keys' paths, or the two fields of a public key.
    """
    return {
        "reservation": 1,
        "user": user,
        "keys": [public_key(key) if isinstance(key, Path) else key for key in keys],
        "not_before": at(start_s),
        "not_after": at(end_s),
        "whole_node": False,
        "devices": [{"vendor": "ascend", "uuid": "npu-0000:C1:00.0", "index": 0, "minor": 0}],
        "env": {"ASCEND_RT_VISIBLE_DEVICES": "0", "ASCEND_VISIBLE_DEVICES": "0"},
    } | more


def make_policy(*grants: dict[str, object], **more: object) -> dict[str, object]:
    """Return a policy of node `gpu-01` in mode `enforce`, unless told."""
    return {
        "version": 1,
        "node": "gpu-01",
        "generated_at": at(0),
        "expires_at": at(7 * 24 * 3600),
        "mode": "enforce",
        "grants": list(grants),
    } | more


def public_key(private: Path) -> str:
    """Return type and blob of the public key beside the private one."""
    return " ".join(private.with_suffix(".pub").read_text().split()[:2])


class BookingServer:
    """Listens on `address`; stops and starts again on the same port."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        self.address = address
        self.port = 0
        self.policy = make_policy()
        self.heartbeats: list[dict[str, object]] = []
        self.inventories: list[dict[str, object]] = []
        self.requests: list[str] = []
        # Path to status and headers: answered in place of what the contract says.
        self.failures: dict[str, tuple[int, dict[str, str]]] = {}
        self.clock_offset_s = 0.0
        self._changed = threading.Condition()
        self._serial = 1
        self._server: _Server | None = None

    @property
    def url(self) -> str:
        """The server's address, for the agent's configuration."""
        return f"http://{self.address}:{self.port}"

    def start(self) -> None:
        """Listen; requests are served by threads."""
        self._server = _Server((self.address, self.port), self)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Stop listening and let those go who wait."""
        if self._server is None:
            return
        server, self._server = self._server, None
        with self._changed:
            self._changed.notify_all()
        server.shutdown()
        server.server_close()
        server.drop_connections()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def grant(self, *grants: dict[str, object], **more: object) -> None:
        """Publish the next version of the policy with these grants."""
        version = int(str(self.policy["version"])) + 1
        policy = make_policy(*grants, version=version) | more
        jsonschema.validate(policy, SCHEMA, cls=jsonschema.Draft202012Validator)
        self.publish(policy)

    def publish(self, policy: dict[str, object]) -> None:
        """Publish any policy, also one that breaks the contract."""
        with self._changed:
            self.policy = policy
            self._serial += 1
            self._changed.notify_all()

    def answer(  # noqa: PLR0911  one for each row of the contract's table
        self, method: str, path: str, headers: dict[str, str], body: dict[str, object] | None
    ) -> tuple[int, dict[str, str], object]:
        """Return status, headers and document."""
        parts = urlsplit(path)
        name = parts.path.removeprefix("/api/agent/")
        self.requests.append(f"{method} {path}")
        if name in self.failures:
            status, more = self.failures[name]
            return status, more, {"title": "told to fail", "detail": "told to fail"}
        if name == "register":
            assert body is not None
            if body["code"] != CODE:
                return 403, {}, {"title": "Forbidden", "detail": "this code is not valid"}
            return 201, {}, {"node": "gpu-01", "token": TOKEN}
        if headers.get("Authorization") != f"Bearer {TOKEN}":
            return 401, {}, {"title": "Unauthorized", "detail": "the token is not valid"}
        match method, name:
            case "PUT", "inventory":
                assert body is not None
                self.inventories.append(body)
                return 200, {}, {"devices": []}
            case "POST", "heartbeat":
                assert body is not None
                self.heartbeats.append(body)
                return 200, {}, {"server_time": at(self.clock_offset_s)}
            case "GET", "policy":
                wait_s = float(parse_qs(parts.query).get("wait", ["0"])[0])
                return self._answer_policy(headers.get("If-None-Match", ""), wait_s)
        return 404, {}, {"title": "Not Found"}

    def _answer_policy(self, known: str, wait_s: float) -> tuple[int, dict[str, str], object]:
        deadline = time.monotonic() + wait_s
        with self._changed:
            while known == f'"{self._serial}"':
                left_s = deadline - time.monotonic()
                if left_s <= 0 or self._server is None:
                    return 304, {"ETag": known}, None
                self._changed.wait(left_s)
            return 200, {"ETag": f'"{self._serial}"'}, self.policy


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], booking: BookingServer) -> None:
        self.booking = booking
        self._connections: set[socket.socket] = set()
        super().__init__(address, _Handler)

    def get_request(self) -> tuple[socket.socket, object]:
        connection, peer = super().get_request()
        self._connections.add(connection)
        return connection, peer

    def shutdown_request(self, request: socket.socket | tuple[bytes, socket.socket]) -> None:
        if isinstance(request, socket.socket):
            self._connections.discard(request)
        super().shutdown_request(request)

    def drop_connections(self) -> None:
        """End the connections that are kept alive: a server that is down has none."""
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, *_: object) -> None:
        """Say nothing of a client that went away."""
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, ConnectionError):
            raise error


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        status, headers, document = self.server.booking.answer(
            self.command, self.path, dict(self.headers.items()), body
        )
        content = b"" if document is None else json.dumps(document).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def date_time_string(self, timestamp: float | None = None) -> str:
        """Return the header Date, by the clock that heartbeats are answered by."""
        now = time.time() if timestamp is None else timestamp
        return super().date_time_string(now + self.server.booking.clock_offset_s)

    do_GET = do_PUT = do_POST = _serve  # noqa: N815  named by the base class

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: what was asked is in `BookingServer.requests`."""
