"""All HTTP between the agent and the booking server. It interprets no policy."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection

from .. import __version__
from ..errors import ServerError
from ..policy.model import parse_time

CONNECT_TIMEOUT_S = 5.0
# From the last byte sent to the first received, on top of what the server may wait.
READ_TIMEOUT_S = 15.0
# A whole answer, so that one that drips cannot hold a thread for ever.
ANSWER_TIMEOUT_S = 60.0
ANSWER_BYTES_MAX = 16 * 1024 * 1024
RETRY_STATUSES = (408, 425, 429)
# A connection that waits for the server notices in 11 s that the network is gone (tcp(7)). When
# it comes back, the server may not try again to send what was lost for as long as it was away.
KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 11_000),
)
# What to do about a token that the server does not take.
REGISTER = (
    " (make an invite code on the node's page, spend it with `sentinel-agent register`, and"
    " restart sentinel-agent)"
)


@dataclass(frozen=True)
class Answer:
    """What the server said. `is_new` is false for 304: the document is the one known before.

    `retry_after_s`: how long the server asked us to stay away, 0 when it did not say.
    """

    document: object
    etag: str
    is_new: bool
    retry_after_s: float


@dataclass(frozen=True)
class _Request:
    method: str
    path: str
    body: Mapping[str, object] | None
    headers: Mapping[str, str]
    wait_s: float


class Tokens(Protocol):
    """The token to speak with, which may be exchanged for another one while a client runs."""

    def current(self) -> str:
        """Return the token to use now."""

    def alternative(self, refused: str) -> str | None:
        """Return what else to try when this one was refused; None: there is nothing."""

    def prefer(self, token: str) -> None:
        """Use this one from now on: the server took it and refused the other."""


class OneToken:
    """A token that is never exchanged; empty: there is none yet."""

    def __init__(self, token: str) -> None:
        self._token = token

    def current(self) -> str:
        """Return the token."""
        return self._token

    def alternative(self, refused: str) -> None:
        """There is no other."""

    def prefer(self, token: str) -> None:
        """There is nothing to choose from."""


class BookingClient:
    """One connection to the booking server; for one thread.

    `ca_file`: certificates that sign the server's; None: those of `certifi`. `client_cert`: the
    files of our certificate and of its key, for a proxy that demands one.
    """

    def __init__(
        self,
        server: str,
        ca_file: Path | None,
        token: str | Tokens = "",
        client_cert: tuple[Path, Path] | None = None,
    ) -> None:
        self._server = server
        self._tokens = OneToken(token) if isinstance(token, str) else token
        self._session = requests.Session()
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, _KeepAlive())
        # A proxy or a .netrc of root's must not get the token.
        self._session.trust_env = False
        self._session.verify = str(ca_file) if ca_file else True
        if client_cert is not None:
            certificate, key = client_cert
            self._session.cert = (str(certificate), str(key))
        self._session.headers["User-Agent"] = f"sentinel-agent/{__version__}"
        self._session.headers["Accept-Encoding"] = "identity"

    def register(self, code: str, hostname: str, address: str) -> tuple[str, str]:
        """Spend the invite code; return the node's name and token. Raises ServerError."""
        body = {"code": code, "hostname": hostname, "address": address,
                "agent_version": __version__}  # fmt: skip
        answer = self._ask("POST", "register", body).document
        return _text(answer, "node"), _text(answer, "token")

    def put_inventory(
        self, devices: Sequence[Mapping[str, object]], targets: Mapping[str, int]
    ) -> None:
        """Tell which devices and targets the node has: all of them. Raises ServerError."""
        listed = [{"job": job, "port": port} for job, port in sorted(targets.items())]
        self._ask("PUT", "inventory", {"devices": list(devices), "targets": listed})

    def heartbeat(self, body: Mapping[str, object]) -> datetime:
        """Report; return the server's time. Raises ServerError."""
        answer = self._ask("POST", "heartbeat", body).document
        try:
            return parse_time(_text(answer, "server_time"))
        except ValueError:
            raise ServerError("server_time is not a time", is_permanent=True) from None

    def issue_token(self) -> str:
        """Return a new token; its first use ends the one used here. Raises ServerError."""
        return _text(self._ask("POST", "token", None).document, "token")

    def get_policy(self, etag: str, wait_s: int) -> Answer:
        """Return the policy, not decoded, once it differs from `etag`'s.

        `is_new` is false when it did not within `wait_s`, or when too many wait already. Raises
        ServerError.
        """
        headers = {"If-None-Match": etag} if etag else {}
        path = f"policy?wait={wait_s}"
        return self._ask("GET", path, None, headers, wait_s=wait_s)

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    def _ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None,
        headers: Mapping[str, str] | None = None,
        wait_s: float = 0,
    ) -> Answer:
        asked = _Request(method, path, body, headers or {}, wait_s)
        token = self._tokens.current()
        try:
            return self._send(asked, token)
        except ServerError as error:
            if not error.is_refused_token:
                raise
            # It may have been exchanged while this request was waiting.
            other = self._tokens.alternative(token)
            if other is None:
                raise
        answer = self._send(asked, other)
        self._tokens.prefer(other)
        return answer

    def _send(self, asked: _Request, token: str) -> Answer:
        timeouts = (CONNECT_TIMEOUT_S, READ_TIMEOUT_S + asked.wait_s)
        headers = dict(asked.headers)
        if token:
            headers["Authorization"] = f"Bearer {token}"
        try:
            # A redirection could lead to another server, which must not get the token.
            with self._session.request(
                asked.method, f"{self._server}/api/agent/{asked.path}", json=asked.body,
                headers=headers, timeout=timeouts, allow_redirects=False, stream=True,
            ) as response:  # fmt: skip
                content = _read(response)
        except (requests.RequestException, OSError) as error:
            # The text of requests' errors holds the URL; it never holds the token or the code.
            raise ServerError(f"no answer: {_cause(error)}", is_permanent=False) from error
        status = response.status_code
        if status == 304:
            return Answer(None, "", is_new=False, retry_after_s=_retry_after_s(response))
        if status not in (200, 201, 204):
            is_refused_token = status == 401 and bool(token)
            raise ServerError(
                f"status {status}: {_detail(content)}{REGISTER if is_refused_token else ''}",
                is_permanent=status < 500 and status not in RETRY_STATUSES,
                retry_after_s=_retry_after_s(response),
                is_refused_token=is_refused_token,
            )
        try:
            document = json.loads(content) if content else None
        except (ValueError, RecursionError):
            raise ServerError("the answer is not JSON", is_permanent=False) from None
        return Answer(
            document, response.headers.get("ETag", ""), True, _retry_after_s(response)
        )


class _KeepAlive(HTTPAdapter):
    def init_poolmanager(
        self,
        connections: int,
        maxsize: int,
        block: bool = False,
        # Any: whatever else urllib3's PoolManager takes.
        **more: Any,
    ) -> None:
        """Have each connection look by itself whether the server is still there."""
        options = [*HTTPConnection.default_socket_options, *KEEPALIVE]
        super().init_poolmanager(connections, maxsize, block, socket_options=options, **more)


def _read(response: requests.Response) -> bytes:
    packed = response.headers.get("Content-Encoding", "identity")
    if packed.lower() != "identity":
        # It was not asked for, and a few bytes of it can be gigabytes.
        raise requests.RequestException(f"the answer is packed: {packed!a:.40}")
    deadline = time.monotonic() + ANSWER_TIMEOUT_S
    content = bytearray()
    for chunk in response.iter_content(65536):
        content += chunk
        if len(content) > ANSWER_BYTES_MAX:
            raise requests.RequestException(f"more than {ANSWER_BYTES_MAX} bytes")
        if time.monotonic() > deadline:
            raise requests.RequestException(f"not complete after {ANSWER_TIMEOUT_S:g} s")
    return bytes(content)


def _detail(content: bytes) -> str:
    """Return what a problem document (RFC 9457) says, in one line."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return "no problem document"
    if not isinstance(document, dict):
        return "no problem document"
    parts = [str(document.get("detail") or document.get("title") or "no detail")]
    errors = document.get("errors")
    for item in errors if isinstance(errors, list) else []:
        if isinstance(item, dict):
            parts.append(f"{item.get('field')}: {item.get('reason')}")
    return ascii("; ".join(parts))[1:-1][:300]


def _cause(error: BaseException) -> str:
    """Return the innermost reason: requests wraps `connection refused` three times over."""
    while True:
        inner = error.__cause__ or error.__context__ or getattr(error, "reason", None)
        if not isinstance(inner, BaseException):
            return f"{type(error).__name__}: {error}"[:300]
        error = inner


def _retry_after_s(response: requests.Response) -> float:
    text = response.headers.get("Retry-After", "")
    return min(float(text), 300.0) if text.isdecimal() else 0


def _text(document: object, name: str) -> str:
    value = document.get(name) if isinstance(document, dict) else None
    if not isinstance(value, str) or not value:
        raise ServerError(f"the answer has no {name}", is_permanent=True)
    return value
