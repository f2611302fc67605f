"""`sentinel-agent explain`: what it says of a user is what a login then meets."""

from __future__ import annotations

import json
import re
import signal

from sentinel_agent.install.breakglass_sshd import PAM_TEXT, PROGRAM, render_config
from sentinel_agent.lock.sshd import Sshd, read_version
from sentinel_agent.policy.model import parse_time
from tests.agent.booking_server import at, make_grant, make_policy
from tests.agent.desk import CACHE, STATE, Desk, desk, shared
from tests.lab.wait import wait_for

__all__ = ["desk", "shared"]  # fixtures

LINES_MAX = 40


def test_a_booked_user_gets_in_and_is_told_until_when_and_with_which_key(desk: Desk) -> None:
    said = desk.check("alice", "let-in")
    assert "gets in with the key below, until " in str(said.document["verdict"])
    assert "#12: running until " in said.topic("reservations")
    public = desk.lab.keys["alice"].with_suffix(".pub")
    fingerprint = desk.node.run(["ssh-keygen", "-lf", "/dev/stdin"], stdin=public.read_text())
    assert fingerprint.stdout.split()[1] in said.topic("keys")
    assert public.read_text().split()[1] not in json.dumps(said.document)
    assert "runs; last heartbeat " in said.topic("agent")
    # What it says has whole seconds only, and takes a while to come.
    assert re.search(r"answers; its clock differs by [01]\.\d s,", said.topic("server"))
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
    alice = desk.lab.keys["alice"]
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
