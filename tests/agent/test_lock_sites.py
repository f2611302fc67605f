"""Locking and opening where sshd is set up in other ways: locked, and given back as it was."""

from __future__ import annotations

import subprocess

import pytest

from tests.agent.lock_lab import (
    LockLab,
    Refused,
    assert_locked_and_given_back,
    lab,
    offered,
    shared,
)
from tests.lab.node import SSHD_CONFIG, why_not
from tests.lab.wait import wait_for

__all__ = ["lab", "shared"]  # fixtures

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

HOSTILE = """\
HostKey /etc/ssh/lab_host_key
PasswordAuthentication yes
AuthorizedKeysFile .ssh/authorized_keys
UsePAM yes
MaxStartups 10:30:20
Match User alice
    AuthorizedKeysFile .ssh/authorized_keys
    PasswordAuthentication yes
Match User ops
    AuthorizedKeysFile none
Match all
    Include /etc/ssh/sshd_config.d/*.conf
"""


def test_a_hostile_main_config_is_locked_too_and_given_back_byte_for_byte(
    lab: LockLab,
) -> None:
    """Settings and Match blocks come first there, and the Include at the bottom."""
    lab.start_sshd(HOSTILE)
    before = lab.site()
    assert lab.is_let_in("alice")
    assert lab.call("engage") == []
    assert not lab.is_let_in("alice")
    assert lab.is_let_in("ops")
    assert "Permission denied (publickey)" in offered(lab, "alice")
    assert lab.call("release") is None
    assert lab.site() == before
    assert lab.is_let_in("alice")


def test_a_main_config_without_include_is_locked_too(lab: LockLab) -> None:
    """As some distributions ship it."""
    lab.start_sshd(SSHD_CONFIG.partition("\n")[2])
    assert_locked_and_given_back(lab)


def test_an_earlier_drop_in_with_its_own_command_does_not_open_the_lock(lab: LockLab) -> None:
    lab.node.write("/usr/lib/other/keys", "#!/bin/sh\ncat /home/$1/.ssh/authorized_keys\n",
                   mode=0o755)  # fmt: skip
    lab.node.write(
        "/etc/ssh/sshd_config.d/00-other.conf",
        "Match User alice\n  AuthorizedKeysCommand /usr/lib/other/keys %u\n"
        "  AuthorizedKeysCommandUser root\n",
    )
    assert_locked_and_given_back(lab)


def test_root_alone_is_enough(lab: LockLab) -> None:
    public = lab.keys["ops"].with_suffix(".pub").read_text()
    lab.node.write("/etc/sentinel/breakglass/root", public)
    lab.node.run(["gpasswd", "--delete", "ops", "breakglass"])
    assert lab.call("engage") == []
    assert lab.node.ssh("root", lab.keys["ops"], "id -u").stdout == "0\n"
    assert not lab.is_let_in("ops")
    assert lab.call("release") is None


def test_one_operator_who_cannot_get_in_is_named_and_stops_nothing(lab: LockLab) -> None:
    lab.node.add_user("carol", groups=["breakglass"])
    warnings = str(lab.call("engage"))
    assert "carol: /etc/sentinel/breakglass/carol: No such file" in warnings
    assert lab.state() == "locked"
    assert lab.call("release") is None


def test_an_sshd_that_a_reload_ends_is_started_again(lab: LockLab) -> None:
    """The program that it was started by answers `-t`, and does not start any more."""
    lab.stop_sshd()
    lab.node.run(["sh", "-c", "mkdir -p /usr/lib/lab; cp /usr/sbin/sshd /usr/lib/lab/sshd"])
    lab.node.run(["/usr/lib/lab/sshd", "-p", "22", "-E", "/var/log/sshd.log"])
    assert lab.is_let_in("alice")
    lab.node.run(["rm", "/usr/lib/lab/sshd"])
    lab.node.write(
        "/usr/lib/lab/sshd",
        '#!/bin/sh\ncase " $* " in *" -t "*) exec /usr/sbin/sshd "$@";; esac\nexit 1\n',
        mode=0o755,
    )
    before = lab.site()
    answer = lab.call("engage")
    assert isinstance(answer, Refused)
    assert answer.step == "reload"
    assert "it is not as it was" not in answer.reason
    assert lab.site() == before
    assert lab.is_let_in("alice")
    assert lab.is_let_in("ops")
    lab.start_sshd()


def test_no_sshd_is_running(lab: LockLab) -> None:
    """What will be started later reads the drop-in then."""
    lab.stop_sshd()
    assert lab.call("engage") == []
    assert lab.state() == "locked"
    lab.node.start_sshd()
    assert not lab.is_let_in("alice")
    assert lab.is_let_in("ops")
    assert lab.call("release") is None
    assert lab.is_let_in("alice")


def test_an_sshd_with_another_configuration_is_left_alone(lab: LockLab) -> None:
    """PAM's part of the lock is in it, where it asks PAM."""
    site = "HostKey /etc/ssh/lab_host_key\nPidFile /run/other.pid\nPort 2200\nUsePAM yes\n"
    lab.node.write("/etc/ssh/other_config", site)
    lab.node.run(["/usr/sbin/sshd", "-f", "/etc/ssh/other_config", "-E", "/var/log/other.log"])
    argv = [*lab.node.ssh_argv("alice", lab.keys["alice"], "-p", "2200"), "true"]

    def is_let_in() -> bool:
        return subprocess.run(argv, capture_output=True, check=False).returncode == 0

    wait_for("it listens", is_let_in)
    assert lab.call("engage") == []
    assert not lab.is_let_in("alice")
    assert not is_let_in()
    assert lab.call("release") is None
    log = (lab.node.root / "var/log/other.log").read_text()
    assert "SIGHUP" not in log
    assert is_let_in()
    lab.node.run(["sh", "-c", "kill $(cat /run/other.pid)"])
