"""Serve the pages over HTTP, with a thread for each connection. Decides not what they say.

Everything here may be asked by anybody who reaches the port, as is usual for exporters, unless
the web configuration says otherwise.
"""

from __future__ import annotations

import errno
import io
import logging
import math
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer
from typing import Any

from .answer import SERVER, Answer
from .config import split_address
from .connections import Connections
from .deadline import CLIENT_TIMEOUT_S, DeadlineReader, DeadlineWriter
from .errors import ConfigError
from .pages import Pages
from .quick import begin_answer
from .web.access import Access
from .web.tls import NotTls

log = logging.getLogger(__name__)

# Above what the base class refuses with an answer: a line of 64 KiB.
_MAX_REQUEST_BYTES = 128 * 1024
# With more clients than that to wait for, the first is dropped sooner: but after this time.
_MAX_WAITING = 256
_PATIENCE_S = 1.0
_SHUTDOWN_TIMEOUT_S = 5.0
_TELL_AGAIN_S = 60.0
# What accept(2) says when there is no room for one more: files of the process, of the system,
# memory; and how long to wait for some.
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_NO_ROOM_PAUSE_S = 0.05


class _Handler(BaseHTTPRequestHandler):
    """GET and HEAD; one request for each connection (HTTP/1.0)."""

    server_version = SERVER
    sys_version = ""
    server: Server

    def setup(self) -> None:
        self.connection = self.request
        deadline = time.monotonic() + CLIENT_TIMEOUT_S
        reader = DeadlineReader(self.connection, deadline, _MAX_REQUEST_BYTES)
        self.rfile = io.BufferedReader(reader)
        self.wfile = io.BufferedWriter(DeadlineWriter(self.connection, CLIENT_TIMEOUT_S))

    def do_GET(self) -> None:
        with self.server.connections.working(self.connection):
            try:
                answer = self._answer()
            except Exception:  # the boundary of a request: a bug must not leave it unanswered
                log.exception("request failed path=%r", self.path)
                answer = Answer.text(500, "internal error; see the log")
        if answer.status == HTTPStatus.SERVICE_UNAVAILABLE:
            reason = answer.body.decode().strip()
            self.server.tell_of_crowd(
                "request refused reason=%s client=%s", reason, self.client_address[0]
            )
        self.log_request(answer.status)
        self.wfile.write(answer.head())
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    do_HEAD = do_GET  # noqa: N815  the base class finds it by this name

    def _answer(self) -> Answer:
        if self.server.access is None:
            return self.server.pages.answer(self.path, self.headers)
        verdict = self.server.access.judge(self.headers.get("Authorization", ""))
        if verdict.status == HTTPStatus.OK:
            answer = self.server.pages.answer(self.path, self.headers)
        else:
            answer = Answer.text(verdict.status, HTTPStatus(verdict.status).phrase)
        return replace(answer, headers={**answer.headers, **verdict.headers})

    def log_message(self, format: str, *arguments: object) -> None:
        # Each scrape is a request; errors of the protocol come by here too. In ASCII, since the
        # request is the client's to write and the log's lines are ours.
        log.debug("http client=%s %a", self.client_address[0], format % arguments)


class Server(TCPServer):
    """The listening server."""

    # Not http.server's HTTPServer: that asks the DNS for its own name, and waits for it.
    allow_reuse_address = True
    # Prometheus asks for all BMCs of a job at about the same time; who finds the queue full
    # tries again only after a second.
    request_queue_size = 1024

    def __init__(self, listen: str, pages: Pages, access: Access | None = None) -> None:
        """`access` None: plain HTTP for all. Raises OSError when it cannot listen there."""
        host, port = split_address(listen)
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.pages = pages
        self.access = access
        self.connections = Connections(_MAX_WAITING, _PATIENCE_S)
        self._told_of_crowd = -math.inf
        try:
            super().__init__((host, port), _Handler)
        except TypeError as error:  # no host name could be like that
            raise OSError(str(error)) from None
        # A client is taken in when it has asked, or after a second of silence.
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 1)

    @property
    def port(self) -> int:
        """The port that is listened on; of use when 0 was asked for."""
        return int(self.server_address[1])

    @property
    def scheme(self) -> str:
        """http or https."""
        return "https" if self.access is not None and self.access.is_encrypted else "http"

    def get_request(self) -> tuple[socket.socket, Any]:
        """Take in the next client. Raises OSError; one for whom there is no room stays queued.

        Any: the base class allows other kinds of addresses.
        """
        try:
            return super().get_request()
        except OSError as error:
            if error.errno in _NO_ROOM:
                self.tell_of_crowd("connections wait reason=%s", error.strerror)
                self.connections.drop_oldest()
                # Whoever is queued wakes this thread again at once.
                time.sleep(_NO_ROOM_PAUSE_S)
            raise

    def tell_of_crowd(self, message: str, *arguments: object) -> None:
        """Log it, once a minute: a crowd of clients must not fill the log too."""
        now = time.monotonic()
        if now - self._told_of_crowd >= _TELL_AGAIN_S:
            self._told_of_crowd = now
            log.warning(message, *arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread of its own. Any: the base class allows other kinds of sockets."""
        if not self.connections.admit(request):
            self.tell_of_crowd("connections refused reason=busy client=%s", client_address[0])
            if self.scheme == "http":
                _answer_at_once(request, Answer.busy("too many clients"))
            self.shutdown_request(request)
            return
        if self.access is None and begin_answer(
            request, self.pages, self.connections, self.shutdown_request
        ):
            return
        thread = threading.Thread(
            target=self._serve, args=(request, client_address), name="http", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:  # the system has no thread left
            self.tell_of_crowd(
                "connections refused reason=%s client=%s", error, client_address[0]
            )
            self.shutdown_request(request)
            self.connections.leave(request)

    def _serve(self, request: socket.socket, client_address: Any) -> None:
        connection = request

        def go_on_with(encrypted: socket.socket) -> None:
            nonlocal connection
            self.connections.replace(connection, encrypted)
            connection = encrypted

        try:
            if self.access is not None and self.scheme == "https":
                # Here and not where it was accepted: a client can take long over it.
                deadline = time.monotonic() + CLIENT_TIMEOUT_S
                self.access.encrypt(connection, deadline, go_on_with)
            self.finish_request(connection, client_address)
        except NotTls:
            _answer_at_once(connection, Answer.text(400, "this port speaks https"))
        except (OSError, ConfigError) as error:
            # The client went away, was too slow or has the wrong certificate; or ours is
            # broken, which the log has by now.
            log.debug("http client=%s error=%s", client_address[0], error)
        finally:
            self.shutdown_request(connection)
            self.connections.leave(connection)

    def serve_until(self, wait: Callable[[], object]) -> None:
        """Serve until `wait` returns, then finish the requests that are being answered."""
        thread = threading.Thread(target=self.serve_forever, name="accept", daemon=True)
        thread.start()
        wait()
        self.shutdown()
        self.server_close()
        if not self.connections.wait_until_answered(_SHUTDOWN_TIMEOUT_S):
            log.warning("requests left unfinished timeout_s=%.0f", _SHUTDOWN_TIMEOUT_S)


def _answer_at_once(connection: socket.socket, answer: Answer) -> None:
    try:
        # Not blocking: this may be the accepting thread. It fits any socket's buffer.
        connection.setblocking(False)
        connection.sendall(answer.head() + answer.body)
    except OSError as error:
        log.debug("refusal not sent error=%s", error)
