"""Prometheus' web configuration file: what it may say, and what is refused by name."""

from __future__ import annotations

import threading
from pathlib import Path

import bcrypt
import pytest

from sentinel_exporters.errors import ConfigError
from sentinel_exporters.web.config_file import parse_web_file
from sentinel_exporters.web.passwords import Passwords, PasswordsBusy
from tests.lab.wait import wait_for

# The password is "secret"; at the least cost, for speed.
# With a salt of its own each time, tests that run side by side would differ by their names.
HASH = bcrypt.hashpw(b"secret", b"$2b$04$CF2qJTKg1bE1L3sNxlOeFe").decode()
TLS = "tls_server_config: {cert_file: a.pem, key_file: /b.pem"


def test_an_empty_file_is_plain_http_for_all() -> None:
    for text in (
        b"",
        b"---\n",
        b"basic_auth_users:\ntls_server_config:\nhttp_server_config: {}\n",
    ):
        file = parse_web_file(text, Path("/etc"))
        assert (file.tls, file.users, file.http.headers) == (None, {}, {})


def test_the_whole_of_the_form_is_understood() -> None:
    text = f"""
        tls_server_config:
          cert_file: server.pem
          key_file: /keys/server.pem
          client_auth_type: RequireAndVerifyClientCert
          client_ca_file: ../ca.pem
          client_allowed_sans: [prometheus.example]
          min_version: TLS12
          max_version: TLS13
          cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_AES_128_GCM_SHA256]
          prefer_server_cipher_suites: false
          curve_preferences: [X25519]
        http_server_config:
          http2: true
          headers:
            Strict-Transport-Security: max-age=31536000
            X-Frame-Options: deny
        basic_auth_users:
          alice: {HASH.replace("$2b", "$2y")}
          bob: {HASH}
    """
    file = parse_web_file(text.encode(), Path("/etc/sentinel"))
    assert file.tls is not None
    assert file.tls.cert_file == Path("/etc/sentinel/server.pem")
    assert file.tls.key_file == Path("/keys/server.pem")
    assert file.tls.client_ca_file == Path("/etc/sentinel/../ca.pem")
    assert file.tls.openssl_ciphers == ["ECDHE-RSA-AES128-GCM-SHA256"]
    assert set(file.users) == {"alice", "bob"}
    assert list(file.http.headers) == ["Strict-Transport-Security", "X-Frame-Options"]
    assert list(file.warnings) == ["http_server_config.http2: HTTP/1 is served"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("users: {}", "users: not supported"),
        ("rate_limit: {burst: 3}", "rate_limit: not supported"),
        ("tls_server_config: {key_file: b}", "tls_server_config.cert_file: is missing"),
        ("tls_server_config: {min_version: TLS12}", "tls_server_config.cert_file: is missing"),
        (TLS + ", cert: x}", "tls_server_config.cert: not supported"),
        (TLS + ", min_version: SSL30}", "tls_server_config.min_version: "),
        (TLS + ", max_version: TLS11}", "tls_server_config.max_version: "),
        (TLS + ", min_version: TLS13, max_version: TLS12}", "max_version is below min_version"),
        (TLS + ", cipher_suites: [TLS_RSA_WITH_RC4_128_SHA]}", "unknown: TLS_RSA_WITH_RC4"),
        (TLS + ", cipher_suites: [TLS_AES_128_GCM_SHA256]}", "none for TLS 1.2"),
        (TLS + ", curve_preferences: [CurveP224]}", "unknown: CurveP224"),
        (TLS + ", curve_preferences: [X25519, CurveP256]}", "curve_preferences: "),
        (TLS + ", client_auth_type: RequestClientCert}", "take certificates of anybody"),
        (TLS + ", client_auth_type: RequireAnyClientCert}", "take certificates of anybody"),
        (TLS + ", client_auth_type: Maybe}", "tls_server_config.client_auth_type: "),
        (TLS + ", client_auth_type: RequireAndVerifyClientCert}", "belong together"),
        (TLS + ", client_ca_file: ca.pem}", "belong together"),
        (
            TLS + ", client_auth_type: VerifyClientCertIfGiven, client_ca_file: c,"
            " client_allowed_sans: [a]}",
            "client_allowed_sans needs",
        ),
        ("http_server_config: {headers: {Server: x}}", "Server cannot be set"),
        ("http_server_config: {headers: {X-Frame-Options: x}}", "deny or sameorigin"),
        ('http_server_config: {headers: {X-XSS-Protection: "1\\nA: b"}}', "printable"),
        ("basic_auth_users: {alice: secret}", "alice is not hashed by bcrypt"),
        (f"basic_auth_users: {{alice: {HASH[:-1]}}}", "alice is not hashed by bcrypt"),
        (f"basic_auth_users: {{1: {HASH}}}", "basic_auth_users.1"),
        (f'basic_auth_users: {{"a:b": {HASH}}}', "a name has no colon"),
        (f"basic_auth_users:\n  a: {HASH}\n  a: {HASH}\n", "line 2: a is there twice"),
        ("[]", "the file: "),
        ("a: [", "line 1: "),
        ("a: !!python/name:os.system x", "line 1: "),
        ("basic_auth_users: {alice: *secret-password}", "line 1: * is for names"),
        ("basic_auth_users: {alice: !secret-password }", "line 1: tags, which begin with !"),
        ("stage: 1\nstage: 2", "line 1: stage is there twice"),
        ("a: 2001-99-99", "not a YAML file"),
        ('a: !!int ""', "not a YAML file"),
        ("a: !!bool x", "not a YAML file"),
        ("a: !!timestamp x", "not a YAML file"),
        ("a: !!map [a]", "not a YAML file"),
        (
            r'tls_server_config: {cert_file: "a\0b", key_file: "\ud800"}',
            "tls_server_config.cert_file: a path has no NUL\ntls_server_config.key_file: ",
        ),
        ("[" * 5000, "not a YAML file"),
        ("\x00", "not a YAML file"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(text: str, reason: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_web_file(text.encode(), Path("/"))
    assert reason in str(refused.value)
    assert HASH[:20] not in str(refused.value)
    assert "secret-password" not in str(refused.value)


def test_all_problems_are_reported_at_once() -> None:
    text = (
        "basic_auth_users: {alice: x}\nspeed: 1\ntls_server_config: {cert_file: a, colour: b}"
    )
    with pytest.raises(ConfigError) as refused:
        parse_web_file(text.encode(), Path("/"))
    assert sorted(line.partition(":")[0] for line in str(refused.value).splitlines()) == [
        "basic_auth_users",
        "speed",
        "tls_server_config.colour",
        "tls_server_config.key_file",
    ]


def is_good(passwords: Passwords, name: str, password: bytes) -> bool:
    return passwords.is_good({"alice": HASH}, name, password, 30)


def test_a_password_is_good_for_its_own_name_alone() -> None:
    passwords = Passwords()
    for _ in range(2):
        assert is_good(passwords, "alice", b"secret")
        assert not is_good(passwords, "alice", b"Secret")
        assert not is_good(passwords, "alice", b"")
        assert not is_good(passwords, "bob", b"secret")
        assert not is_good(passwords, "", b"secret")


def test_a_password_that_was_good_is_not_when_its_hash_has_changed() -> None:
    passwords = Passwords()
    assert passwords.is_good({"alice": HASH}, "alice", b"secret", 30)
    other = bcrypt.hashpw(b"other", bcrypt.gensalt(4)).decode()
    assert not passwords.is_good({"alice": other}, "alice", b"secret", 30)


def test_a_password_of_more_than_bcrypt_reads_is_as_good_as_its_beginning() -> None:
    long = b"x" * 100
    users = {"alice": bcrypt.hashpw(long[:72], bcrypt.gensalt(4)).decode()}
    assert Passwords().is_good(users, "alice", long, 30)


def test_one_password_is_checked_at_a_time_and_nobody_waits_for_ever() -> None:
    passwords = Passwords()
    costly = {"alice": bcrypt.hashpw(b"secret", bcrypt.gensalt(11)).decode()}
    is_over = threading.Event()

    def guess() -> None:
        while not is_over.is_set():
            passwords.is_good(costly, "alice", b"guess", 30)

    guesser = threading.Thread(target=guess)
    guesser.start()

    def is_busy() -> bool:
        try:
            passwords.is_good(costly, "bob", b"secret", 0)
        except PasswordsBusy:
            return True
        return False

    try:
        wait_for("a guess to be checked", is_busy)
        # Who waits has a turn.
        assert passwords.is_good(costly, "alice", b"secret", 30)
        # And who was good before needs none.
        assert all(passwords.is_good(costly, "alice", b"secret", 0) for _ in range(50))
    finally:
        is_over.set()
        guesser.join(30)


def test_so_many_wait_for_their_passwords_and_no_more() -> None:
    passwords = Passwords()
    costly = {"alice": bcrypt.hashpw(b"secret", bcrypt.gensalt(12)).decode()}
    refusals: list[str] = []

    def guess() -> None:
        try:
            passwords.is_good(costly, "alice", b"guess", 0.5)
        except PasswordsBusy as busy:
            refusals.append(str(busy))

    crowd = [threading.Thread(target=guess) for _ in range(60)]
    for one in crowd:
        one.start()
    for one in crowd:
        one.join(30)
    # Those before them have not all had their turn when the last comes.
    assert 0 < sum("too many wait" in refusal for refusal in refusals) <= 60 - 32
    assert passwords.is_good(costly, "alice", b"secret", 30)


@pytest.mark.parametrize("cost", [4, 6])
def test_a_name_that_is_not_there_is_checked_at_a_users_cost(cost: int) -> None:
    # What is compared is what bcrypt is given, since the time that it takes is the cost's.
    users = {"alice": bcrypt.hashpw(b"secret", bcrypt.gensalt(cost)).decode()}
    decoy = Passwords()._decoy(users, "bob")
    assert decoy.startswith(f"$2b${cost:02d}$")
    assert not bcrypt.checkpw(b"secret", decoy.encode())
