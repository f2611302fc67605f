"""Locking and opening on a real sshd: what is planted wrong is found and nothing changed."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent.booking_server import make_grant, make_policy
from tests.agent.lock_lab import CALL, DROP_IN, JOURNAL, LockLab, Refused, make_lock_lab
from tests.lab.node import SSHD_CONFIG, Node, why_not
from tests.lab.wait import wait_for

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

KEYS = "/etc/sentinel/breakglass/ops"
GET_KEYS = "/usr/lib/sentinel/get-keys"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LockLab]:
    with Node("gpu-01", tmp_path_factory.mktemp("lock")) as node:
        made = make_lock_lab(node)
        yield made
        made.close()


@pytest.fixture
def lab(shared: LockLab) -> Iterator[LockLab]:
    """The shared node, as it was before the test."""
    with shared.planted():
        yield shared
    if shared.node.sshd is None or shared.node.sshd.poll() is not None:
        shared.start_sshd()
    else:
        # Whatever the test left in the running sshd.
        shared.node.write("/etc/ssh/sshd_config", SSHD_CONFIG)
        shared.node.reload_sshd()


def assert_locked_and_given_back(lab: LockLab) -> None:
    """Nobody but the operators gets in, and then all files are as they were."""
    before = lab.site()
    assert lab.call("engage") == []
    assert not lab.is_let_in("alice")
    assert lab.is_let_in("ops")
    assert lab.call("release") is None
    assert lab.site() == before


def offered(lab: LockLab, user: str) -> str:
    """Return what sshd says to the user who has no key, the banner with it."""
    argv = lab.node.ssh_argv(user, None)
    # ssh shows a banner from this level on.
    argv[argv.index("LogLevel=ERROR")] = "LogLevel=INFO"
    done = subprocess.run([*argv, "true"], capture_output=True, text=True, check=False)
    assert done.returncode == 255
    return done.stderr


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
    assert (lab.node.root / JOURNAL[1:]).exists(), "it was done before it was killed"
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
