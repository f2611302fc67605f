"""What comes after the sweep: logins that were under way, old masters, later jobs."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sentinel_agent.policy.model import parse_time
from tests.agent.booking_server import make_grant
from tests.agent.conftest import Lab
from tests.lab.wait import wait_for

# What a site may have in PAM: a mount or a script that takes its time, for one user here. sshd
# has let the user in then, and has not started the session.
SLOW = """\
#!/bin/sh
[ "$PAM_TYPE" = open_session ] && [ "$PAM_USER" = alice ] || exit 0
touch /run/is-slow && sleep 4 && touch /run/was-let-in
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path: sockets' paths have 108 bytes."""
    path = Path(tempfile.mkdtemp(prefix="late-"))
    yield path
    shutil.rmtree(path)


def test_a_login_under_way_at_the_end_is_caught_and_holds_the_next_one_back(lab: Lab) -> None:
    lab.node.write("/usr/lib/slow", SLOW, mode=0o755)
    service = lab.node.root / "etc/pam.d/sshd"
    service.write_text(service.read_text() + "session required pam_exec.so /usr/lib/slow\n")
    first = make_grant("alice", lab.keys["alice"], end_s=3)
    lab.server.grant(
        first,
        make_grant("bob", lab.keys["bob"], reservation=2) | {"not_before": first["not_after"]},
    )
    # At rest as seldom as it usually is.
    lab.start_agent(reconcile_s=4)
    log = lab.node.folder / "late.log"
    with log.open("wb") as output:
        late = subprocess.Popen(
            [*lab.node.ssh_argv("alice", lab.keys["alice"]), "echo it-is-open; cat"],
            stdin=subprocess.PIPE, stdout=output, stderr=output,
        )  # fmt: skip
    wait_for("it is let in", (lab.node.root / "run/is-slow").exists)
    ends = parse_time(first["not_after"])
    wait_for("the end has come", lambda: datetime.now(UTC) > ends)
    assert not lab.is_let_in("bob")
    assert not log.read_text()
    # The agent may be there before the session's first word.
    wait_for(
        "the session starts, late",
        lambda: "it-is-open" in log.read_text() or late.poll() is not None,
    )
    wait_for("it is ended", lambda: late.poll() is not None, timeout_s=5)
    assert (lab.node.root / "run/was-let-in").exists()
    late.communicate()
    wait_for("bob gets in", lambda: lab.is_let_in("bob"))


def test_an_old_master_opens_nothing_once_the_agent_is_back(lab: Lab, folder: Path) -> None:
    """Neither get-keys nor PAM's account phase is asked for what comes through it."""
    lab.server.grant(make_grant("alice", lab.keys["alice"], end_s=3))
    lab.start_agent()
    socket = str(folder / "master")
    argv = lab.node.ssh_argv("alice", lab.keys["alice"], "-S", socket)
    with subprocess.Popen([*argv[:-1], "-N", "-M", argv[-1]]) as master:
        wait_for("the master listens", Path(socket).exists)
        lab.node.stop_agent(signal.SIGKILL)
        wait_for("the access ends", lambda: not lab.is_let_in("alice"))
        through = subprocess.run([*argv, "true"], capture_output=True, check=False, timeout=20)
        assert through.returncode == 0
        lab.node.start_agent()
        wait_for("the master is gone", lambda: master.poll() is not None)
    again = subprocess.run([*argv, "true"], capture_output=True, check=False, timeout=20)
    assert again.returncode == 255
    assert lab.node.processes("alice") == []


def test_a_job_that_starts_after_the_end_is_ended_and_counted(lab: Lab) -> None:
    """cron and at run it as the user, without asking anybody."""
    lab.server.grant(make_grant("alice", lab.keys["alice"]), make_grant("bob"))
    lab.start_agent(metrics_listen=f"{lab.node.address}:9642")
    lab.server.grant(make_grant("bob"))
    for number in (1, 2):
        for user in ("alice", "bob"):
            lab.node.popen(["setsid", "sleep", "1301"], user=user)
        counted = f"sentinel_agent_users_ended_total {number}.0\n"
        wait_for("it is counted", lambda: counted in scrape(lab))  # noqa: B023
        wait_for("all is gone", lambda: lab.node.processes("alice") == [])
        # The next is another only for whom it has looked in between.
        beats = len(lab.server.heartbeats)
        wait_for("it has", lambda: len(lab.server.heartbeats) > beats + 2)  # noqa: B023
    # Bob's reservation runs, and so do his jobs.
    assert lab.node.processes("bob") == ["sleep 1301", "sleep 1301"]


def scrape(lab: Lab) -> str:
    with urllib.request.urlopen(f"http://{lab.node.address}:9642/metrics") as answer:
        return str(answer.read().decode())
