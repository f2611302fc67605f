"""`sentinel-agent explain`: what it says of a user is what a login then meets."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from sentinel_agent.config import Config
from sentinel_agent.explain.case import Case
from sentinel_agent.explain.door import find_sshd
from sentinel_agent.explain.findings import Line
from sentinel_agent.install.breakglass_sshd import PAM_TEXT, PROGRAM, render_config
from sentinel_agent.lock.sshd import Sshd, read_version
from sentinel_agent.policy.model import parse_time
from sentinel_agent.sessions.plan import utc
from tests.agent.booking_server import at, make_grant, make_policy
from tests.agent.desk import CACHE, STATE, Desk, desk_in
from tests.lab.node import PAM_GATE_SOURCE, why_not
from tests.lab.wait import wait_for

LINES_MAX = 40


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """One node for all; each test puts back what it changes."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    with desk_in(tmp_path_factory.mktemp("explain")) as desk:
        yield desk


@pytest.fixture(autouse=True)
def _alice_holds_a_reservation(request: pytest.FixtureRequest) -> None:
    if "desk" in request.fixturenames:
        desk: Desk = request.getfixturevalue("desk")
        if desk.lab.server.policy["grants"] != [desk.alices]:
            desk.put_policy(desk.alices)


def test_a_booked_user_gets_in_and_is_told_until_when_and_with_which_key(desk: Desk) -> None:
    said = desk.check("alice", "let-in")
    assert "gets in with the key below, until " in str(said.document["verdict"])
    assert "#12: running until " in said.topic("reservations")
    public = desk.lab.keys["alice"].with_suffix(".pub")
    fingerprint = desk.node.run(["ssh-keygen", "-lf", "/dev/stdin"], stdin=public.read_text())
    assert fingerprint.stdout.split()[1] in said.topic("keys")
    assert public.read_text().split()[1] not in json.dumps(said.document)
    assert "runs; last heartbeat " in said.topic("agent")
    assert "answers; its clock differs by 0." in said.topic("server")
    assert said.topic("lock") == "booking asks for enforce\nsshd and PAM are locked"


def test_who_has_no_reservation_is_told_where_to_book(desk: Desk) -> None:
    assert not desk.lab.is_let_in("bob")
    said = desk.check("bob", "no-reservation")
    assert said.document["next"] == f"book it at {desk.lab.server.url}"
    refused = desk.ask("bob").topic("refused").splitlines()
    assert re.fullmatch(
        r"\d\d:\d\d get-keys: no running reservation( \(\d+ times\))?", refused[-1]
    )
    assert said.topic("keys") == "none here: keys come with a reservation"
    # To ask about somebody is no try to log in.
    assert desk.ask("bob").topic("refused").splitlines() == refused
    assert "sentinel-check" not in desk.node.syslog()
    assert desk.ask("sentinel-check").topic("refused") == ""


def test_who_comes_too_early_is_told_when(desk: Desk) -> None:
    grant = make_grant("alice", desk.lab.keys["alice"], start_s=900)
    desk.put_policy(grant)
    said = desk.check("alice", "not-yet")
    starts = parse_time(grant["not_before"]).astimezone()
    assert str(said.document["next"]).endswith(f"{starts:%H:%M}")


def test_who_has_no_key_or_none_that_sshd_takes_is_told_so(desk: Desk) -> None:
    desk.put_policy(make_grant("alice"))
    said = desk.check("alice", "no-key")
    assert said.document["next"] == f"add a key at {desk.lab.server.url}"
    desk.put_policy(make_grant("alice", "ssh-dss AAAAB3NzaC1kc3M="))
    desk.check("alice", "key-type")


def test_whoever_waits_for_a_former_holder_is_told_for_whom_and_how_long(desk: Desk) -> None:
    """bob's process cannot be ended: it is stopped in a vfork(2), say; here nobody ends it."""
    bob, alice = desk.lab.keys["bob"], desk.lab.keys["alice"]
    with desk.without_agent():
        grant = make_grant("alice", alice, start_s=-5) | {"opens_at": at(55)}
        policy = make_policy(grant, version=9)
        desk.node.run(["cp", "/dev/stdin", CACHE], stdin=json.dumps(policy))
        desk.node.run(["sh", "-c", f"sed -i 1q {STATE}/access"])
        device = grant["devices"][0]["uuid"]  # type: ignore[index]
        touched = {"users": {"bob": 1002}, "touched": {"bob": [device]}}
        desk.node.run(["cp", "/dev/stdin", f"{STATE}/granted.json"], stdin=json.dumps(touched))
        said = desk.check("alice", "held-back")
    assert "waits for what bob left running" in str(said.document["verdict"])
    assert "at the latest" in str(said.document["next"])
    assert bob


def test_break_glass_is_never_refused_and_its_keys_are_found_or_not(desk: Desk) -> None:
    said = desk.check("ops", "break-glass")
    assert "member of breakglass" in said.topic("account")
    public = desk.lab.keys["ops"].with_suffix(".pub").read_text()
    fingerprint = desk.node.run(["ssh-keygen", "-lf", "/dev/stdin"], stdin=public).stdout
    assert fingerprint.split()[1] in said.topic("keys")
    desk.lab.keys["root"] = desk.lab.keys["alice"]
    said = desk.check("root", "break-glass-key")
    assert "/etc/sentinel/breakglass/root" in str(said.document["next"])
    with desk.changed("chmod 0666 /etc/sentinel/breakglass/ops",
                      "chmod 0644 /etc/sentinel/breakglass/ops"):  # fmt: skip
        desk.check("ops", "break-glass-key")


def test_while_no_sshd_listens_it_says_so_and_where_operators_get_in(desk: Desk) -> None:
    """ssh.service stopped, by an operator or by a mistake; sshd's folder goes with it."""
    node = desk.node
    assert desk.ask("ops").topic("ports").endswith("the break-glass sshd is not installed")
    config = render_config(Sshd(PROGRAM, read_version("/usr/sbin/sshd")), "breakglass", 2222)
    node.write("/etc/sentinel/breakglass-sshd.conf", config)
    node.write("/etc/pam.d/sentinel-breakglass", PAM_TEXT)
    node.run(["ln", "-s", "/usr/sbin/sshd", str(PROGRAM)])
    assert desk.ask("ops").topic("ports") == "port 22: sshd listens\nport 2222: does not answer"
    second = node.popen([str(PROGRAM), "-D", "-e", "-f", "/etc/sentinel/breakglass-sshd.conf"])
    key = desk.lab.keys["ops"]
    wait_for(
        "it greets", lambda: node.ssh("ops", key, "true", options=["-p2222"]).returncode == 0
    )
    both = "port 22: sshd listens\nport 2222: gets in"
    assert desk.check("ops", "break-glass").topic("ports") == both
    assert "port 2222: answers, and does not let in: " in desk.ask("root").topic("ports")
    assert desk.check("alice", "let-in").topic("ports") == "port 22: sshd listens"

    assert node.sshd is not None
    node.send_signal(node.sshd, signal.SIGTERM)
    node.sshd.wait(10)
    said = desk.check("ops", "sshd-down")
    down = "no sshd listens on port 22; its configuration is sound"
    assert said.document["verdict"] == down
    assert str(said.document["next"]).startswith("log in on port 2222 (`ssh -p 2222`); see ")
    assert said.topic("ports") == "port 22: no sshd listens\nport 2222: gets in"
    said = desk.check("alice", "sshd-down")
    assert said.document["verdict"] == down
    assert str(said.document["next"]).startswith("ask the operators of this node: see ")
    with desk.changed("echo Nonsense > /etc/ssh/sshd_config.d/60-a.conf",
                      "rm /etc/ssh/sshd_config.d/60-a.conf"):  # fmt: skip
        verdict = str(desk.check("ops", "sshd-down").document["verdict"])
        assert "port 22, and its configuration is not sound: " in verdict
        assert "Nonsense" in verdict
    with desk.changed("rmdir /run/sshd", "mkdir -m 0755 /run/sshd"):
        said = desk.check("ops", "sshd-down")
        assert said.document["verdict"] == down
        assert said.topic("ports").endswith("port 2222: does not answer: /run/sshd is missing")
        assert not (node.root / "run/sshd").exists()
    node.send_signal(second, signal.SIGTERM)
    second.wait(10)
    node.run(["rm", "/etc/sentinel/breakglass-sshd.conf"])
    node.start_sshd()
    wait_for("sshd lets in", lambda: desk.lab.is_let_in("alice"))
    desk.check("alice", "let-in")


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


def test_sessions_that_are_open_and_what_becomes_of_them_are_told(desk: Desk) -> None:
    with desk.lab.session("alice"):
        said = desk.check("alice", "let-in")
        assert "1 SSH connection, " in said.topic("sessions")
        assert "; ended at " in said.topic("sessions")
    with desk.lab.session("ops"):
        assert desk.ask("ops").topic("sessions").endswith("; never ended")


def test_cards_are_shown_as_their_device_files_are_now(desk: Desk) -> None:
    with desk.changed("mknod -m 0600 /dev/davinci0 c 1 3", "rm /dev/davinci0"):
        wait_for(
            "the agent lets alice to it",
            lambda: "alice" in desk.node.run(["getfacl", "-p", "/dev/davinci0"]).stdout,
        )
        assert desk.ask("alice").topic("cards") == "/dev/davinci0: open to alice"
        with desk.without_agent():
            # A chmod takes away what the entry gives.
            desk.node.run(["chmod", "0600", "/dev/davinci0"])
            assert desk.ask("alice").topic("cards") == "/dev/davinci0: closed to alice"
    assert desk.ask("bob").topic("cards") == ""


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


def test_a_person_reads_it_on_one_screen_with_the_answer_first(desk: Desk) -> None:
    done = desk.node.run(desk.node.agent_argv("explain", "bob"), check=False)
    lines = done.stdout.splitlines()
    assert lines[0].startswith("bob on gpu-01, ")
    assert lines[1] == "REFUSED: bob has no running reservation on this node"
    assert lines[2].startswith("Next: book it at http://")
    assert len(lines) <= LINES_MAX
    assert done.stderr == ""


def test_names_that_are_none_are_refused_and_nothing_is_run_with_them(desk: Desk) -> None:
    for name in ("../alice", "alice,host=x", "-alice"):
        argv = desk.node.agent_argv("explain", "--json", "--", name)
        done = desk.node.run(argv, check=False)
        assert done.returncode == 1
        assert json.loads(done.stdout)["code"] == "no-account"


def test_whoever_is_not_root_is_told_that_it_is_for_root(desk: Desk) -> None:
    argv = desk.node.agent_argv("explain", "alice")
    done = desk.node.run(argv, user="alice", check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "explain is for root" in done.stderr
