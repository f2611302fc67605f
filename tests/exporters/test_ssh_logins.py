"""Counting logins: one connection is one login or one failure, for the first of its reasons."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from sentinel_exporters.ssh.logins import OTHERS, USERS_MAX, LoginCounts
from sentinel_exporters.ssh.messages import REASONS

FROM = "198.51.100.7 port 40000"
ACCEPTED = f"Accepted publickey for alice from {FROM} ssh2: ED25519 SHA256:x"
INVALID = f"Invalid user x from {FROM}"
INVALID_LEAVES = f"Connection closed by invalid user x {FROM} [preauth]"
WRONG_PASSWORD = f"Failed password for alice from {FROM} ssh2"
ALICE_LEAVES = f"Connection closed by authenticating user alice {FROM} [preauth]"
DENIED = "User alice from h not allowed because not listed in AllowUsers"


def name_of(logged: str) -> str | None:
    return None if logged.startswith("ghost") else logged


def count(*messages: str, pid: int = 7) -> LoginCounts:
    counts = LoginCounts(name_of)
    for message in messages:
        counts.take(pid, message, 0)
    return counts


def failures(counts: LoginCounts) -> dict[str, int]:
    return {reason: n for reason, n in counts.failures.items() if n}


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([INVALID, INVALID_LEAVES], "invalid_user"),
        ([INVALID_LEAVES], "invalid_user"),
        # sshd asks even a user whom it refuses, and says `invalid user` of that one too.
        ([DENIED, "Failed password for invalid user alice from h", INVALID_LEAVES],
         "refused_by_policy"),
        ([WRONG_PASSWORD, WRONG_PASSWORD, ALICE_LEAVES], "wrong_password"),
        ([ALICE_LEAVES], "wrong_key"),
        ([f"Failed publickey for alice from {FROM} ssh2", WRONG_PASSWORD, ALICE_LEAVES],
         "wrong_password"),
        ([WRONG_PASSWORD, "error: maximum authentication attempts exceeded for alice",
          f"Disconnecting authenticating user alice {FROM}: Too many authentication failures "
          "[preauth]"], "too_many_attempts"),
        ([WRONG_PASSWORD, f"fatal: Timeout before authentication for {FROM}"], "timeout"),
        (["error: kex_exchange_identification: Connection closed by remote host",
          f"Connection closed by {FROM}"], "disconnect_before_auth"),
        (['error: kex_exchange_identification: client sent invalid protocol identifier "GET"',
          f"banner exchange: Connection from {FROM}: invalid format"], "protocol_error"),
        (["Failed publickey for alice from h",
          "fatal: Access denied for user alice by PAM account configuration [preauth]"],
         "refused_by_policy"),
    ],
)  # fmt: skip
def test_a_connection_without_login_is_one_failure(messages: list[str], reason: str) -> None:
    counts = count(*messages)
    assert failures(counts) == {reason: 1}
    assert counts.logins == {}


def test_a_mistyped_password_before_a_login_is_no_failure() -> None:
    counts = count(WRONG_PASSWORD, ACCEPTED)
    assert failures(counts) == {}
    assert counts.logins == {("alice", "publickey"): 1}


def test_no_failure_comes_after_a_login_or_after_the_end() -> None:
    leaves = f"Connection closed by {FROM}"
    assert failures(count(ACCEPTED, leaves)) == {}
    assert failures(count(INVALID, INVALID_LEAVES, leaves, INVALID_LEAVES)) == {
        "invalid_user": 1
    }


def test_a_pid_may_belong_to_another_connection_later() -> None:
    counts = count(INVALID, INVALID_LEAVES)
    counts.take(7, ACCEPTED, 1)
    counts.take(7, ALICE_LEAVES, 60)
    assert failures(counts) == {"invalid_user": 1, "wrong_key": 1}
    assert counts.logins == {("alice", "publickey"): 1}


def test_connections_at_the_same_time_are_told_apart() -> None:
    counts = LoginCounts(name_of)
    for pid, message in ((1, INVALID), (2, WRONG_PASSWORD), (3, ACCEPTED), (2, ALICE_LEAVES),
                         (1, INVALID_LEAVES)):  # fmt: skip
        counts.take(pid, message, 0)
    assert failures(counts) == {"invalid_user": 1, "wrong_password": 1}
    assert counts.logins.total() == 1


def test_the_listener_tells_of_a_connections_end() -> None:
    counts = count(WRONG_PASSWORD, pid=4711)
    counts.take(1, "Timeout before authentication for connection from a to b, pid = 4711", 9)
    counts.take(4711, ALICE_LEAVES, 9)
    assert failures(counts) == {"timeout": 1}


def test_a_connection_whose_end_is_not_told_is_counted_after_a_while() -> None:
    counts = count(INVALID)
    assert failures(counts) == {}
    counts.settle(1000)
    assert failures(counts) == {"invalid_user": 1}


def test_throttled_connections_are_counted_once() -> None:
    counts = count(
        "error: beginning MaxStartups throttling",
        "error: in MaxStartups throttling for 00:05:01, 7 connections dropped",
        "exited MaxStartups throttling after 00:05:07, 12 connections dropped",
        "error: beginning MaxStartups throttling",
    )
    assert failures(counts) == {"throttled": 13}


def test_a_throttling_that_began_before_us_counts_from_the_first_sum_on() -> None:
    counts = count(
        "error: in MaxStartups throttling for 01:05:01, 7000 connections dropped",
        "exited MaxStartups throttling after 01:05:07, 7002 connections dropped",
    )
    assert failures(counts) == {"throttled": 2}


def test_a_user_without_account_has_no_series() -> None:
    counts = count(ACCEPTED.replace("alice", "ghost1"), ACCEPTED.replace("alice", "ghost2"))
    assert counts.logins == {(OTHERS, "publickey"): 2}


def login_of_each(users: Iterable[str]) -> LoginCounts:
    return count(*(ACCEPTED.replace("alice", user) for user in users))


def test_the_number_of_series_is_bounded() -> None:
    counts = login_of_each(f"u{number}" for number in range(USERS_MAX + 50))
    assert len(counts.logins) == USERS_MAX + 1
    assert counts.logins[OTHERS, "publickey"] == 50
    assert set(counts.failures) == set(REASONS)


def test_a_flood_of_connections_that_never_end_is_forgotten_and_counted() -> None:
    counts = LoginCounts(name_of)
    for pid in range(10_000):
        counts.take(pid, INVALID, 0)
    known = failures(counts)["invalid_user"]
    assert 5_000 < known < 10_000
    counts.settle(1000)
    assert failures(counts) == {"invalid_user": 10_000}
