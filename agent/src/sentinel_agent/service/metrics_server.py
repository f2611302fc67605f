"""Serves the agent's series over HTTP. It measures nothing."""

from __future__ import annotations

import logging
import socket
import threading
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import make_wsgi_app

from .metrics import Metrics
from .status import Status

log = logging.getLogger(__name__)

# Prometheus asks in one go; who takes longer is nobody that we serve.
REQUEST_S = 10.0
REQUESTS_MAX = 16

# As socketserver's types have it.
Request = socket.socket | tuple[bytes, socket.socket]


def serve_metrics(listen: str, metrics: Metrics, status: Status) -> None:
    """Serve on `listen` (host:port, empty: nowhere) by a thread.

    A port that is taken is reported and stops nothing else.
    """
    if not listen:
        return
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    try:
        server = (_Server6 if ":" in host else _Server)((host, int(port)), _Handler)
    except OSError as error:
        text = f"cannot listen on {listen}: {error.strerror}"
        log.error("metrics not served reason=%s", text)
        status.set_problems("metrics", [text])
        return
    server.set_app(make_wsgi_app(metrics.registry))
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()


class _Handler(WSGIRequestHandler):
    timeout = REQUEST_S

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing of each scrape."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], handler: type[WSGIRequestHandler]) -> None:
        self._places = threading.BoundedSemaphore(REQUESTS_MAX)
        super().__init__(address, handler)

    def server_bind(self) -> None:
        """Bind, and do not ask the name service for our name as the base class does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "", int(self.server_address[1])
        self.setup_environ()

    def process_request(self, request: Request, client_address: object) -> None:
        """Serve by a thread of its own, or hang up when too many are being served."""
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Request, client_address: object) -> None:
        """Serve one, and make its place free."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Request, client_address: object) -> None:
        """Say nothing of one that went away, or took too long."""


class _Server6(_Server):
    address_family = socket.AF_INET6
