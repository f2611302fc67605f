"""The lock on a real sshd: who gets in, and who does not, by whatever way."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from tests.agent.booking_server import make_grant, make_policy
from tests.agent.conftest import Lab
from tests.lab.node import Node, why_not
from tests.lab.wait import wait_for

CACHE = "/var/lib/sentinel/policy.json"


def test_only_a_booked_user_is_let_in_and_with_the_booked_devices(lab: Lab) -> None:
    lab.server.grant(make_grant("alice", lab.keys["alice"]))
    lab.start_agent()
    shown = lab.node.ssh("alice", lab.keys["alice"], "echo $ASCEND_RT_VISIBLE_DEVICES")
    assert (shown.returncode, shown.stdout) == (0, "0\n"), shown.stderr
    assert not lab.is_let_in("bob")
    assert lab.is_let_in("ops")
    why = "denied user='bob' reason=no running reservation"
    wait_for("the reason is logged", lambda: why in lab.node.syslog())


def test_a_reservation_opens_at_its_start_and_closes_at_its_end(lab: Lab) -> None:
    lab.server.grant(
        make_grant("alice", lab.keys["alice"], end_s=-1),
        make_grant("bob", lab.keys["bob"], start_s=60),
    )
    lab.start_agent()
    assert not lab.is_let_in("alice")
    assert not lab.is_let_in("bob")
    lab.server.grant(make_grant("alice", lab.keys["alice"], start_s=2, end_s=6))
    lab.wait_for_policy()
    assert not lab.is_let_in("alice")
    wait_for("the reservation begins", lambda: lab.is_let_in("alice"))
    wait_for("the reservation ends", lambda: not lab.is_let_in("alice"))


def test_another_users_key_opens_nothing(lab: Lab) -> None:
    lab.server.grant(make_grant("alice", lab.keys["alice"]), make_grant("bob", lab.keys["bob"]))
    lab.start_agent()
    assert lab.is_let_in("bob", key="bob")
    assert not lab.is_let_in("bob", key="alice")
    assert not lab.is_let_in("ops", key="alice")
    assert not lab.is_let_in("root", key="alice")


def test_a_damaged_cache_lets_nobody_in_but_the_operator(lab: Lab) -> None:
    lab.server.grant(make_grant("alice", lab.keys["alice"]))
    lab.start_agent()
    assert lab.is_let_in("alice")
    lab.node.stop_agent()
    whole = lab.cache()
    for damage in (f"rm {CACHE}", f"truncate -s 100 {CACHE}", f"chmod 0666 {CACHE}"):
        lab.node.run(["sh", "-c", damage])
        assert not lab.is_let_in("alice"), damage
        assert lab.is_let_in("ops"), damage
        lab.node.run(["rm", "-f", CACHE])
        lab.node.write(CACHE, whole, mode=0o640)
        lab.node.run(["chgrp", "sentinel-akc", CACHE])
    assert lab.is_let_in("alice")


def test_the_running_agent_mends_the_cache(lab: Lab) -> None:
    lab.server.grant(make_grant("alice", lab.keys["alice"]))
    lab.start_agent()
    for damage in (f"rm {CACHE}", f"chmod 0666 {CACHE}", f"echo x > {CACHE}"):
        lab.node.run(["sh", "-c", damage])
        wait_for(f"mended after: {damage}", lambda: lab.is_let_in("alice"))


def test_sshd_is_answered_while_the_agent_is_dead(lab: Lab) -> None:
    lab.server.grant(make_grant("alice", lab.keys["alice"]))
    lab.start_agent()
    lab.node.stop_agent(signal.SIGKILL)
    assert lab.is_let_in("alice")
    assert not lab.is_let_in("bob")


def test_a_service_account_gets_in_by_no_reservation(lab: Lab) -> None:
    lab.node.run(["useradd", "--system", "--create-home", "--shell", "/bin/bash", "backups"])
    lab.server.grant(make_grant("backups", lab.keys["alice"]))
    lab.start_agent()
    assert not lab.is_let_in("backups", key="alice")
    why = "denied user='backups' reason=system account"
    wait_for("the reason is logged", lambda: why in lab.node.syslog())


def test_grants_that_overlap_give_all_their_devices_and_no_more(lab: Lab) -> None:
    first = {"ASCEND_RT_VISIBLE_DEVICES": "10,2", "CUDA_VISIBLE_DEVICES": ""}
    later = {"ASCEND_RT_VISIBLE_DEVICES": "7", "CUDA_VISIBLE_DEVICES": "GPU-1"}
    lab.server.grant(
        make_grant("alice", lab.keys["alice"], env=first),
        make_grant("alice", lab.keys["alice"], env={"ASCEND_RT_VISIBLE_DEVICES": "0,2"}),
        make_grant("alice", lab.keys["alice"], start_s=60, env=later),
    )
    lab.start_agent()
    shown = lab.node.ssh("alice", lab.keys["alice"], "env").stdout.splitlines()
    assert "ASCEND_RT_VISIBLE_DEVICES=0,2,10" in shown
    # Empty, and there: without the variable all cards would be seen.
    assert "CUDA_VISIBLE_DEVICES=" in shown


@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
def test_ways_round_the_lock_work_without_it_and_not_with_it(tmp_path: Path) -> None:
    """Own authorized_keys, a password, and a site's own Match block; booked or not."""
    with Node("gpu-01", tmp_path) as node:
        key = node.make_key("alice")
        node.add_user("alice", password="alice-password")
        node.run(["install", "-d", "-o", "alice", "-m", "0700", "/home/alice/.ssh"])
        public = key.with_suffix(".pub").read_text()
        node.write("/home/alice/.ssh/authorized_keys", public, mode=0o600, owner="alice")
        node.write("/etc/ssh/site_keys", public)
        node.start_sshd()

        def own_key() -> bool:
            return node.ssh("alice", key, "true").returncode == 0

        def password() -> bool:
            node.folder.joinpath("askpass").write_text("#!/bin/sh\necho alice-password\n")
            node.folder.joinpath("askpass").chmod(0o755)
            # ssh takes the first value of an option.
            options = ("-o", "BatchMode=no", "-o", "PreferredAuthentications=password")
            argv = node.ssh_argv("alice", None, *options)
            return subprocess.run(
                [*argv, "true"], stdin=subprocess.DEVNULL, capture_output=True, check=False,
                env={"SSH_ASKPASS": str(node.folder / "askpass"),
                     "SSH_ASKPASS_REQUIRE": "force", "PATH": "/usr/bin:/bin"},
            ).returncode == 0  # fmt: skip

        assert own_key()
        assert password()
        node.install_lock()
        node.write_policy(make_policy())
        site = (node.root / "etc/ssh/sshd_config").read_text()
        site += "Match User alice\n  AuthorizedKeysFile /etc/ssh/site_keys\n"
        site += "  PasswordAuthentication yes\n"
        node.write("/etc/ssh/sshd_config", site)
        node.run(["/usr/sbin/sshd", "-t"])
        node.reload_sshd()
        assert not own_key()
        assert not password()
        node.write_policy(make_policy(make_grant("alice", key)))
        assert own_key()
        assert not password()
