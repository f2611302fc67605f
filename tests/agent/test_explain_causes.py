"""`sentinel-agent explain`: what keeps a user out, on the node or in sshd, is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sentinel_agent.config import Config
from sentinel_agent.explain.case import Case
from sentinel_agent.explain.door import find_sshd
from sentinel_agent.explain.findings import Line
from sentinel_agent.lock.sshd import Sshd
from sentinel_agent.sessions.plan import utc
from tests.agent.booking_server import at, make_grant, make_policy
from tests.agent.desk import CACHE, STATE, Desk, desk, shared
from tests.lab.node import PAM_GATE_SOURCE

__all__ = ["desk", "shared"]  # fixtures


def test_an_own_environment_that_overrides_the_booked_devices_is_named(desk: Desk) -> None:
    grant = make_grant("alice", desk.lab.keys["alice"])
    grant["env"] = {"ASCEND_RT_VISIBLE_DEVICES": "3"}
    desk.put_policy(grant)
    node, path = desk.node, "/home/alice/.ssh/environment"
    node.write(path, "EDITOR=vi\n", owner="alice")
    node.run(["chown", "alice:", "/home/alice/.ssh"])
    assert desk.check("alice", "let-in").topic("environment") == ""
    node.write(path, "EDITOR=vi\n ASCEND_RT_VISIBLE_DEVICES=7\n", owner="alice")
    login = node.ssh("alice", desk.lab.keys["alice"], "echo $ASCEND_RT_VISIBLE_DEVICES")
    assert login.stdout == "7\n"
    wanted = f"{path} overrides ASCEND_RT_VISIBLE_DEVICES of the reservation"
    assert desk.check("alice", "let-in").topic("environment") == wanted
    # Nothing that a user may put there holds the answer up, or shows what is root's.
    node.run(["rm", path])
    node.run(["mkfifo", path])
    assert desk.ask("alice").topic("environment") == ""
    node.run(["rm", path])


def test_an_ignored_user_is_not_ended_and_needs_a_reservation(desk: Desk) -> None:
    said = desk.check("watcher", "no-reservation")
    assert "ignored by the configuration" in said.topic("account")
    desk.put_policy(make_grant("watcher", desk.lab.keys["watcher"]))
    desk.check("watcher", "let-in")


def test_an_account_that_keeps_its_user_out_is_named(desk: Desk) -> None:
    desk.check("carol", "no-account", key="alice")
    desk.check("daemon", "system-account", key="alice")
    for code, change, back in (
        ("shell", "usermod -s /usr/sbin/nologin alice", "usermod -s /bin/bash alice"),
        ("expired", "chage -E 2020-01-01 alice", "chage -E -1 alice"),
        ("password-expired", "chage -d 0 alice", "chage -d 2026-01-01 alice"),
        ("nologin", "touch /run/nologin", "rm /run/nologin"),
    ):
        with desk.changed(change, back):
            desk.check("alice", code)
    desk.check("alice", "let-in")


@pytest.mark.parametrize(
    ("setting", "code"),
    [
        ("AllowUsers ops b*\n", "sshd-allowusers"),
        ("AllowUsers al?ce ops\n", "let-in"),
        ("DenyUsers al*\n", "sshd-denyusers"),
        ("DenyGroups staff alice\n", "sshd-denygroups"),
        ("AllowGroups breakglass\n", "sshd-allowgroups"),
    ],
    ids=str.strip,
)
def test_what_sshd_itself_shuts_out_is_named(desk: Desk, setting: str, code: str) -> None:
    with desk.site_setting(setting):
        said = desk.check("alice", code)
        assert code == "let-in" or setting.split()[1] in str(said.document["verdict"])


def test_gates_that_cannot_work_are_named(desk: Desk) -> None:
    get_keys, pam_gate = "/usr/lib/sentinel/get-keys", "/usr/lib/sentinel/pam-gate"
    for code, change, back in (
        ("get-keys", f"chmod 0777 {get_keys}", f"chmod 0755 {get_keys}"),
        ("get-keys", f"chmod 0644 {get_keys}", f"chmod 0755 {get_keys}"),
        ("pam-gate", f"chmod 0644 {pam_gate}", f"chmod 0755 {pam_gate}"),
    ):
        with desk.changed(change, back):
            said = desk.check("alice", code)
            assert code in said.topic("gates")
    change = f"cp -p {get_keys} /etc/kept; printf '#!/bin/sh\\nexit 1\\n' > {get_keys}"
    with desk.changed(change, f"mv /etc/kept {get_keys}"):
        said = desk.check("alice", "get-keys")
        assert "not the program that sentinel-agent ships" in said.topic("gates")


def test_a_policy_that_opens_nothing_is_named(desk: Desk) -> None:
    with desk.without_agent():
        for code, damage in (
            ("policy-missing", f"rm {CACHE}"),
            ("policy-damaged", f"echo damaged > {CACHE}"),
            ("policy-damaged", f"chmod 0666 {CACHE}"),
            ("access-file", f"rm {STATE}/access"),
            ("access-file", f"sed -i 1q {STATE}/access"),
        ):
            desk.node.run(["sh", "-c", damage])
            said = desk.check("alice", code)
            assert "systemctl start sentinel-agent" in str(said.document["next"])
            assert "does not run" in said.topic("agent")
            desk.node.run(["sh", "-c", f"cp -a /var/kept/. {STATE}"])
        desk.check("ops", "break-glass")
    desk.put_policy(desk.alices, expires_at=at(-1))
    desk.check("alice", "policy-expired")


def test_a_wrong_clock_is_named_where_it_is_the_cause(desk: Desk) -> None:
    """As seen from a node that is an hour slow: see test_failures_time.py."""
    server = desk.lab.server
    late = make_grant("alice", desk.lab.keys["alice"], start_s=3000, end_s=9000)
    with desk.without_agent():
        desk.node.run(["cp", "/dev/stdin", CACHE], stdin=json.dumps(make_policy(late)))
        server.clock_offset_s = 3600
        said = desk.check("alice", "clock")
        assert "this node's clock is 60 min slow" in said.topic("server")
        server.clock_offset_s = 0
        desk.check("alice", "not-yet")


def test_where_nothing_is_locked_it_says_what_a_lock_would_do(desk: Desk) -> None:
    drop_in, service = "/etc/ssh/sshd_config.d/00-sentinel.conf", "/etc/pam.d/sshd"
    node = desk.node
    node.run(["install", "-d", "-o", "bob", "-m", "0700", "/home/bob/.ssh"])
    public = desk.lab.keys["bob"].with_suffix(".pub").read_text()
    node.write("/home/bob/.ssh/authorized_keys", public, mode=0o600, owner="bob")
    desk.put_policy(desk.alices, mode="observe")
    node.run(["mv", drop_in, "/etc/kept"])
    node.run(["cp", "-p", service, "/etc/kept-pam"])
    node.run(["sed", "-i", "/BEGIN ServerSentinel/,/END ServerSentinel/d", service])
    node.reload_sshd()
    try:
        assert desk.lab.is_let_in("bob")
        said = desk.ask("bob")
        assert (said.status, said.document["code"]) == (0, "not-enforced")
        wanted = "in enforce it would refuse bob: bob has no running reservation on this node;"
        assert str(said.document["next"]).startswith(wanted)
        # The site's sshd refuses both here: it looks into their homes only.
        ops, root = desk.ask("ops"), desk.ask("root")
        assert not desk.lab.is_let_in("ops")
        wanted = "whether the site's own sshd lets ops in is not checked"
        assert wanted in str(ops.document["verdict"])
        assert (ops.document["let_in"], ops.document["next"]) == (None, "")
        wanted = "in enforce it would refuse root: /etc/sentinel/breakglass/root: No such file"
        assert str(root.document["next"]).startswith(wanted)
        wanted = "in enforce it would refuse daemon: daemon is a system account"
        with desk.changed("usermod -s /bin/sh daemon", "usermod -s /usr/sbin/nologin daemon"):
            assert str(desk.ask("daemon").document["next"]).startswith(wanted)
        assert said.topic("lock") == "booking asks for observe\nsshd and PAM are open"
        with desk.changed("usermod -s /usr/sbin/nologin bob", "usermod -s /bin/bash bob"):
            desk.check("bob", "shell")
    finally:
        node.run(["mv", "/etc/kept", drop_in])
        node.run(["mv", "/etc/kept-pam", service])
        node.reload_sshd()
    desk.put_policy(desk.alices)
    desk.check("bob", "no-reservation")


def test_each_topic_stands_when_all_others_have_fallen(desk: Desk) -> None:
    with desk.without_agent():
        node = desk.node
        node.run(["cp", "-a", "/etc", "/var/kept-etc"])
        desk.lab.server.stop()
        node.run(["sh", "-c", f"echo x | tee {STATE}/*; echo x= > /etc/sentinel/agent.toml"])
        node.run(["sh", "-c", "rm /usr/lib/sentinel/pam-gate; rm /etc/pam.d/sshd"])
        node.run(["sh", "-c", "echo Nonsense >> /etc/ssh/sshd_config; rm /etc/shadow"])
        said = desk.ask("alice")
        desk.lab.server.start()
        node.run(["sh", "-c", "cp -a /var/kept-etc/. /etc; rm -r /var/kept-etc"])
        node.run(["install", "-m", "0755", str(PAM_GATE_SOURCE), "/usr/lib/sentinel/pam-gate"])
    assert said.status == 1
    for topic, part in (
        ("config", "agent.toml"),
        ("account", "alice, uid "),
        ("sshd", "Nonsense"),
        ("gates", "pam-gate: cannot be read"),
        ("agent", "does not run"),
        ("server", "registration.json is damaged"),
        ("policy", "policy.json is damaged"),
        ("sessions", "nothing of this user's runs"),
    ):
        assert part in said.topic(topic), topic
    desk.check("alice", "let-in")


def test_an_sshd_that_shuts_addresses_out_is_named_with_those_it_spares() -> None:
    """OpenSSH 9.8 and newer, which is not the one that is tested with."""
    case = Case(Config(), "root", utc(0))
    vars(case)["settings"] = {
        "authorizedkeyscommand": ("none",),
        "persourcepenaltyexemptlist": ("127.0.0.1,::1",),
    }
    wanted = Line(
        "an address with failed logins is shut out for a while; exempt: 127.0.0.1,::1"
    )
    for version, is_told in (((9, 7), False), ((9, 8), True), ((10, 0), True)):
        vars(case)["program"] = Sshd(Path("/usr/sbin/sshd"), version)
        assert (wanted in find_sshd(case).lines) == is_told
