"""A node on which the lock was installed: what the agent keeps right there."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.agent.booking_server import CODE, make_grant
from tests.agent.install_lab import InstallLab, install_lab
from tests.agent.lock_lab import DROP_IN
from tests.lab.node import why_not
from tests.lab.wait import wait_for

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[InstallLab]:
    with install_lab(tmp_path) as made:
        yield made


def is_reported(lab: InstallLab, text: str) -> bool:
    """Say whether the last heartbeat tells of a repair of this."""
    return "put back: " in lab.problems() and text in lab.problems()


def test_what_drifts_is_put_back_and_reported(lab: InstallLab) -> None:
    lab.server.policy["mode"] = "enforce"
    assert lab.install().returncode == 0
    lab.start_agent()
    wait_for("it is locked", lambda: lab.lock() == "locked")
    site = lab.tree("etc/ssh", "etc/pam.d")
    for planted, said in (
        (f"sed -i '/AuthorizedKeysCommand /d' {DROP_IN}", "is not as it should be"),
        ("sed -i '/ServerSentinel/,/ServerSentinel/d' /etc/pam.d/sshd", "pam-gate"),
    ):
        lab.node.run(["sh", "-ec", planted])
        wait_for(f"{planted} is put back", lambda: lab.tree("etc/ssh", "etc/pam.d") == site)
        wait_for("it is reported", partial(is_reported, lab, said))
        wait_for("it is locked again", lambda: lab.lock() == "locked")
    lab.node.write("/etc/ssh/sshd_config.d/00-aaa.conf", "Match User alice\n  Banner none\n")
    wait_for("ours is read first", lambda: "00-aaa.conf" in lab.problems())
    wait_for("it is locked again", lambda: lab.lock() == "locked")
    assert not lab.is_let_in("alice")
    assert lab.is_let_in("ops")
    lab.node.stop_agent()


def test_a_lock_that_cannot_be_made_is_reported_and_made_when_it_can(lab: InstallLab) -> None:
    assert lab.install().returncode == 0
    lab.node.run(["mv", "/etc/sentinel/breakglass/ops", "/var/keys/kept"])
    lab.start_agent()
    lab.server.grant(mode="enforce")
    wait_for("it is reported", lambda: "no account has a usable key" in lab.problems())
    assert lab.lock() == "open"
    assert lab.is_let_in("alice")
    lab.node.run(["mv", "/var/keys/kept", "/etc/sentinel/breakglass/ops"])
    wait_for("it is locked", lambda: lab.lock() == "locked")
    wait_for("nothing is wrong", lambda: "usable key" not in lab.problems())
    lab.node.stop_agent()


def test_a_change_that_was_cut_off_is_undone_when_the_agent_starts(lab: InstallLab) -> None:
    assert lab.install().returncode == 0
    before = lab.tree("etc/ssh", "etc/pam.d")
    journal = {"files": {DROP_IN: False}, "note": ""}
    lab.node.write("/var/lib/sentinel/lock-change.json", json.dumps(journal), mode=0o600)
    lab.node.write(DROP_IN, "# half of it\n")
    lab.start_agent()
    wait_for("it is reported", lambda: "was cut off is undone" in lab.problems())
    assert lab.tree("etc/ssh", "etc/pam.d") == before
    assert lab.lock() == "open"
    lab.node.stop_agent()


def test_without_an_installation_sshd_is_not_touched(lab: InstallLab) -> None:
    """The mode is reported as not in force."""
    lab.node.install_gates()
    lab.node.register_agent(lab.server.url, CODE)
    before = lab.tree("etc/ssh", "etc/pam.d")
    lab.start_agent()
    lab.server.grant(mode="enforce")
    said = "enforce is not in force, `sentinel-agent install` was not run"
    wait_for("it is reported", lambda: said in lab.problems())
    assert lab.tree("etc/ssh", "etc/pam.d") == before
    assert lab.lock() == "open"
    lab.node.stop_agent()


def test_operators_get_in_through_their_own_sshd_in_a_flood_on_port_22(
    lab: InstallLab,
) -> None:
    """200 clients that never say a word, while nothing runs but the two sshd."""
    lab.server.policy["mode"] = "enforce"
    assert lab.install().returncode == 0
    lab.node.popen(["/usr/lib/sentinel/sentinel-breakglass", "-D", "-e", "-f",
                    "/etc/sentinel/breakglass-sshd.conf"], log="breakglass")  # fmt: skip
    wait_for("it listens", lambda: "Server listening" in lab.node.log("breakglass"))
    with contextlib.ExitStack() as stack:
        held: list[socket.socket] = []
        while len(held) < 200:
            silent = stack.enter_context(socket.create_connection((lab.node.address, 22), 10))
            silent.settimeout(10)
            with contextlib.suppress(OSError):
                if silent.recv(4) == b"SSH-":
                    held.append(silent)
        titles = lab.node.run(["ps", "-e", "-o", "args="]).stdout
        assert "of 100-200 startups" in titles
        argv = [*lab.node.ssh_argv("ops", lab.keys["ops"], "-p", "2222"), "true"]
        for _ in range(10):
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
        # Nobody else gets in there, with a reservation or without.
        lab.server.grant(make_grant("alice", lab.keys["alice"]), mode="enforce")
        argv = [*lab.node.ssh_argv("alice", lab.keys["alice"], "-p", "2222"), "true"]
        assert subprocess.run(argv, capture_output=True, check=False).returncode == 255


def test_the_operators_own_sshd_outlives_what_takes_its_folder_away(lab: InstallLab) -> None:
    """As systemd does when ssh.service stops; and it is told when nobody answers there."""
    unit = "[Service]\nExecStart=/usr/sbin/sshd -D\nRuntimeDirectory=sshd\n"
    lab.node.write("/etc/systemd/system/ssh.service", unit)
    dry = lab.install("--dry-run", code="")
    drop_in = "/etc/systemd/system/ssh.service.d/sentinel.conf"
    assert f"would write {drop_in}" in dry.stdout, dry.stdout
    assert lab.install().returncode == 0
    assert "\nRuntimeDirectoryPreserve=yes\n" in (lab.node.root / drop_in[1:]).read_text()
    lab.node.run(["rm", "-r", "/run/sshd"])
    lab.start_agent()
    wait_for("it is reported", lambda: "port 2222 does not answer: " in lab.problems())
    wait_for("the folder is there again", (lab.node.root / "run/sshd").is_dir)
    lab.node.popen(["/usr/lib/sentinel/sentinel-breakglass", "-D", "-e", "-f",
                    "/etc/sentinel/breakglass-sshd.conf"], log="breakglass")  # fmt: skip
    wait_for("it is over", lambda: "does not answer" not in lab.problems())
    argv = [*lab.node.ssh_argv("ops", lab.keys["ops"], "-p", "2222"), "true"]
    lab.node.run(["rm", "-r", "/run/sshd"])
    wait_for("ops gets in", lambda: subprocess.run(argv, check=False).returncode == 0)
    wait_for("it is told", lambda: "/run/sshd was missing" in lab.problems())
    lab.node.stop_agent()
    assert lab.run("uninstall").returncode == 0
    assert not (lab.node.root / drop_in[1:]).parent.exists()
