"""TLS before real clients: who gets a connection, how it is encrypted, how long it may take."""

from __future__ import annotations

import contextlib
import http.client
import shutil
import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path

import pytest

from sentinel_exporters.web.access import Access
from tests.exporters.prometheus_server import prometheus, query
from tests.exporters.running import serving
from tests.exporters.web_lab import CLIENTS, USERS, Site, ask, connect, make_site, trusting
from tests.lab.certificates import Authority, CertificateFiles
from tests.lab.wait import wait_for


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return make_site(tmp_path)


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


def test_the_least_version_is_that_of_the_file(site: Site) -> None:
    site.configure("min_version: TLS13")
    older = trusting(site.servers)
    older.maximum_version = ssl.TLSVersion.TLSv1_2
    with site.serving() as port:
        with connect(port, trusting(site.servers)) as encrypted:
            assert encrypted.version() == "TLSv1.3"
        with pytest.raises(ssl.SSLError):
            connect(port, older)


@pytest.mark.parametrize("is_the_servers", [True, False])
def test_the_order_of_suites_is_the_servers_or_the_clients(
    site: Site, is_the_servers: bool
) -> None:
    large, small = "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-AES128-GCM-SHA256"
    site.configure(
        "max_version: TLS12, cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,"
        " TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256],"
        f" prefer_server_cipher_suites: {str(is_the_servers).lower()}"
    )
    client = trusting(site.servers)
    client.set_ciphers(f"{small}:{large}")
    with site.serving() as port, connect(port, client) as encrypted:
        chosen = encrypted.cipher()
    assert chosen is not None
    assert chosen[0] == (large if is_the_servers else small)


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


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("prometheus.example", "prometheus.example"),
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("2001:db8::1", "2001:0DB8:0::1"),
    ],
)
def test_a_clients_certificate_must_name_who_is_allowed(
    site: Site, name: str, allowed: str
) -> None:
    site.configure(f'{CLIENTS}, client_allowed_sans: ["{allowed}", other.example]')
    good = site.clients.sign("good", known_as=name)
    other = site.clients.sign("other", known_as="mail.example")
    nameless = site.clients.sign("nameless")
    with site.serving() as port:
        assert ask(port, trusting(site.servers, good))[0] == 200
        for client in (other, nameless):
            with pytest.raises((ssl.SSLError, ConnectionError, http.client.HTTPException)):
                ask(port, trusting(site.servers, client))


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
