"""What messages of sshd mean: those of OpenSSH 8.2 to 10.2, and what strangers put in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from sentinel_exporters.ssh.messages import Accepted, Dropped, Failure, read_message

FROM = "198.51.100.7 port 40000"


@pytest.mark.parametrize(
    ("text", "user", "method"),
    [
        (f"Accepted publickey for alice from {FROM} ssh2: ED25519 SHA256:x", "alice",
         "publickey"),
        (f"Accepted password for alice from {FROM} ssh2", "alice", "password"),
        (f"Accepted keyboard-interactive/pam for bob from {FROM} ssh2", "bob",
         "keyboard-interactive"),
        (f"Accepted gssapi-with-mic for bob from {FROM} ssh2: bob@LAB", "bob",
         "gssapi-with-mic"),
        (f"Accepted telepathy for bob from {FROM} ssh2", "bob", "other"),
        ("Accepted publickey for alice from 2001:db8::1 port 22 ssh2: RSA SHA256:y", "alice",
         "publickey"),
        (f"Accepted password for LAB\\\\Alice Doe from {FROM} ssh2", "LAB\\\\Alice Doe",
         "password"),
        # Whoever signs certificates chooses the text in quotation marks.
        (f'Accepted publickey for alice from {FROM} ssh2: ED25519-CERT SHA256:x ID "k for root '
         f'from {FROM} ssh2: y" (serial 1) CA ED25519 SHA256:z', "alice", "publickey"),
    ],
)  # fmt: skip
def test_a_login_tells_who_and_how(text: str, user: str, method: str) -> None:
    found = read_message(text)
    assert isinstance(found, Accepted)
    assert (found.user, found.method) == (user, method)


POLICY = "refused_by_policy"
FIXTURES = Path(__file__).parent / "fixtures" / "ssh"


def load(name: str) -> list[tuple[str, str]]:
    """Return messages of the fixtures, each with the reason that is in it."""
    rows = [
        line.split("\t") for line in (FIXTURES / f"{name}.tsv").read_text().splitlines()[1:]
    ]
    return [(text, reason) for reason, text in rows]


@pytest.mark.parametrize(("text", "reason"), load("ends"))
def test_the_end_of_a_connection_without_login_is_known(text: str, reason: str) -> None:
    found = read_message(text)
    assert isinstance(found, Failure)
    assert (found.reason, found.is_end, found.pid) == (reason, True, None)


@pytest.mark.parametrize(("text", "reason"), load("troubles"))
def test_what_goes_wrong_before_the_end_is_known(text: str, reason: str) -> None:
    found = read_message(text)
    assert isinstance(found, Failure)
    assert (found.reason, found.is_end) == (reason, False)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Timeout before authentication for connection from 198.51.100.7 to 192.0.2.1, "
         "pid = 4711", "timeout"),
        ("error: session process 4711 for connection from 198.51.100.7 to 192.0.2.1 terminated "
         "abnormally, status=0xb", "other"),
        ("Session process 4711 unpriv child crash for connection from 198.51.100.7 to "
         "192.0.2.1", "other"),
    ],
)  # fmt: skip
def test_the_listener_speaks_of_another_process(text: str, reason: str) -> None:
    found = read_message(text)
    assert isinstance(found, Failure)
    assert (found.reason, found.is_end, found.pid) == (reason, True, 4711)


def test_connections_that_are_turned_away_are_counted_by_sshds_own_sums() -> None:
    drop = "drop connection #10 from [198.51.100.7]:40000 on [192.0.2.1]:22"
    after = "MaxStartups throttling after 00:00:07, 12 connections dropped"
    assert [
        read_message(text)
        for text in (
            "error: beginning MaxStartups throttling",
            "error: in MaxStartups throttling for 00:05:01, 7 connections dropped",
            f"exited {after}",
            f"{drop} penalty: failed authentication",
            f"{drop} past MaxStartups",
            f"{drop} past Maxstartups",
            # Since 10.0.
            f"{drop} Maxstartups",
            "Maxstartups logging rate-limited: additional 4 connections dropped",
            "PerSourcePenalties logging rate-limited: additional 40 connections dropped",
        )
    ] == [
        Dropped(1, "begins"), Dropped(7, "lasts"), Dropped(12, "ends"), Dropped(1, "single"),
        None, None,
        Dropped(1, "single"), Dropped(4, "single"), Dropped(40, "single"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        # Once logged in.
        f"Received disconnect from {FROM}:11: disconnected by user",
        f"Disconnected from user alice {FROM}",
        f"Connection closed by user alice {FROM}",
        f"Timeout, client not responding from user alice {FROM}",
        f"ssh_dispatch_run_fatal: Connection from user alice {FROM}: Connection corrupted",
        "pam_unix(sshd:session): session opened for user alice(uid=1000) by (uid=0)",
        "pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 user=alice",
        # At LogLevel VERBOSE and above.
        f"Connection from {FROM} on 192.0.2.1 port 22 rdomain \"\"",
        f"Postponed publickey for alice from {FROM} ssh2 [preauth]",
        f"Partial publickey for alice from {FROM} ssh2: ED25519 SHA256:x",
        "Accepted key ED25519 SHA256:x found at /home/alice/.ssh/authorized_keys:1",
        "User child is on pid 4711",
        "Starting session: command for alice from 198.51.100.7 port 1 id 0",
        # The listener's own.
        "Server listening on 0.0.0.0 port 22.",
        "fatal: Cannot bind any address.",
        "Received signal 15; terminating.",
        "",
    ],
)  # fmt: skip
def test_other_messages_say_nothing_of_a_login(text: str) -> None:
    assert read_message(text) is None


# What a stranger may choose: a user name (without a colon: sshd cuts it there), a first line, a
# reason to leave. All of it is in the middle of a message.
LIES = [
    "Accepted publickey for root from 192.0.2.9 port 22 ssh2",
    "root from 192.0.2.9 port 22 ssh2\\nAccepted password for root",
    "x from 192.0.2.9 port 1\\r\\n<38>Nov 21 10:00:00 sshd[1]",
    "root by PAM account configuration [preauth]",
    "x not allowed because listed in DenyUsers",
    "invalid user authenticating user root",
    "\\033[2J\\000\\303\\244",
]


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Invalid user {} from {}", "invalid_user"),
        ("Failed password for invalid user {} from {} ssh2", "invalid_user"),
        ("Connection closed by invalid user {} {} [preauth]", "invalid_user"),
        ("Disconnected from invalid user {} {} [preauth]", "invalid_user"),
        ("error: maximum authentication attempts exceeded for invalid user {} from {} ssh2 "
         "[preauth]", "too_many_attempts"),
        ('error: kex_exchange_identification: client sent invalid protocol identifier "{}"',
         "protocol_error"),
    ],
)  # fmt: skip
def test_what_a_stranger_writes_is_not_taken_for_sshds_words(
    lie: str, text: str, reason: str
) -> None:
    found = read_message(text.format(lie, FROM))
    assert isinstance(found, Failure)
    assert found.reason == reason


@pytest.mark.parametrize("lie", LIES)
def test_the_reason_that_a_client_leaves_with_says_nothing(lie: str) -> None:
    assert read_message(f"Received disconnect from {FROM}:11: {lie} [preauth]") is None
