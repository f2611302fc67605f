"""TLS and users before real clients: who gets the page, and what changes of the files do."""

from __future__ import annotations

import base64
import contextlib
import http.client
import logging
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import bcrypt
import pytest

from sentinel_exporters.pages import Pages
from sentinel_exporters.prober import Prober
from sentinel_exporters.runner import Runner
from sentinel_exporters.server import Server
from sentinel_exporters.web.access import Access
from tests.exporters.prometheus_server import prometheus, query
from tests.exporters.running import run_exporter, serving
from tests.lab.certificates import Authority, CertificateFiles
from tests.lab.wait import wait_for

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
        is_over = threading.Event()
        thread = threading.Thread(target=server.serve_until, args=(is_over.wait,))
        thread.start()
        try:
            yield server.port
        finally:
            is_over.set()
            # The accepting thread looks up twice a second, or when somebody comes.
            while thread.is_alive():
                with contextlib.suppress(OSError):
                    socket.create_connection(("127.0.0.1", server.port), timeout=5).close()
                thread.join(0.01)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    servers, clients = Authority(tmp_path, "servers"), Authority(tmp_path, "clients")
    return Site(tmp_path, servers, clients, servers.sign("server", host="127.0.0.1"))


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


def test_with_tls_the_page_comes_encrypted_and_only_so(site: Site) -> None:
    site.configure()
    with site.serving() as port:
        status, body, _ = ask(port, trusting(site.servers))
        assert (status, b"build_info" in body) == (200, True)
        with pytest.raises(ssl.SSLCertVerificationError):
            ask(port, trusting(site.clients))
        status, body, _ = ask(port, None)
        assert (status, body) == (400, b"this port speaks https\n")


def test_the_command_takes_the_option_and_curl_the_page(site: Site) -> None:
    site.configure("min_version: TLS13", USERS)
    options = ("--collectors", "ssh", "--verbose", "--web-config", str(site.file))
    with serving(site.folder / "log", *options) as exporter:
        assert "scheme=https" in exporter.log.read_text()
        command = [
            "curl", "--silent", "--show-error", "--fail", "--cacert",
            str(site.servers.certificate), "--user", "alice:secret",
            f"https://127.0.0.1:{exporter.port}/metrics",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
        assert (done.returncode, done.stderr) == (0, "")
        assert "ssh_connections" in done.stdout
        assert "secret" not in exporter.log.read_text()


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs prometheus")
def test_a_real_prometheus_scrapes_with_its_certificate_and_password(site: Site) -> None:
    site.configure(f"{CLIENTS}, client_allowed_sans: [prometheus.example]", USERS)
    own = site.clients.sign("own", known_as="prometheus.example")
    others = site.clients.sign("others", known_as="grafana.example")

    often: dict[str, object] = {"scrape_interval": "300ms", "scrape_timeout": "300ms"}

    def job(
        authority: Authority, client: CertificateFiles | None, password: str
    ) -> dict[str, object]:
        tls = {"ca_file": str(authority.certificate)}
        if client is not None:
            tls |= {"cert_file": str(client.certificate), "key_file": str(client.key)}
        user = {"username": "alice", "password": password}
        return {"scheme": "https", "tls_config": tls, "basic_auth": user, **often}

    jobs: dict[str, dict[str, object]] = {
        "good": job(site.servers, own, "secret"),
        "wrong_password": job(site.servers, own, "guess"),
        "other_authority": job(site.clients, own, "secret"),
        "no_certificate": job(site.servers, None, "secret"),
        "other_name": job(site.servers, others, "secret"),
        "in_clear": often,
    }
    with site.serving() as port, prometheus(site.folder, f"127.0.0.1:{port}", jobs) as address:

        def asked() -> dict[str, set[str]]:
            return {
                value: {row["job"] for row in query(address, f"up == {value}")}
                for value in "01"
            }

        wait_for(
            "all jobs to have scraped", lambda: sum(map(len, asked().values())) == len(jobs)
        )
        assert asked() == {"0": set(jobs) - {"good"}, "1": {"good"}}
        assert query(address, "sentinel_exporter_build_info")


def connect(port: int, context: ssl.SSLContext) -> ssl.SSLSocket:
    raw = socket.create_connection(("127.0.0.1", port), timeout=30)
    return context.wrap_socket(raw, server_hostname="127.0.0.1")


def test_version_suite_and_curve_are_those_of_the_file(site: Site) -> None:
    site.configure(
        "max_version: TLS12, cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384],"
        " curve_preferences: [CurveP384]"
    )
    with site.serving() as port:
        with connect(port, trusting(site.servers)) as encrypted:
            assert encrypted.version() == "TLSv1.2"
            assert encrypted.cipher() == ("ECDHE-ECDSA-AES256-GCM-SHA384", "TLSv1.2", 256)
        other_suite = trusting(site.servers)
        other_suite.maximum_version = ssl.TLSVersion.TLSv1_2
        other_suite.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
        other_curve = trusting(site.servers)
        other_curve.set_ecdh_curve("prime256v1")
        for context in (other_suite, other_curve):
            with pytest.raises(ssl.SSLError):
                connect(port, context)


def test_a_client_needs_a_certificate_of_the_authority_that_is_named(site: Site) -> None:
    site.configure(CLIENTS)
    good = site.clients.sign("prometheus")
    stranger = site.servers.sign("stranger")
    expired = site.clients.sign("expired", valid_days=(-3, -1))
    with site.serving() as port:
        assert ask(port, trusting(site.servers, good))[0] == 200
        for client in (None, stranger, expired):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                ask(port, trusting(site.servers, client))


def test_a_certificate_that_is_optional_is_verified_where_it_is_there(site: Site) -> None:
    site.configure(CLIENTS.replace("RequireAndVerifyClientCert", "VerifyClientCertIfGiven"))
    stranger = site.servers.sign("stranger")
    with site.serving() as port:
        assert ask(port, trusting(site.servers))[0] == 200
        assert ask(port, trusting(site.servers, site.clients.sign("good")))[0] == 200
        with pytest.raises((ssl.SSLError, ConnectionError)):
            ask(port, trusting(site.servers, stranger))


@pytest.mark.parametrize("name", ["prometheus.example", "192.0.2.1", "2001:db8::1"])
def test_a_clients_certificate_must_name_who_is_allowed(site: Site, name: str) -> None:
    site.configure(f'{CLIENTS}, client_allowed_sans: ["{name}", other.example]')
    good = site.clients.sign("good", known_as=name)
    other = site.clients.sign("other", known_as="mail.example")
    nameless = site.clients.sign("nameless")
    with site.serving() as port:
        assert ask(port, trusting(site.servers, good))[0] == 200
        for client in (other, nameless):
            with pytest.raises((ssl.SSLError, ConnectionError, http.client.HTTPException)):
                ask(port, trusting(site.servers, client))


def test_users_are_asked_for_name_and_password_on_every_path(site: Site) -> None:
    site.file.write_text(USERS)
    with site.serving() as port:
        for path in ("/metrics", "/", "/healthz", "/none"):
            status, body, headers = ask(port, None, path=path)
            assert (status, headers["WWW-Authenticate"]) == (401, "Basic")
            assert b"ssh" not in body
        assert ask(port, None, basic("alice:secret"))[0] == 200
        assert ask(port, None, basic("alice:secret"), "/none")[0] == 404
        wrong = [basic(text) for text in ("alice:Secret", "bob:secret", "alice", ":", "")]
        wrong += [
            {"Authorization": text}
            for text in ("", "Basic", "Basic !", "Basic YQ", f"Bearer {ALICE}", "Basic ÿ")
        ]
        for refused in wrong:
            assert ask(port, None, refused)[0] == 401


def test_the_headers_of_the_file_go_out_with_each_answer(site: Site) -> None:
    site.file.write_text(USERS + "http_server_config: {headers: {X-Frame-Options: deny}}\n")
    with site.serving() as port:
        for headers in ({}, basic("alice:secret")):
            assert ask(port, None, headers)[2]["X-Frame-Options"] == "deny"


def test_a_change_of_the_users_counts_at_once(site: Site) -> None:
    site.file.write_text(USERS)
    with site.serving() as port:
        assert ask(port, None, basic("alice:secret"))[0] == 200
        other = bcrypt.hashpw(b"other", bcrypt.gensalt(4)).decode()
        site.file.write_text(USERS.replace(ALICE, other))
        assert ask(port, None, basic("alice:secret"))[0] == 401
        assert ask(port, None, basic("alice:other"))[0] == 200
        site.file.write_text("")
        assert ask(port, None)[0] == 200


def test_a_new_certificate_counts_at_once(site: Site) -> None:
    site.configure()
    with site.serving() as port:
        with connect(port, trusting(site.servers)) as encrypted:
            before = encrypted.getpeercert(binary_form=True)
        site.servers.sign("server", host="127.0.0.1")
        with connect(port, trusting(site.servers)) as encrypted:
            assert encrypted.getpeercert(binary_form=True) != before


def test_while_the_file_is_broken_everybody_is_refused(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    site.file.write_text(USERS)
    with site.serving() as port:
        site.file.write_text("basic_auth_users: {alice: nonsense}\n")
        for _ in range(3):
            assert ask(port, None, basic("alice:secret"))[0] == 500
        assert caplog.text.count("everybody is refused") == 1
        site.file.unlink()
        assert ask(port, None, basic("alice:secret"))[0] == 500
        site.file.write_text(USERS)
        assert ask(port, None, basic("alice:secret"))[0] == 200
        assert "web configuration is good again" in caplog.text
        assert "Traceback" not in caplog.text


def test_while_the_certificate_is_broken_no_connection_is_taken(site: Site) -> None:
    site.configure()
    context = trusting(site.servers)
    with site.serving() as port:
        assert ask(port, context)[0] == 200
        kept = site.server.certificate.read_text()
        for breaking in (
            lambda: site.server.certificate.write_text("nonsense"),
            lambda: site.servers.sign("other", host="127.0.0.1").key.rename(site.server.key),
            # Without TLS again: what was encrypted is not said in clear all of a sudden.
            lambda: site.file.write_text(""),
        ):
            breaking()
            with pytest.raises((ssl.SSLError, ConnectionError)):
                ask(port, context)
        site.configure()
        site.servers.sign("server", host="127.0.0.1")
        assert kept != site.server.certificate.read_text()
        assert ask(port, context)[0] == 200


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("speed: 1", "speed: not supported"),
        ("tls_server_config: {cert_file: none.pem, key_file: none.pem}", "none.pem"),
        (
            "tls_server_config: {cert_file: clients-ca.pem, key_file: server-key.pem}",
            "mismatch",
        ),
    ],
)
def test_a_file_that_is_not_good_at_the_start_is_refused(
    site: Site, text: str, reason: str
) -> None:
    site.file.write_text(text)
    done = run_exporter("serve", "--listen", "127.0.0.1:0", "--web-config", str(site.file))
    assert done.returncode == 2
    assert reason in done.stderr.lower()
    assert "Traceback" not in done.stderr


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    done = run_exporter("--web.config.file", str(tmp_path / "none.yml"))
    assert done.returncode == 2
    assert "none.yml" in done.stderr


def test_who_is_slow_to_shake_hands_delays_nobody(site: Site) -> None:
    site.configure()
    with site.serving() as port, contextlib.ExitStack() as held:
        for greeting in (b"", b"\x16", b"\x16\x03\x01\x02\x00\x01"):
            slow = socket.create_connection(("127.0.0.1", port), timeout=30)
            held.enter_context(slow)
            slow.sendall(greeting)
        for _ in range(3):
            assert ask(port, trusting(site.servers))[0] == 200


@pytest.mark.parametrize("pause_s", [0.02, 3600])
def test_a_handshake_has_so_much_time_in_all(site: Site, pause_s: float) -> None:
    site.configure()
    access = Access(site.file)
    ours, theirs = socket.socketpair()
    is_over = threading.Event()

    def send_slowly() -> None:
        # The head of a record of 16 KiB, and then byte by byte: it would never end.
        with contextlib.suppress(OSError):
            theirs.sendall(b"\x16\x03\x01\x40\x00\x01")
            while not is_over.wait(pause_s):
                theirs.sendall(b"x")

    sender = threading.Thread(target=send_slowly)
    sender.start()
    encrypted: list[ssl.SSLSocket] = []
    try:
        with pytest.raises(TimeoutError):
            access.encrypt(ours, time.monotonic() + 0.3, encrypted.append)
    finally:
        is_over.set()
        sender.join(30)
        for one in (*encrypted, theirs):
            one.close()


def test_who_goes_away_in_the_middle_leaves_nothing_behind(site: Site) -> None:
    site.configure()
    with site.serving() as port:
        assert ask(port, trusting(site.servers))[0] == 200
        descriptors = Path("/proc/self/fd")
        before = len(list(descriptors.iterdir()))
        for greeting in (b"", b"\x16\x03\x01\x02", b"\x16\x03\x01\x00\x05hello", b"GET /"):
            for _ in range(5):
                with socket.create_connection(("127.0.0.1", port)) as connection:
                    connection.sendall(greeting)
        wait_for(
            "the descriptors to be closed", lambda: len(list(descriptors.iterdir())) <= before
        )
        assert ask(port, trusting(site.servers))[0] == 200
