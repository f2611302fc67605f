"""The agent over TLS: which servers get its token, and what is said of the others."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sentinel_agent.config import Config as AgentConfig
from sentinel_agent.errors import ServerError
from sentinel_agent.server.client import BookingClient
from sentinel_agent.server.enrolment import register
from sentinel_agent.server.registration import load_registration
from tests.booking.lab import add_node, invite
from tests.booking.page_lab import lab_config
from tests.booking.programs import free_port, migrated_app, running, write_config
from tests.lab.certificates import Authority, CertificateFiles

TOKEN = "a-token-that-nobody-guesses"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The lab's own authority."""
    return Authority(tmp_path_factory.mktemp("authority"), "lab")


@dataclass
class Heard:
    """What came in over the connections that were accepted: request lines and tokens."""

    requests: list[str] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)
    # What the certificates of the clients say.
    clients: list[object] = field(default_factory=list)


@contextlib.contextmanager
def tls_server(
    files: CertificateFiles, *, clients_of: Path | None = None, redirect_to: str = ""
) -> Iterator[tuple[str, Heard]]:
    """Serve heartbeats by https on the loopback; `clients_of`: who signs the clients' own."""
    heard = Heard()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            heard.requests.append(self.path)
            heard.tokens.append(self.headers["Authorization"])
            if isinstance(self.connection, ssl.SSLSocket):
                heard.clients.append(self.connection.getpeercert())
            now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
            content = json.dumps({"server_time": now}).encode()
            self.send_response(307 if redirect_to else 200)
            if redirect_to:
                self.send_header("Location", redirect_to + self.path)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    if clients_of is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(clients_of)

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def finish_request(self, request: object, client_address: object) -> None:
            # In the connection's own thread; a client that hangs up on us is no error here.
            assert isinstance(request, socket.socket)
            connection = context.wrap_socket(
                request, server_side=True, do_handshake_on_connect=False
            )
            with contextlib.closing(connection), contextlib.suppress(OSError):
                plain = socket.socket(fileno=os.dup(connection.fileno()))
                try:
                    connection.do_handshake()
                except ssl.SSLError:
                    # Closed with something unread, the connection would be reset, and the
                    # client might not see why.
                    plain.shutdown(socket.SHUT_WR)
                    while plain.recv(4096):
                        pass
                    raise
                finally:
                    plain.close()
                Handler(connection, client_address, self)

        def shutdown_request(self, request: object) -> None:
            """Nothing: it is closed already."""

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"https://127.0.0.1:{server.server_address[1]}", heard
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_server_that_the_own_authority_signed_gets_the_token(authority: Authority) -> None:
    with tls_server(authority.sign("good", host="127.0.0.1")) as (url, heard):
        BookingClient(url, authority.certificate, TOKEN).heartbeat({})
    assert heard.tokens == [f"Bearer {TOKEN}"]


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("another authority", "unable to get local issuer certificate"),
        ("no authority of ours", "unable to get local issuer certificate"),
        ("self-signed", "self-signed certificate"),
        ("another name", "IP address mismatch, certificate is not valid for '127.0.0.1'"),
        ("expired", "certificate has expired"),
        ("not valid yet", "certificate is not yet valid"),
        ("a client's", "unsuitable certificate purpose"),
    ],
)
def test_a_server_that_fails_the_check_gets_nothing_and_it_is_said_why(
    authority: Authority, tmp_path: Path, kind: str, why: str
) -> None:
    other = Authority(tmp_path, "other")
    ca_file: Path | None = authority.certificate
    files = authority.sign("server", host="127.0.0.1")
    match kind:
        case "another authority":
            files = other.sign("server", host="127.0.0.1")
        case "no authority of ours":
            # Without ca_file those of certifi count.
            ca_file = None
        case "self-signed":
            files = self_signed(tmp_path)
        case "another name":
            files = authority.sign("server", host="booking.lab.example")
        case "expired":
            files = authority.sign("server", host="127.0.0.1", valid_days=(-9, -1))
        case "not valid yet":
            files = authority.sign("server", host="127.0.0.1", valid_days=(1, 9))
        case "a client's":
            files = authority.sign("server")
    with tls_server(files) as (url, heard):
        client = BookingClient(url, ca_file, TOKEN)
        with pytest.raises(ServerError, match=why) as refused:
            client.heartbeat({})
        # Whoever has the code could register in the node's place.
        with pytest.raises(ServerError, match=why):
            BookingClient(url, ca_file).register("a-code", "gpu1", "127.0.0.1")
    assert heard == Heard()
    assert TOKEN not in str(refused.value)


def self_signed(folder: Path) -> CertificateFiles:
    """A certificate by openssl, as people make them by hand."""
    files = CertificateFiles(folder / "self.pem", folder / "self-key.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "1", "-subj", "/CN=self", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", str(files.key), "-out", str(files.certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    return files


def test_a_self_signed_certificate_is_taken_when_it_is_the_ca_file(tmp_path: Path) -> None:
    files = self_signed(tmp_path)
    with tls_server(files) as (url, heard):
        BookingClient(url, files.certificate, TOKEN).heartbeat({})
    assert len(heard.tokens) == 1


def test_a_proxy_that_demands_a_certificate_gets_the_nodes_own(
    authority: Authority, tmp_path: Path
) -> None:
    own = authority.sign("gpu1")
    stranger = Authority(tmp_path, "other").sign("stranger")
    files = authority.sign("server", host="127.0.0.1")
    with tls_server(files, clients_of=authority.certificate) as (url, heard):
        with pytest.raises(ServerError, match="certificate required"):
            BookingClient(url, authority.certificate, TOKEN).heartbeat({})
        foreign = (stranger.certificate, stranger.key)
        with pytest.raises(ServerError, match=r"unknown ca|decrypt error"):
            BookingClient(url, authority.certificate, TOKEN, foreign).heartbeat({})
        assert heard == Heard()
        BookingClient(url, authority.certificate, TOKEN, (own.certificate, own.key)).heartbeat(
            {}
        )
    assert heard.tokens == [f"Bearer {TOKEN}"]
    (client,) = heard.clients
    assert isinstance(client, dict)
    assert client["subject"] == ((("commonName", "gpu1"),),)


def test_a_redirect_takes_the_token_nowhere(authority: Authority) -> None:
    files = authority.sign("server", host="127.0.0.1")
    with (
        tls_server(files) as (elsewhere, heard_elsewhere),
        tls_server(files, redirect_to=elsewhere) as (url, heard),
        pytest.raises(ServerError, match="status 307") as refused,
    ):
        BookingClient(url, authority.certificate, TOKEN).heartbeat({})
    assert refused.value.is_permanent
    assert len(heard.tokens) == 1
    assert heard_elsewhere == Heard()


def test_booking_serves_https_itself_and_a_node_registers_over_it(
    authority: Authority, tmp_path: Path
) -> None:
    files = authority.sign("booking", host="127.0.0.1")
    port = free_port()
    config = lab_config(
        tmp_path,
        tls_cert_file=files.certificate,
        tls_key_file=files.key,
        listen=f"127.0.0.1:{port}",
        workers=1,
    )
    app = migrated_app(config)
    add_node(app, "gpu1")
    file = write_config(config, tmp_path)
    agent = AgentConfig(
        server=f"https://127.0.0.1:{port}",
        ca_file=authority.certificate,
        address="127.0.0.1",
        state_dir=tmp_path / "agent",
    )

    def is_up() -> bool:
        context = ssl.create_default_context(cafile=authority.certificate)
        try:
            with socket.create_connection(("127.0.0.1", port), 2) as plain:
                context.wrap_socket(plain, server_hostname="127.0.0.1").close()
        except OSError:
            return False
        return True

    program = Path(sys.executable).parent / "sentinel-booking"
    command = [str(program), "--config", str(file), "serve"]
    with running(command, tmp_path / "booking.log", is_up):
        register(agent, invite(app, "gpu1"))
        registration = load_registration(agent.state_dir)
        client = BookingClient(agent.server, agent.ca_file, registration.token)
        assert client.get_policy("", 0).is_new
        with pytest.raises(ServerError, match="unable to get local issuer certificate"):
            BookingClient(agent.server, None, registration.token).get_policy("", 0)
