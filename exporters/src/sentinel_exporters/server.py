"""Serve the collectors over HTTP with a bounded number of threads. Collects nothing itself.

Everything here may be asked by anybody who reaches the port, as is usual for exporters, unless
the web configuration says otherwise.
"""

from __future__ import annotations

import gzip
import io
import logging
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from . import __version__
from .config import split_address
from .core import Metric, Sample
from .deadline import DeadlineReader, DeadlineWriter
from .errors import BadTarget, ConfigError
from .exposition import accepts_gzip, choose_form
from .landing import write_page
from .prober import Prober, TooManyProbes
from .runner import Runner
from .web.access import Access
from .web.tls import NotTls

log = logging.getLogger(__name__)

BUILD_INFO = Metric(
    "sentinel_exporter_build_info", "gauge", "Always 1; the exporter's version.", ("version",)
)
METRICS = (BUILD_INFO,)

# A client that has not sent its request by then is dropped; so is one that does not read.
_CLIENT_TIMEOUT_S = 10.0
# How long before the scraper gives up the answer is sent, complete or not.
_SCRAPE_MARGIN_S = 0.5
_SHUTDOWN_TIMEOUT_S = 5.0
_PLAIN = "text/plain; charset=utf-8"


@dataclass(frozen=True)
class Answer:
    """One HTTP answer."""

    status: int
    body: bytes
    content_type: str = _PLAIN
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def text(cls, status: int, text: str) -> Answer:
        """Plain text, with a line's end."""
        return cls(status, f"{text}\n".encode())


class _Handler(BaseHTTPRequestHandler):
    """GET and HEAD; one request for each connection (HTTP/1.0)."""

    server_version = f"sentinel-exporter/{__version__}"
    sys_version = ""
    server: Server

    def setup(self) -> None:
        super().setup()
        deadline = time.monotonic() + _CLIENT_TIMEOUT_S
        self.rfile = io.BufferedReader(DeadlineReader(self.connection, deadline))
        self.wfile = io.BufferedWriter(DeadlineWriter(self.connection, _CLIENT_TIMEOUT_S))

    def do_GET(self) -> None:
        try:
            answer = self._judge_and_route()
        except Exception:  # the boundary of a request: a bug must not leave it unanswered
            log.exception("request failed path=%s", self.path)
            answer = Answer.text(500, "internal error; see the log")
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    do_HEAD = do_GET  # noqa: N815  the base class finds it by this name

    def _judge_and_route(self) -> Answer:
        if self.server.access is None:
            return self._route()
        verdict = self.server.access.judge(self.headers.get("Authorization", ""))
        if verdict.status != HTTPStatus.OK:
            answer = Answer.text(verdict.status, HTTPStatus(verdict.status).phrase)
        else:
            answer = self._route()
        return replace(answer, headers={**answer.headers, **verdict.headers})

    def _route(self) -> Answer:
        url = urlsplit(self.path)
        path = url.path.rstrip("/") or "/"
        query = parse_qs(url.query, keep_blank_values=True)
        if path == "/":
            return self._landing_page()
        if path == "/healthz":
            return Answer.text(200, "ok")
        if path == "/metrics":
            return self._metrics()
        if path.removeprefix("/") in self.server.prober.names:
            return self._probe(path.removeprefix("/"), query)
        return Answer.text(404, "not found")

    def _landing_page(self) -> Answer:
        results, probes = self.server.runner.last_results(), self.server.prober.names
        body = write_page(__version__, socket.gethostname(), results, probes)
        return Answer(200, body, "text/html; charset=utf-8")

    def _metrics(self) -> Answer:
        samples = [BUILD_INFO.sample(1, __version__)]
        for outcome in self.server.runner.collect(self._limit_s()):
            samples += [*outcome.own_samples(), *outcome.samples]
        return self._page(samples)

    def _probe(self, name: str, query: dict[str, list[str]]) -> Answer:
        targets, modules = query.get("target", []), query.get("module", ["default"])
        if len(targets) != 1 or not targets[0]:
            return Answer.text(400, "exactly one target is required")
        if len(modules) != 1:
            return Answer.text(400, "at most one module can be named")
        try:
            outcome = self.server.prober.probe(name, targets[0], modules[0], self._limit_s())
        except BadTarget as error:
            return Answer.text(400, str(error))
        except TooManyProbes as error:
            return Answer.text(503, str(error))
        return self._page([*outcome.own_samples(), *outcome.samples])

    def _limit_s(self) -> float:
        # Prometheus says how long it waits; an answer that lacks a slow collector is worth
        # more than none.
        try:
            limit_s = float(self.headers["X-Prometheus-Scrape-Timeout-Seconds"])
        except (TypeError, ValueError):
            return float("inf")
        return max(limit_s - _SCRAPE_MARGIN_S, limit_s / 2) if limit_s > 0 else float("inf")

    def _page(self, samples: list[Sample]) -> Answer:
        write, content_type = choose_form(self.headers.get("Accept", ""))
        body = write(samples)
        headers = {"Vary": "Accept, Accept-Encoding"}
        if accepts_gzip(self.headers.get("Accept-Encoding", "")):
            body = gzip.compress(body, compresslevel=1)
            headers["Content-Encoding"] = "gzip"
        return Answer(200, body, content_type, headers)

    def log_message(self, format: str, *arguments: object) -> None:
        # Each scrape is a request; errors of the protocol come by here too.
        log.debug("http client=%s " + format, self.client_address[0], *arguments)


class Server(TCPServer):
    """The listening server; each request has a thread, and there are at most `max_requests`."""

    # Not http.server's HTTPServer: that asks the DNS for its own name, and waits for it.
    allow_reuse_address = True
    # Prometheus asks for all BMCs of a job at about the same time; who finds the queue full
    # tries again only after a second.
    request_queue_size = 1024

    def __init__(
        self,
        listen: str,
        runner: Runner,
        prober: Prober,
        max_requests: int,
        access: Access | None = None,
    ) -> None:
        """`access` None: plain HTTP for all. Raises OSError when it cannot listen there."""
        host, port = split_address(listen)
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.runner = runner
        self.prober = prober
        self.access = access
        self._max_requests = max_requests
        self._free = threading.BoundedSemaphore(max_requests)
        super().__init__((host, port), _Handler)

    @property
    def port(self) -> int:
        """The port that is listened on; of use when 0 was asked for."""
        return int(self.server_address[1])

    @property
    def scheme(self) -> str:
        """http or https."""
        return "https" if self.access is not None and self.access.is_encrypted else "http"

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread of its own. Any: the base class allows other kinds of sockets."""
        if not self._free.acquire(blocking=False):
            self._refuse(request)
            return
        threading.Thread(
            target=self._serve, args=(request, client_address), name="http", daemon=True
        ).start()

    def _serve(self, request: Any, client_address: Any) -> None:
        try:
            if self.access is not None and self.scheme == "https":
                # Here and not where it was accepted: a client can take long over it.
                request = self.access.encrypt(request, time.monotonic() + _CLIENT_TIMEOUT_S)
            self.finish_request(request, client_address)
        except NotTls:
            self._answer_at_once(request, b"400 Bad Request", b"this port speaks https\n")
        except (OSError, ConfigError) as error:
            # The client went away, was too slow or has the wrong certificate; or ours is
            # broken, which the log has by now.
            log.debug("http client=%s error=%s", client_address[0], error)
        finally:
            self.shutdown_request(request)
            self._free.release()

    def _refuse(self, request: socket.socket) -> None:
        log.warning("request refused reason=busy max_requests=%d", self._max_requests)
        if self.scheme == "http":
            self._answer_at_once(
                request, b"503 Service Unavailable\r\nRetry-After: 5", b"busy\n"
            )
        self.shutdown_request(request)

    def _answer_at_once(self, request: socket.socket, head: bytes, body: bytes) -> None:
        try:
            # Not blocking: this may be the accepting thread. It fits any socket's buffer.
            request.setblocking(False)
            request.sendall(b"HTTP/1.0 " + head + b"\r\n\r\n" + body)
        except OSError as error:
            log.debug("refusal not sent error=%s", error)

    def serve_until(self, wait: Callable[[], object]) -> None:
        """Serve until `wait` returns, then finish the requests that are being answered."""
        thread = threading.Thread(target=self.serve_forever, name="accept", daemon=True)
        thread.start()
        wait()
        self.shutdown()
        self.server_close()
        deadline = time.monotonic() + _SHUTDOWN_TIMEOUT_S
        for _ in range(self._max_requests):
            if not self._free.acquire(timeout=max(0.0, deadline - time.monotonic())):
                log.warning("requests left unfinished timeout_s=%.0f", _SHUTDOWN_TIMEOUT_S)
                break
