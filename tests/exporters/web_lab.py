"""A server with a web configuration, certificates and clients for it. Asserts nothing."""

from __future__ import annotations

import base64
import contextlib
import http.client
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import bcrypt

from sentinel_exporters.pages import Pages
from sentinel_exporters.prober import Prober
from sentinel_exporters.runner import Runner
from sentinel_exporters.server import Server
from sentinel_exporters.web.access import Access
from tests.exporters.toy_site import in_background
from tests.lab.certificates import Authority, CertificateFiles

# At the least cost, for speed.
ALICE = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
USERS = f"basic_auth_users: {{alice: {ALICE}}}\n"
CLIENTS = "client_auth_type: RequireAndVerifyClientCert, client_ca_file: clients-ca.pem"


@dataclass
class Site:
    """A folder with the server's certificate and the web configuration."""

    folder: Path
    servers: Authority
    clients: Authority
    server: CertificateFiles

    @property
    def file(self) -> Path:
        return self.folder / "web.yml"

    def configure(self, tls: str = "", more: str = "") -> None:
        options = f", {tls}" if tls else ""
        self.file.write_text(
            "tls_server_config: {cert_file: server.pem, key_file: server-key.pem"
            f"{options}}}\n{more}"
        )

    @contextlib.contextmanager
    def serving(self) -> Iterator[int]:
        """Serve pages without collectors until the block ends; yields the port."""
        server = Server(
            "127.0.0.1:0",
            Pages(Runner([], {}, is_auto=False), Prober([], {}, 1), max_requests=16),
            Access(self.file),
        )
        with in_background(server):
            yield server.port


def make_site(folder: Path) -> Site:
    """Sign the server's certificate; the web configuration is the test's to write."""
    servers, clients = Authority(folder, "servers"), Authority(folder, "clients")
    return Site(folder, servers, clients, servers.sign("server", host="127.0.0.1"))


def trusting(authority: Authority, client: CertificateFiles | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.certificate))
    if client is not None:
        context.load_cert_chain(client.certificate, client.key)
    return context


def basic(text: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(text.encode()).decode()}


def ask(
    port: int,
    context: ssl.SSLContext | None,
    headers: dict[str, str] | None = None,
    path: str = "/metrics",
) -> tuple[int, bytes, http.client.HTTPMessage]:
    connection: http.client.HTTPConnection
    if context is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    else:
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=30, context=context)
    with contextlib.closing(connection):
        connection.request("GET", path, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers


def connect(port: int, context: ssl.SSLContext) -> ssl.SSLSocket:
    raw = socket.create_connection(("127.0.0.1", port), timeout=30)
    return context.wrap_socket(raw, server_hostname="127.0.0.1")
