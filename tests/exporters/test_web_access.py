"""Users, headers, and what a change of the web configuration or its files does."""

from __future__ import annotations

import logging
import os
import ssl
import time
from pathlib import Path

import bcrypt
import pytest

from sentinel_exporters.errors import ConfigError
from sentinel_exporters.web.access import Access
from tests.exporters.running import run_exporter
from tests.exporters.web_lab import ALICE, USERS, Site, ask, basic, connect, make_site, trusting
from tests.lab.wait import wait_for


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return make_site(tmp_path)


def write(site: Site, text: str) -> None:
    """Write the web configuration, as if that were two seconds ago."""
    site.file.write_text(text)
    let_settle(site)


def let_settle(site: Site) -> None:
    os.utime(site.file, (time.time() - 2,) * 2)


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
        good = basic("alice:secret")["Authorization"]
        wrong.append({"Authorization": good.replace("Basic", "Bearer")})
        for refused in wrong:
            assert ask(port, None, refused)[0] == 401


def test_the_headers_of_the_file_go_out_with_each_answer(site: Site) -> None:
    site.file.write_text(USERS + "http_server_config: {headers: {X-Frame-Options: deny}}\n")
    with site.serving() as port:
        for headers in ({}, basic("alice:secret")):
            assert ask(port, None, headers)[2]["X-Frame-Options"] == "deny"


def test_a_change_of_the_users_counts(site: Site) -> None:
    site.file.write_text(USERS)
    with site.serving() as port:
        assert ask(port, None, basic("alice:secret"))[0] == 200
        other = bcrypt.hashpw(b"other", bcrypt.gensalt(4)).decode()
        write(site, USERS.replace(ALICE, other))
        assert ask(port, None, basic("alice:secret"))[0] == 401
        assert ask(port, None, basic("alice:other"))[0] == 200
        write(site, "")
        assert ask(port, None)[0] == 200


def test_a_file_that_is_being_rewritten_lets_in_nobody_else(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.file.write_text(USERS)
    with site.serving() as port:
        # Who rewrites a file empties it first; what comes next may come in pieces.
        for written in ("", "basic_auth_users: {al", "http_server_config: {}\n"):
            site.file.write_text(written)
            assert ask(port, None)[0] == 401
            site.file.touch()
            assert ask(port, None, basic("alice:secret"))[0] == 200
        assert "web configuration" not in caplog.text
        let_settle(site)
        assert ask(port, None)[0] == 200


def test_what_is_being_rewritten_after_it_was_broken_lets_in_nobody(site: Site) -> None:
    site.file.write_text(USERS)
    with site.serving() as port:
        write(site, "speed: 1")
        assert ask(port, None, basic("alice:secret"))[0] == 500
        site.file.write_text("")
        assert ask(port, None, basic("alice:secret"))[0] == 500
        let_settle(site)
        assert ask(port, None)[0] == 200


def test_a_change_counts_after_a_second_without_another(site: Site) -> None:
    site.file.write_text(USERS)
    with site.serving() as port:
        site.file.write_text("")
        wait_for("the change counts", lambda: ask(port, None)[0] == 200)
        assert time.time() - site.file.stat().st_mtime >= 1


def test_a_pipe_in_place_of_the_file_is_refused_and_not_waited_for(site: Site) -> None:
    site.file.write_text(USERS)
    with site.serving() as port:
        site.file.unlink()
        os.mkfifo(site.file)
        assert ask(port, None, basic("alice:secret"))[0] == 500


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
        write(site, "basic_auth_users: {alice: nonsense}\n")
        for _ in range(3):
            assert ask(port, None, basic("alice:secret"))[0] == 500
        assert caplog.text.count("everybody is refused") == 1
        site.file.unlink()
        assert ask(port, None, basic("alice:secret"))[0] == 500
        site.file.write_text(USERS)
        assert ask(port, None, basic("alice:secret"))[0] == 200
        assert "web configuration is good again" in caplog.text
        assert "Traceback" not in caplog.text


@pytest.mark.parametrize(
    "text",
    [
        "basic_auth_users: {alice: !!timestamp x}",
        r'tls_server_config: {cert_file: "a\0b", key_file: c}',
    ],
)
def test_what_no_yaml_reader_expects_refuses_everybody_too(
    site: Site, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    site.file.write_text(USERS)
    with site.serving() as port:
        write(site, text)
        for _ in range(2):
            assert ask(port, None, basic("alice:secret"))[0] == 500
    assert caplog.text.count("everybody is refused") == 1
    assert "Traceback" not in caplog.text


def test_while_the_certificate_is_broken_no_connection_is_taken(site: Site) -> None:
    site.configure()
    context = trusting(site.servers)
    with site.serving() as port:
        assert ask(port, context)[0] == 200
        for breaking in (
            lambda: site.server.certificate.write_text("nonsense"),
            lambda: site.servers.sign("other", host="127.0.0.1").key.rename(site.server.key),
            # Without TLS again: what was encrypted is not said in clear all of a sudden.
            lambda: write(site, ""),
        ):
            breaking()
            with pytest.raises((ssl.SSLError, ConnectionError)):
                ask(port, context)
            site.configure()
            let_settle(site)
            site.servers.sign("server", host="127.0.0.1")
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


def test_a_path_that_cannot_be_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="null byte"):
        Access(Path("a\0b"))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    done = run_exporter("--web.config.file", str(tmp_path / "none.yml"))
    assert done.returncode == 2
    assert "none.yml" in done.stderr
