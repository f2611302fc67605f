"""get-keys: what it prints for whom, and that everything odd denies."""

from __future__ import annotations

import ast
import json
import re
import subprocess
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentinel_agent.gates import get_keys
from sentinel_agent.gates.get_keys import Denied, authorized_keys
from sentinel_agent.policy.model import Policy, encode, format_time
from tests.agent.booking_server import at, make_grant, make_policy
from tests.agent.policies import (
    KEYS,
    NOON,
    build_policy,
    grant_document,
    minutes,
    policies,
    policy_document,
    running_grants,
)
from tests.lab.node import GET_KEYS, Node
from tests.lab.wait import wait_for

CACHE = "/var/lib/sentinel/policy.json"
LINE = re.compile(
    r"restrict,pty,port-forwarding,agent-forwarding,X11-forwarding,"
    r'expiry-time="(?P<expiry>\d{14})Z"(?P<env>(?:,environment="[A-Z_]+=[^"\s]*")*) '
    r"(?P<key>\S+ \S+)\n"
)


def ask(policy: Policy | object, user: str = "alice", now: datetime = NOON) -> list[str]:
    """Return the lines for the user as get-keys reads the policy from the cache's text."""
    text = encode(policy) if isinstance(policy, Policy) else json.dumps(policy)
    return authorized_keys(json.loads(text), user, get_keys.read_time(format_time(now)))


def is_let_in(policy: Policy, user: str, now: datetime) -> bool:
    try:
        return bool(ask(policy, user, now))
    except Denied as denial:
        assert not denial.is_odd
        return False


@given(policies(), st.integers(-90, 90))
def test_who_is_let_in_is_who_has_a_running_grant_with_a_key(policy: Policy, at: int) -> None:
    now = minutes(at)
    for user in ("alice", "bob", "carol"):
        has_key = any(grant.keys for grant in running_grants(policy, user, now))
        assert is_let_in(policy, user, now) == has_key


@given(policies())
def test_each_key_has_one_line_with_all_devices_held_now(policy: Policy) -> None:
    held = running_grants(policy, "alice", NOON)
    if not is_let_in(policy, "alice", NOON):
        return
    lines = [LINE.fullmatch(line) for line in ask(policy)]
    assert all(lines)
    keys = [line["key"] for line in lines if line]
    assert sorted(keys) == sorted({key for grant in held for key in grant.keys})
    for line in lines:
        assert line
        wanted: set[int] = set()
        for grant in held:
            if line["key"] in grant.keys:
                value = grant.env["ASCEND_RT_VISIBLE_DEVICES"]
                wanted |= {int(card) for card in value.split(",") if card}
        cards = ",".join(map(str, sorted(wanted)))
        assert line["env"] == f',environment="ASCEND_RT_VISIBLE_DEVICES={cards}"'


def test_the_expiry_is_the_end_of_the_grants_that_follow_without_a_gap() -> None:
    policy = build_policy(
        grant_document("alice", 60, 90),
        grant_document("alice", -30, 30),
        grant_document("alice", 30, 60),
        grant_document("alice", 91, 120),
        grant_document("bob", 90, 200),
    )
    assert 'expiry-time="20260301133000Z"' in ask(policy)[0]


def test_a_grant_begins_at_its_start_and_is_over_at_its_end() -> None:
    policy = build_policy(grant_document("alice", 0, 1))
    moment = timedelta(microseconds=1)
    assert not is_let_in(policy, "alice", NOON - moment)
    assert is_let_in(policy, "alice", NOON)
    assert is_let_in(policy, "alice", minutes(1) - moment)
    assert not is_let_in(policy, "alice", minutes(1))


def test_an_expired_policy_lets_nobody_in() -> None:
    policy = build_policy(grant_document("alice", -1, 60), expires_at=format_time(NOON))
    with pytest.raises(Denied, match="expired"):
        ask(policy)


ODD_GRANTS = {
    "key with an option": {"keys": ['command="id" ssh-ed25519 AAAA']},
    "key with a second line": {"keys": ["ssh-ed25519 AAAA\nssh-ed25519 BBBB"]},
    "key that ends its line": {"keys": ["ssh-ed25519 AAAA\n"]},
    "keys that are no list": {"keys": KEYS[0]},
    "key that is no text": {"keys": [None]},
    "no keys": {"keys": None},
    "preload": {"env": {"LD_PRELOAD": "/tmp/x"}},
    "quote": {"env": {"CUDA_VISIBLE_DEVICES": '0",command="id'}},
    "line end": {"env": {"CUDA_VISIBLE_DEVICES": "0\n"}},
    "env that is no object": {"env": []},
    "local time": {"not_after": "2026-03-01T13:00:00+08:00"},
    "no such time": {"not_after": "2026-13-01T13:00:00Z"},
    "no such hour": {"not_before": "2026-03-01T24:00:00Z"},
    "time that is a number": {"not_after": 1772370000},
    "digits of another script": {"not_after": "2026-03-01T13:00:0\u0660Z"},
}


@pytest.mark.parametrize("odd", ODD_GRANTS.values(), ids=ODD_GRANTS)
def test_an_odd_grant_denies_its_user_and_nobody_else(odd: dict[str, object]) -> None:
    bad = grant_document("alice", -1, 60) | odd
    document = policy_document(
        grant_document("alice", -1, 60), bad, grant_document("bob", -1, 60)
    )
    with pytest.raises(Denied) as denial:
        ask(document)
    assert denial.value.is_odd
    assert ask(document, "bob")


@pytest.mark.parametrize(
    "odd",
    [[], "text", None, {}, policy_document(grants={}), policy_document(grants=[1]),
     policy_document(expires_at=None), policy_document(expires_at="never")],
    ids=str,
)  # fmt: skip
def test_an_odd_policy_denies(odd: object) -> None:
    with pytest.raises(Denied) as denial:
        ask(odd)
    assert denial.value.is_odd


@pytest.mark.parametrize(
    "name",
    ["", "../x", "alice\n", "alice bob", "-alice", "Alice", "a" * 33, "alice;id", "al\0ice",
     "аlice", "root", "daemon"],
    ids=ascii,
)  # fmt: skip
def test_only_a_person_s_plain_account_name_is_looked_up(name: str) -> None:
    with pytest.raises(Denied):
        get_keys.check_user(name)


def test_the_source_is_for_python_3_7_and_imports_little() -> None:
    source = GET_KEYS.read_text()
    tree = ast.parse(source, feature_version=(3, 7))

    def imported(nodes: Iterable[ast.AST]) -> set[str]:
        names: set[str] = set()
        for node in nodes:
            match node:
                case ast.Import():
                    names |= {alias.name for alias in node.names}
                case ast.ImportFrom():
                    names.add(str(node.module))
        return names

    # What the top level asks for is paid for at each login.
    always = {"__future__", "os", "pwd", "stat", "sys", "syslog", "time"}
    assert imported(tree.body) == always
    assert imported(ast.walk(tree)) == always | {
        "_signal", "signal", "_socket", "_json", "json", "datetime"
    }  # fmt: skip
    assert source.startswith("#!/usr/bin/python3 -IS\n")


def write_cache(node: Node, text: str) -> None:
    node.run(["rm", "-rf", CACHE])
    node.write(CACHE, text, mode=0o640)
    node.run(["chgrp", "sentinel-akc", CACHE])
    node.run(["chown", "root", "/var/lib/sentinel"])
    node.run(["chmod", "0750", "/var/lib/sentinel"])


def run_get_keys(node: Node, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["/usr/lib/sentinel/get-keys", *arguments]
    return node.run(command, user="sentinel-akc", check=False)


BOOKED = make_policy(make_grant("alice", KEYS[0]))
DAMAGES = {
    "missing": "rm {0}",
    "cut short": "truncate -s 100 {0}",
    "empty": "truncate -s 0 {0}",
    "binary": "head -c 100000 /dev/urandom > {0}",
    "deeply nested": "printf '%0200000d' 0 | tr 0 [ > {0}",
    "too large": "truncate -s 40M {0}",
    "writable to all": "chmod 0646 {0}",
    "writable to the group": "chmod 0660 {0}",
    "the user's own": "chown alice {0}; chmod 0644 {0}",
    "behind a link": "mv {0} {0}.real && ln -s {0}.real {0}",
    "a folder": "rm {0} && mkdir {0}",
    "a pipe": "rm {0} && mkfifo -m 0644 {0}",
    "in a folder that all may write": "chmod 0777 /var/lib/sentinel",
    "in the user's folder": "chown alice /var/lib/sentinel; chmod 0755 /var/lib/sentinel",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_cache_that_cannot_be_trusted_denies(node: Node, damage: str) -> None:
    write_cache(node, json.dumps(BOOKED))
    assert LINE.fullmatch(run_get_keys(node, "alice").stdout)
    node.run(["sh", "-c", damage.format(CACHE)])
    before = node.syslog()
    done = run_get_keys(node, "alice")
    assert (done.returncode, done.stdout) == (1, "")
    logged = wait_for("it is logged", lambda: node.syslog().removeprefix(before))
    assert "denied user='alice' reason=" in logged


def test_odd_arguments_print_nothing(node: Node) -> None:
    write_cache(node, json.dumps(BOOKED))
    for arguments in ([], ["alice", "bob"], ["../alice"], ["alice\n"], [""], ["root"]):
        done = run_get_keys(node, *arguments)
        assert (done.returncode, done.stdout) == (1, ""), arguments
    assert (run_get_keys(node, "nobody-here").returncode) == 0


def test_the_reason_of_a_denial_holds_no_line_of_the_users(node: Node) -> None:
    run_get_keys(node, "x\nforged line " + "y" * 500)
    wait_for("it is logged", lambda: "forged" in node.syslog())
    (line,) = (line for line in node.syslog().splitlines() if "forged" in line)
    assert "denied user='x\\nforged line yyy" in line
    assert len(line) < 250


def test_it_ends_itself_when_it_hangs(node: Node) -> None:
    many = [f"ssh-ed25519 AAAA{number:0100}" for number in range(2000)]
    write_cache(node, json.dumps(make_policy(make_grant("alice", *many))))
    assert run_get_keys(node, "alice").stdout.count("\n") == len(many)
    # Nobody reads the pipe, and it is too small for the answer.
    command = ["/usr/lib/sentinel/get-keys", "alice"]
    with subprocess.Popen(node.argv(command), stdout=subprocess.PIPE) as hung:
        assert hung.wait(30) in (-14, 128 + 14)


def test_the_program_answers_by_the_clock(node: Node) -> None:
    write_cache(node, json.dumps(make_policy(make_grant("alice", KEYS[0], start_s=3600))))
    assert run_get_keys(node, "alice").stdout == ""
    write_cache(node, json.dumps(BOOKED | {"expires_at": at(-1)}))
    assert run_get_keys(node, "alice").returncode == 1


def test_the_installed_file_is_this_one(node: Node) -> None:
    installed = Path(node.root / "usr/lib/sentinel/get-keys")
    assert installed.read_bytes() == GET_KEYS.read_bytes()
    assert installed.stat().st_mode & 0o7777 == 0o755
