"""Locking and opening on a real sshd: what is planted wrong is found and nothing changed."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path

import pytest

from tests.agent.booking_server import make_grant, make_policy
from tests.agent.lock_lab import (
    CALL,
    DROP_IN,
    JOURNAL,
    LockLab,
    Refused,
    lab,
    offered,
    shared,
)
from tests.lab.node import why_not
from tests.lab.wait import wait_for

__all__ = ["lab", "shared"]  # fixtures

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

KEYS = "/etc/sentinel/breakglass/ops"
GET_KEYS = "/usr/lib/sentinel/get-keys"


# Name, what is planted, the step that finds it, and what it says.
MISTAKES = {
    "a syntax error in a site's file": (
        "echo 'Nonsense yes' > /etc/ssh/sshd_config.d/50-site.conf",
        "sshd -t", r"50-site\.conf.*Nonsense",
    ),
    "no get-keys": (f"rm {GET_KEYS}", "get-keys", "No such file"),
    "a get-keys that its group can write": (
        f"chmod 0775 {GET_KEYS}", "get-keys", "others than root",
    ),
    "a folder of get-keys that its group can write": (
        "chmod 0775 /usr/lib/sentinel", "get-keys", "/usr/lib/sentinel can be written",
    ),
    "a get-keys that cannot be executed": (f"chmod 0644 {GET_KEYS}", "get-keys", "executed"),
    "a get-keys without its interpreter": (
        f"sed -i '1s,.*,#!/opt/no-python,' {GET_KEYS}", "get-keys", "/opt/no-python",
    ),
    "a get-keys that prints keys for strangers": (
        f"printf '#!/bin/sh\\necho ssh-ed25519 AAAA\\n' > {GET_KEYS}",
        "get-keys", "prints keys",
    ),
    "no account to run get-keys with": ("userdel sentinel-akc", "get-keys", "sentinel-akc"),
    "no policy for get-keys to read": (
        "rm /var/lib/sentinel/policy.json", "get-keys", "no cache",
    ),
    "no pam-gate": ("rm /usr/lib/sentinel/pam-gate", "pam-gate", "No such file"),
    "a pam-gate that lets everybody in": (
        "printf '#!/bin/sh\\n' > /usr/lib/sentinel/pam-gate", "pam-gate", "does not exist",
    ),
    "no break-glass key": (f"rm {KEYS}", "break-glass login", f"ops: {KEYS}: No such file"),
    "a break-glass key that sshd cannot read": (
        f"chmod 0600 {KEYS}", "break-glass login", "cannot be read by the user",
    ),
    "a break-glass key that others can write": (
        f"chmod 0666 {KEYS}", "break-glass login", "others than root",
    ),
    "a folder of break-glass keys that others can write": (
        "chmod 0777 /etc/sentinel/breakglass", "break-glass login", "others than root",
    ),
    "a break-glass file without a key": (
        f"echo hello > {KEYS}", "break-glass login", "no public key",
    ),
    "a break-glass account without a shell": (
        "usermod -s /usr/sbin/nologin ops", "break-glass login", "nologin",
    ),
    "AllowUsers without break-glass": (
        "echo 'AllowUsers alice' > /etc/ssh/sshd_config.d/50-site.conf",
        "break-glass login", "not listed in AllowUsers",
    ),
    "a forced command": (
        "printf 'Match User ops\\nForceCommand /bin/false\\n' "
        "> /etc/ssh/sshd_config.d/50-site.conf",
        "break-glass login", "ops",
    ),
    "PAM that refuses everybody": (
        "sed -i '1i account requisite pam_deny.so' /etc/pam.d/sshd", "break-glass login", "ops",
    ),
    "a PAM file without account phase": (
        "sed -i '/account/d' /etc/pam.d/sshd", "pam", "no account phase",
    ),
    "no PAM file": ("rm /etc/pam.d/sshd", "pam", "no /etc/pam.d/sshd"),
    "an address that sshd could not listen at": (
        "echo 'ListenAddress 203.0.113.1' > /etc/ssh/sshd_config.d/50-site.conf",
        "reload", "none of its addresses",
    ),
}  # fmt: skip


# These are no mistakes of sshd's files, and shut somebody out by themselves.
SHUTS_OUT = ("a break-glass account without a shell", "PAM that refuses everybody")


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_found_and_nothing_is_changed(shared: LockLab, mistake: str) -> None:
    planted, step, reason = MISTAKES[mistake]
    with shared.planted(planted):
        before = shared.site()
        answer = shared.call("engage")
        assert isinstance(answer, Refused), answer
        assert answer.step == step, answer
        assert re.search(reason, answer.reason), answer
        assert shared.site() == before
        # sshd goes on as before: it was not made to read what is planted.
        if mistake not in SHUTS_OUT:
            assert shared.is_let_in("ops")


def test_a_rehearsal_finds_a_mistake_and_touches_nothing_in_use(lab: LockLab) -> None:
    before, log = lab.site(), lab.node.log("sshd")
    assert lab.call("rehearse") == []
    assert lab.site() == before
    assert lab.node.log("sshd") == log
    with lab.planted("echo 'AllowUsers alice' > /etc/ssh/sshd_config.d/50-site.conf"):
        found = lab.call("rehearse")
        assert isinstance(found, Refused)
        assert "AllowUsers" in found.reason
    assert not list((lab.node.root / "run/sentinel").glob("rehearsal-*"))
    assert not list((lab.node.root / "run/sentinel/check").iterdir())


def test_locked_refuses_who_has_not_booked_and_open_is_as_it_was(lab: LockLab) -> None:
    before = lab.site()
    assert lab.state() == "open"
    assert lab.is_let_in("alice")
    lab.node.write("/etc/sentinel/banner", "Book at https://booking.example 请先预约\n")
    assert lab.call("engage") == []
    assert lab.state() == "locked"
    assert not lab.is_let_in("alice")
    assert lab.is_let_in("ops")
    said = offered(lab, "alice")
    assert "Book at https://booking.example" in said
    assert "Permission denied (publickey)" in said
    assert "Book at" not in offered(lab, "ops")
    lab.node.write_policy(make_policy(make_grant("alice", lab.keys["alice"])))
    assert lab.is_let_in("alice")
    assert lab.call("engage") == []  # a second time changes nothing
    assert lab.call("prove") == []
    lab.node.write_policy(make_policy())
    assert lab.call("release") is None
    assert lab.state() == "open"
    assert lab.is_let_in("alice")
    after = lab.site()
    changed = {path for path in before.keys() | after if before.get(path) != after.get(path)}
    assert changed <= {"var/lib/sentinel/policy.json", "var/lib/sentinel/access"}


def test_pam_refuses_what_got_past_sshd(lab: LockLab) -> None:
    """With the block alone, a key of the user's own is not enough."""
    assert lab.call("engage") == []
    assert lab.is_let_in("ops")
    lab.node.run(["rm", DROP_IN])
    lab.node.reload_sshd()
    assert not lab.is_let_in("alice")
    assert lab.is_let_in("ops")
    assert lab.state() == "partial"


@pytest.mark.parametrize("full", ["/etc/ssh/sshd_config.d", "/etc/pam.d", "/var/lib/sentinel"])
def test_a_full_disk_changes_nothing(lab: LockLab, full: str) -> None:
    keep = f"mkdir -p /run/full && cp -a {full}/. /run/full/"
    lab.node.run(["sh", "-ec", f"rm -rf /run/full; {keep}; mount -t tmpfs -o size=1m,mode=0755 "
                  f"tmpfs {full}; cp -a /run/full/. {full}/; "
                  f"chown --reference=/run/full {full}; "
                  f"chmod --reference=/run/full {full}; touch {full}/lock-change.flock; "
                  f"dd if=/dev/zero of={full}/filler bs=4k 2>/dev/null || true"])  # fmt: skip
    try:
        before = lab.site()
        answer = lab.call("engage")
        assert isinstance(answer, Refused), answer
        assert "No space left" in answer.reason
        assert lab.site() == before
        assert lab.is_let_in("alice")
        assert lab.is_let_in("ops")
    finally:
        lab.node.run(["umount", full])


@pytest.mark.parametrize("moment", ["written", "reloaded"])
def test_a_change_that_is_killed_is_undone_by_the_next(lab: LockLab, moment: str) -> None:
    # The login that proves the lock waits, so that the change is not done before it is killed.
    hold = "while [ -e /run/hold ]; do sleep 0.1; done"
    lab.node.write(
        "/usr/lib/lab/hold", f"#!/bin/sh\n[ ! -e {JOURNAL} ] || {hold}\n", mode=0o755
    )
    lab.node.run(["touch", "/run/hold"])
    rule = "session optional pam_exec.so quiet /usr/lib/lab/hold"
    lab.node.run(["sh", "-c", f"echo '{rule}' >> /etc/pam.d/sshd"])
    before = lab.site()
    reloads = lab.node.log("sshd").count("Received SIGHUP")

    def has_come() -> bool:
        if moment == "written":
            return (lab.node.root / DROP_IN[1:]).exists()
        return lab.node.log("sshd").count("Received SIGHUP") > reloads

    process = lab.node.popen([sys.executable, "-c", CALL, "engage"])
    while not has_come():
        assert process.poll() is None, lab.node.log("popen")
    lab.node.send_signal(process, signal.SIGKILL)
    process.wait(10)
    lab.node.run(["rm", "/run/hold"])
    assert (lab.node.root / JOURNAL[1:]).exists()
    assert lab.state() == "partial"
    assert lab.is_let_in("ops")
    assert lab.call("recover") is True
    assert lab.site() == before
    assert lab.state() == "open"
    assert lab.is_let_in("alice")
    assert not list((lab.node.root / "run/sentinel/check").iterdir())
    # And what comes next works.
    assert lab.call("engage") == []
    assert lab.call("release") is None
    assert lab.site() == before


def test_opening_an_sshd_that_would_not_start_leaves_it_locked(lab: LockLab) -> None:
    assert lab.call("engage") == []
    with lab.planted("echo 'Nonsense yes' > /etc/ssh/sshd_config.d/50-site.conf"):
        answer = lab.call("release")
        assert isinstance(answer, Refused)
        assert answer.step == "sshd -t"
        assert lab.state() == "locked"
        assert not lab.is_let_in("alice")
        assert lab.is_let_in("ops")
    assert lab.call("release") is None


def test_two_at_once_wait_for_each_other(lab: LockLab) -> None:
    first = lab.node.popen([sys.executable, "-c", CALL, "engage"], log="first")
    assert lab.call("engage") == []
    assert first.wait(30) == 0
    assert '"answer": []' in lab.node.log("first")
    assert lab.state() == "locked"
    assert lab.call("release") is None


def test_what_a_killed_check_left_opens_nothing_after_a_minute(lab: LockLab) -> None:
    """The key of a check is for loopback only, and ends by itself."""
    key = lab.keys["alice"]
    expired = "20200101000000Z"
    public = key.with_suffix(".pub").read_text()
    assert lab.call("engage") == []
    for options in (f'expiry-time="{expired}"', 'from="127.0.0.1,::1"'):
        lab.node.write("/run/sentinel/check/ops", f"restrict,{options} {public}")
        assert lab.node.ssh("ops", key, "true").returncode == 255, options
    lab.node.run(["rm", "/run/sentinel/check/ops"])
    assert lab.call("release") is None


def test_a_check_leaves_no_key_behind(lab: LockLab) -> None:
    assert lab.call("engage") == []
    assert not list((lab.node.root / "run/sentinel/check").iterdir())
    wait_for("its sessions are gone", lambda: not lab.node.processes("ops"))
    assert not [path for path in Path(lab.node.root / "run/sentinel").iterdir()
                if path.name.startswith("rehearsal-")]  # fmt: skip
    assert lab.call("release") is None
