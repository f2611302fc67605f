"""Alertmanager's file: what goes where, and a real Alertmanager with a real mail server."""

from __future__ import annotations

import datetime as dt
import email
import email.policy
import ssl
import subprocess
from collections.abc import Iterator
from email.message import EmailMessage
from ipaddress import ip_address
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from provisioning.render import render_tree
from tests.lab.mail import MailBox
from tests.lab.ports import free_ports
from tests.lab.wait import wait_for

from .programs import Lab, alertmanager, send_alerts, serving, settings

FAST = {"GROUP_WAIT": "1s", "GROUP_INTERVAL": "1s"}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("config")
    render_tree(folder, settings(folder, Lab()))
    return folder / "alertmanager/alertmanager.yml"


def amtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["amtool", *arguments], capture_output=True, text=True, check=False, timeout=30
    )


def test_amtool_accepts_the_file_and_its_mail_templates(config: Path) -> None:
    checked = amtool("check-config", config)
    assert checked.returncode == 0, checked.stderr
    assert "1 templates" in checked.stdout


@pytest.mark.parametrize(
    ("labels", "receivers"),
    [
        (["alertname=NodeOffline", "severity=critical"], "booking,mail"),
        (["alertname=BmcDown", "severity=warning"], "booking,mail"),
        (["alertname=ReservedButIdle", "severity=info"], "booking,none"),
        # A site's own rule may lack a severity; it must not get lost.
        (["alertname=HomeMade"], "booking,mail"),
    ],
)
def test_each_severity_reaches_its_receivers(
    config: Path, labels: list[str], receivers: str
) -> None:
    routed = amtool(
        "config", "routes", "test", f"--config.file={config}",
        f"--verify.receivers={receivers}", *labels,
    )  # fmt: skip
    assert routed.returncode == 0, routed.stdout + routed.stderr


def offline(node: str, *, ended: bool = False) -> dict[str, object]:
    """One NodeOffline as Prometheus posts it."""
    now = dt.datetime.now(dt.UTC)
    # An older one would not wait for the others of its group.
    times = {"endsAt": now.isoformat()} if ended else {"startsAt": now.isoformat()}
    return {
        "labels": {
            "alertname": "NodeOffline",
            "severity": "critical",
            "node": node,
            "cluster": "lab",
        },
        "annotations": {
            "summary": f"Node {node} is offline",
            "description": f"No answer from <{node}> for 2m or more.",
            "runbook_url": "https://docs.example.org/NodeOffline.md",
            "dashboard": f"http://grafana.example.org/d/sentinel-lab/?var-node={node}",
        },
        **times,
    }


def warning(name: str, node: str) -> dict[str, object]:
    return {
        "labels": {"alertname": name, "severity": "warning", "node": node, "cluster": "lab"},
        "annotations": {"summary": f"{name} on {node}"},
    }


def part(mail: EmailMessage, kind: str) -> str:
    body = mail.get_body(preferencelist=(kind,))
    assert body is not None
    return str(body.get_content()).replace("\r\n", "\n")


@pytest.fixture
def mailbox() -> Iterator[tuple[MailBox, str]]:
    port = free_ports(1)[0]
    box = MailBox("127.0.0.1", port)
    box.start()
    yield box, f"127.0.0.1:{port}"
    box.stop()


def test_an_outage_and_its_end_are_mailed_and_posted_to_booking(
    tmp_path: Path, mailbox: tuple[MailBox, str]
) -> None:
    box, smarthost = mailbox
    mail = {
        "SMTP_SMARTHOST": smarthost,
        "SMTP_REQUIRE_TLS": "false",
        "SMTP_FROM": "sentinel@example.org",
        "SMTP_TO": "ops@example.org, duty@example.org",
        "BOOKING_PUBLIC_URL": "https://booking.example.org",
    }
    with serving(Lab()) as lab, alertmanager(tmp_path, lab, **mail, **FAST) as address:
        send_alerts(address, [offline("gpu-01")])
        firing = wait_for("the mail of the outage", lambda: box.find("[CRITICAL]"))[0]
        send_alerts(address, [offline("gpu-01", ended=True)])
        recovered = wait_for("the mail of the end", lambda: box.find("[RECOVERED]"))[0]
        wait_for("both posts", lambda: len(lab.alerts) == 2)

    assert firing["Subject"] == "[CRITICAL] Node gpu-01 is offline"
    assert firing["From"] == "sentinel@example.org"
    assert firing["X-Envelope-To"] == "ops@example.org, duty@example.org"
    text = part(firing, "plain")
    assert text.startswith("FIRING\n\n* Node gpu-01 is offline\n  No answer from <gpu-01>")
    assert "What to do: https://docs.example.org/NodeOffline.md" in text
    assert "ServerSentinel: https://booking.example.org\n" in text
    assert "RECOVERED" not in text
    html = part(firing, "html")
    assert "No answer from &lt;gpu-01&gt; for 2m" in html
    assert '<a href="https://docs.example.org/NodeOffline.md">' in html

    assert recovered["Subject"] == "[RECOVERED] Node gpu-01 is offline"
    assert part(recovered, "plain").startswith("RECOVERED\n\n* Node gpu-01 is offline\n")
    assert "Until: " in part(recovered, "plain")
    assert "RECOVERED" in part(recovered, "html")

    assert [post["status"] for post in lab.alerts] == ["firing", "resolved"]
    assert lab.alerts[0]["version"] == "4"
    assert lab.alerts[0]["alerts"][0]["labels"]["node"] == "gpu-01"
    assert lab.refused == []


def test_many_nodes_of_a_cluster_are_one_mail(
    tmp_path: Path, mailbox: tuple[MailBox, str]
) -> None:
    box, smarthost = mailbox
    mail = {"SMTP_SMARTHOST": smarthost, "SMTP_REQUIRE_TLS": "false"}
    with serving(Lab()) as lab, alertmanager(tmp_path, lab, **mail, **FAST) as address:
        send_alerts(address, [offline("gpu-01"), offline("gpu-02"), offline("gpu-03")])
        wait_for("the mail", lambda: box.find("[CRITICAL]"))
        send_alerts(address, [offline("gpu-02", ended=True)])
        mails = wait_for("the second mail", lambda: box.find("1 recovered"))
    assert [str(m["Subject"]) for m in box.find()] == [
        "[CRITICAL] NodeOffline: 3 firing",
        "[CRITICAL] NodeOffline: 2 firing, 1 recovered",
    ]
    text = part(mails[0], "plain")
    assert text.index("FIRING") < text.index("gpu-03") < text.index("RECOVERED")
    assert text.index("RECOVERED") < text.rindex("gpu-02")


def test_an_offline_node_mutes_its_own_warnings_only(
    tmp_path: Path, mailbox: tuple[MailBox, str]
) -> None:
    box, smarthost = mailbox
    mail = {"SMTP_SMARTHOST": smarthost, "SMTP_REQUIRE_TLS": "false"}
    with serving(Lab()) as lab, alertmanager(tmp_path, lab, **mail, **FAST) as address:
        send_alerts(
            address,
            [offline("gpu-01"), warning("BmcDown", "gpu-01"), warning("BmcDown", "gpu-02")],
        )
        wait_for("both mails", lambda: len(box.find()) == 2)
    assert {str(m["Subject"]) for m in box.find()} == {
        "[CRITICAL] Node gpu-01 is offline",
        "[WARNING] BmcDown on gpu-02",
    }


def test_without_booking_what_only_booking_knows_is_muted_but_not_an_outage(
    tmp_path: Path, mailbox: tuple[MailBox, str]
) -> None:
    box, smarthost = mailbox
    mail = {"SMTP_SMARTHOST": smarthost, "SMTP_REQUIRE_TLS": "false"}
    booking_down: dict[str, object] = {
        "labels": {"alertname": "BookingMetricsDown", "severity": "critical"},
        "annotations": {"summary": "Booking does not answer"},
    }
    muted = ("NodeHeartbeatStale", "NodeClockSkewed", "ServiceDiscoveryFailing")
    with serving(Lab()) as lab, alertmanager(tmp_path, lab, **mail, **FAST) as address:
        alerts = [booking_down, offline("gpu-01"), *(warning(name, "gpu-02") for name in muted)]
        send_alerts(address, alerts)
        wait_for("both mails", lambda: len(box.find("[CRITICAL]")) == 2)
        # A mail of the muted ones would be out before this one, which starts later.
        send_alerts(address, [warning("BmcDown", "gpu-03")])
        wait_for("the last mail", lambda: box.find("BmcDown"))
    assert {str(m["Subject"]) for m in box.find()} == {
        "[CRITICAL] Booking does not answer",
        "[CRITICAL] Node gpu-01 is offline",
        "[WARNING] BmcDown on gpu-03",
    }


class SignedIn:
    """An aiosmtpd handler and authenticator that lets one account in and keeps its mails."""

    def __init__(self) -> None:
        self.subjects: list[str] = []
        self.accounts: list[tuple[bytes, bytes]] = []

    def authenticate(self, *arguments: object) -> AuthResult:
        """Called with server, session, envelope, mechanism and what the client sent."""
        account = arguments[-1]
        assert isinstance(account, LoginPassword)
        self.accounts.append((account.login, account.password))
        return AuthResult(success=account == LoginPassword(b"sentinel", b"mail-password"))

    async def handle_DATA(  # noqa: N802  aiosmtpd names it
        self,
        server: SMTP,  # noqa: ARG002  aiosmtpd passes it
        session: Session,
        envelope: Envelope,
    ) -> str:
        assert session.ssl is not None
        assert isinstance(envelope.content, bytes)
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        self.subjects.append(str(mail["Subject"]))
        return "250 kept"


def make_certificate(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """Return a self-signed certificate for 127.0.0.1 and a server's context with it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), False
        )
        .sign(key, hashes.SHA256())
    )
    (folder / "mail.crt").write_bytes(certificate.public_bytes(Encoding.PEM))
    (folder / "mail.key").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "mail.crt", folder / "mail.key")
    return folder / "mail.crt", context


def test_mail_goes_by_tls_with_a_password_from_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, context = make_certificate(tmp_path)
    # Where Alertmanager's language looks for the authorities it trusts.
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    (tmp_path / "password").write_text("mail-password")
    port = free_ports(1)[0]
    account = SignedIn()
    server = Controller(
        account,
        hostname="127.0.0.1",
        port=port,
        tls_context=context,
        require_starttls=True,
        authenticator=account.authenticate,
        auth_required=True,
        # Its questions for the name are not the ones that Alertmanager 0.25 knows.
        auth_exclude_mechanism=["LOGIN"],
    )
    mail = {
        "SMTP_SMARTHOST": f"127.0.0.1:{port}",
        "SMTP_AUTH_USERNAME": "sentinel",
        "SMTP_AUTH_PASSWORD_FILE": str(tmp_path / "password"),
    }
    server.start()
    try:
        with serving(Lab()) as lab, alertmanager(tmp_path, lab, **mail, **FAST) as address:
            send_alerts(address, [offline("gpu-01")])
            wait_for("the mail", lambda: account.subjects)
    finally:
        server.stop()
    assert account.accounts == [(b"sentinel", b"mail-password")]
    assert account.subjects == ["[CRITICAL] Node gpu-01 is offline"]
