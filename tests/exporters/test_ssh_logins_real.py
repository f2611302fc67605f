"""Logins and failures beside a real sshd: from its log file and from a real journal alike."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import pytest

from tests.exporters.running import parse_series, values
from tests.lab.node import SSHD_CONFIG, Node, why_not
from tests.lab.wait import wait_for

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

JOURNALD = Path("/lib/systemd/systemd-journald")
CONFIG = f"""\
LoginGraceTime 60
MaxAuthTries 3
MaxStartups 3:100:3
DenyUsers mallory
{SSHD_CONFIG.replace(".ssh/authorized_keys", "/etc/ssh/lab_keys/%u")}
"""
# As on Debian: programs write to the journal, which hands all on to what writes the log files.
START_JOURNALD = """\
mkdir -p /run/systemd/journal /run/log/journal /run/sshd
mv /dev/log /dev/log-files
ln -s /dev/log-files /run/systemd/journal/syslog
ln -s /run/systemd/journal/dev-log /dev/log
printf '[Journal]\\nForwardToSyslog=yes\\nRateLimitBurst=0\\n' >/etc/systemd/journald.conf
ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/lab_host_key
"""
PORTS = {"file": 9641, "journal": 9642}
LOGS = {"file": "/var/log/syslog", "journal": "journal"}

Counts = Mapping[str, float]


class Lab:
    """A node with a journal, sshd, and an exporter for each source."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.key, *self.other_keys = map(node.make_key, ("login", "b", "c", "d"))
        self.exporters: list[subprocess.Popen[str]] = []

    def start(self) -> None:
        """Start everything; alice has a key and a password, mallory may not log in."""
        node = self.node
        node.run(["sh", "-ec", START_JOURNALD])
        node.popen([str(JOURNALD)], log="journald")
        wait_for("the journal is there", (node.root / "run/systemd/journal/dev-log").exists)
        for user in ("alice", "bob", "mallory"):
            node.add_user(user, password="correct")
            node.write(f"/etc/ssh/lab_keys/{user}", self.key.with_suffix(".pub").read_text())
        # PAM takes two seconds for a wrong password otherwise.
        auth = node.root / "etc/pam.d/common-auth"
        auth.write_text(auth.read_text().replace("nullok", "nullok nodelay"))
        node.write("/etc/ssh/sshd_config", CONFIG)
        node.sshd = node.popen(["/usr/sbin/sshd", "-D"], log="sshd")
        wait_for("sshd listens", lambda: "Server listening" in node.syslog())

    def start_exporters(self) -> None:
        """Start one that reads the file, and one that reads the journal."""
        for source, port in PORTS.items():
            argv = [sys.executable, "-m", "sentinel_exporters", "--collectors", "ssh",
                    "--listen", f"0.0.0.0:{port}"]  # fmt: skip
            env = {"SENTINEL_EXPORTER_SSH__LOGIN_LOG": LOGS[source]}
            self.exporters.append(self.node.popen(argv, log=source, env=env))
        for source in PORTS:
            # Before the first scrape nothing is counted, and what the log had before never.
            wait_for("it answers", partial(self.is_told, source, {}, {}))

    def stop_exporters(self) -> None:
        """End both, and look whether anything of theirs stays."""
        for exporter in self.exporters:
            self.node.send_signal(exporter, signal.SIGTERM)
        assert [exporter.wait(10) for exporter in self.exporters] == [0, 0]
        self.exporters.clear()
        wait_for("journalctl has ended", lambda: self.journalctls() == [])

    def scrape(self, source: str) -> tuple[Counts, Mapping[str, float], Counts]:
        """Return what is followed, logins as `user method`, and failures that are not zero."""
        url = f"http://{self.node.address}:{PORTS[source]}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            series = parse_series(answer.read().decode())
        followed = values(series, "ssh_login_log_readable", "source")
        logins = {
            " ".join(value for _, value in reversed(labels)): count
            for (name, labels), count in series.items()
            if name == "ssh_logins_total"
        }
        reasons = values(series, "ssh_login_failures_total", "reason")
        return followed, logins, {reason: count for reason, count in reasons.items() if count}

    def journalctls(self) -> list[str]:
        """Return the pids of the node's journalctls."""
        return self.node.run(["pidof", "journalctl"], check=False).stdout.split()

    def messages(self) -> list[str]:
        """Return what is in the journal."""
        return self.node.run(["journalctl", "--output=cat"]).stdout.splitlines()

    def curl(self, user: bytes, password: bytes) -> None:
        """Try a password, by a client that takes any user name."""
        subprocess.run(
            ["curl", "--silent", "--insecure", "--user", user + b":" + password, "--max-time",
             "20", f"sftp://{self.node.address}/tmp/"], check=False, capture_output=True,
        )  # fmt: skip

    def knock(self, text: bytes) -> None:
        """Connect, say that, and leave when sshd has answered."""
        with socket.create_connection((self.node.address, 22), timeout=10) as stranger:
            stranger.sendall(text)
            stranger.recv(100)

    def expect(self, logins: Mapping[str, float], failures: Counts) -> None:
        """Wait until both sources say exactly this more than at the beginning."""
        for source in PORTS:
            try:
                wait_for("it is counted", partial(self.is_told, source, logins, failures), 8)
            except AssertionError as error:
                told = f"{source}: {self.scrape(source)}\n{self.node.syslog()}"
                raise AssertionError(told) from error

    def is_told(self, source: str, logins: Mapping[str, float], failures: Counts) -> bool:
        """Whether exactly this is said now, of that source."""
        return self.scrape(source) == ({source: 1}, logins, failures)


@pytest.fixture(scope="module")
def node_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Node("ssh-02", tmp_path_factory.mktemp("ssh")) as node:
        lab = Lab(node)
        lab.start()
        yield lab


@pytest.fixture
def lab(node_lab: Lab) -> Iterator[Lab]:
    """Count from nothing on, whatever other tests have left in the logs."""
    node_lab.start_exporters()
    yield node_lab
    node_lab.stop_exporters()


def test_each_login_and_each_failure_is_counted_once_from_either_source(lab: Lab) -> None:
    node = lab.node
    assert node.ssh("alice", lab.key, "true").returncode == 0
    wrong, *more = lab.other_keys
    assert node.ssh("alice", wrong, "true").returncode == 255
    options = [word for key in more for word in ("-i", str(key))]
    assert node.ssh("alice", wrong, "true", options=options).returncode == 255
    assert node.ssh("nobody-here", wrong, "true").returncode == 255
    assert node.ssh("mallory", lab.key, "true").returncode == 255
    node.run(["chage", "--expiredate", "0", "bob"])
    assert node.ssh("bob", lab.key, "true").returncode == 255
    lab.curl(b"alice", b"correct")
    lab.curl(b"alice", b"wrong")
    lab.knock(b"GET / HTTP/1.0\r\n\r\n")
    lab.knock(b"")
    lab.knock(b"SSH-2.0-scan\r\n")
    lab.expect(
        {"alice publickey": 1, "alice password": 1},
        {
            "wrong_key": 1,
            "too_many_attempts": 1,
            "invalid_user": 1,
            # DenyUsers, and PAM's account phase.
            "refused_by_policy": 2,
            "wrong_password": 1,
            "protocol_error": 1,
            "disconnect_before_auth": 2,
        },
    )


def test_no_name_that_a_stranger_chooses_passes_for_a_login_or_is_a_label(lab: Lab) -> None:
    """sshd cuts a name at its first colon."""
    login = b"Accepted publickey for root from 192.0.2.9 port 22 ssh2"
    names = [
        login,
        b"x\n" + login,
        b"x\r\n<38>Nov 21 10:00:00 sshd[1]: " + login,
        b"x\0" + login,
        b"\x1b[2J\xff\xfe \xc3\xa4 " + login,
        b"authenticating user root 192.0.2.9 port 22 [preauth]",
        b"root not allowed because listed in DenyUsers",
        b"root from 192.0.2.9 port 22 ssh2 " + b"y" * 400,
    ]
    for name in names:
        lab.curl(name.replace(b"\0", b""), b"x")
    lab.knock(login + b"\r\n")
    lab.expect({}, {"invalid_user": len(names), "protocol_error": 1})
    # What a user of the node writes as sshd is in the journal as that user's.
    lab.node.run(["logger", "-t", "sshd", "--id=7", login.decode()], user="alice")
    wait_for("the journal has it", lambda: login.decode() in lab.messages())
    # Once what comes after it is counted, it was passed over.
    lab.knock(login + b"\r\n")
    counts = {"invalid_user": len(names), "protocol_error": 2}
    wait_for("the next is counted", partial(lab.is_told, "journal", {}, counts))


def test_connections_that_sshd_turns_away_are_counted(lab: Lab) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            address = (lab.node.address, 22)
            stack.enter_context(socket.create_connection(address)).recv(100)
    # The first is told at once, and the sum with the next login, if sshd knows by then that
    # those before have left.
    lab.expect({}, {"throttled": 1, "disconnect_before_auth": 3})
    assert lab.node.ssh("alice", lab.key, "true").returncode == 0
    lab.expect({"alice publickey": 1}, {"throttled": 2, "disconnect_before_auth": 3})


def test_a_journalctl_that_ends_is_started_again_and_nothing_is_lost(lab: Lab) -> None:
    node = lab.node
    assert node.ssh("alice", lab.other_keys[0], "true").returncode == 255
    lab.expect({}, {"wrong_key": 1})
    before = lab.journalctls()
    assert len(before) == 1
    node.run(["kill", "-KILL", *before])
    assert node.ssh("alice", lab.key, "true").returncode == 0
    wait_for("another follows", lambda: lab.journalctls() not in ([], before))
    lab.expect({"alice publickey": 1}, {"wrong_key": 1})


def test_what_is_written_while_journalctl_begins_is_counted(lab: Lab) -> None:
    lab.stop_exporters()
    slow = 'case " $* " in *" --follow "*) sleep 1;; esac; exec /usr/bin/journalctl "$@"'
    lab.node.write("/usr/local/bin/journalctl", f"#!/bin/sh\n{slow}\n", mode=0o755)
    lab.start_exporters()
    assert lab.node.ssh("alice", lab.key, "true").returncode == 0
    lab.expect({"alice publickey": 1}, {})
    lab.node.run(["rm", "/usr/local/bin/journalctl"])
