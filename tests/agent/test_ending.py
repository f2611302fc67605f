"""The end of access on a real sshd: who is warned, who is ended, and who is left alone."""

from __future__ import annotations

import contextlib
import json
import signal
from datetime import UTC, datetime
from functools import partial

from sentinel_agent.policy.model import parse_time
from tests.agent.booking_server import make_grant
from tests.agent.conftest import Lab
from tests.lab.wait import wait_for

# An sshd without the lock, for sessions that no reservation ever opened.
OPEN_SSHD = """\
HostKey /etc/ssh/lab_host_key
AuthorizedKeysFile /etc/ssh/open_keys/%u
PidFile none
"""

# Leaves a process that outlives the session, each in its own way.
LEFTOVERS = """\
tmux new-session -d sleep 1001
nohup sleep 1002 >/dev/null 2>&1 &
setsid sleep 1003 >/dev/null 2>&1 </dev/null &
(trap '' HUP TERM; exec sleep 1004) >/dev/null 2>&1 </dev/null &
"""

HOSTILE = {
    "keeps forking": "while :; do (sleep 0.02; :) & done",
    "kills whoever shares its uid": (
        "exec python3 -c 'import os, signal\n"
        "[signal.signal(n, signal.SIG_IGN) for n in (1, 15)]\n"
        "while True:\n"
        " try: os.kill(-1, 9)\n"
        " except OSError: pass'"
    ),
    "is stopped": "trap '' HUP TERM; kill -STOP $$",
    "has a terminal that takes nothing": (
        "exec python3 -c 'import os, termios, time\n"
        "master, slave = os.openpty()\n"
        "termios.tcflow(slave, termios.TCOOFF)\n"
        "time.sleep(1000)'"
    ),
    "calls itself by a name full of line ends": (
        "exec python3 -c 'import ctypes, time\n"
        'ctypes.CDLL(None).prctl(15, b"a" + b"\\r" * 14)\n'
        "time.sleep(1000)'"
    ),
}


def has_nothing(lab: Lab, user: str) -> bool:
    return not lab.node.processes(user)


def test_released_sessions_are_warned_and_ended_with_all_they_left(lab: Lab) -> None:
    lab.server.grant(make_grant("alice", lab.keys["alice"]))
    lab.start_agent()
    with lab.session("alice", LEFTOVERS + "cat") as shell, lab.session(
        "alice", options=()
    ) as plain, lab.session("ops") as ops:  # fmt: skip
        wait_for("all left-overs run", lambda: len(lab.node.processes("alice")) >= 8)
        lab.server.grant()
        wait_for("the sessions end", lambda: not (shell.is_open() or plain.is_open()))
        wait_for("nothing is left", lambda: not lab.node.processes("alice"))
        assert "you have no running reservation here" in shell.text()
        assert not lab.is_let_in("alice")
        assert ops.is_open()
        assert "ServerSentinel" not in ops.text()


def test_a_reservation_ends_on_time_while_the_server_is_down(lab: Lab) -> None:
    grant = make_grant("alice", lab.keys["alice"], end_s=6)
    lab.server.grant(grant)
    lab.start_agent()
    lab.server.stop()
    with lab.session("alice") as session:
        wait_for(
            "it is warned before", lambda: "your reservation here ends at" in session.text()
        )
        assert session.is_open()
        wait_for("the session ends", lambda: not session.is_open())
        assert datetime.now(UTC) >= parse_time(grant["not_after"])
    assert not lab.is_let_in("alice")


def test_what_a_former_holder_left_is_ended_after_a_restart_of_the_agent(lab: Lab) -> None:
    lab.server.grant(make_grant("alice", lab.keys["alice"]))
    lab.start_agent()
    with lab.session("alice", "setsid sleep 1003 >/dev/null 2>&1 </dev/null & cat"):
        pass
    wait_for("the session is gone", lambda: lab.node.processes("alice") == ["sleep 1003"])
    lab.node.stop_agent(signal.SIGKILL)
    lab.server.grant()
    lab.node.start_agent()
    wait_for("nothing is left", lambda: not lab.node.processes("alice"))


def test_only_people_with_sessions_of_their_own_are_ended(lab: Lab) -> None:
    """Never booked and connected: ended. A service, ignored users, break-glass: left alone."""
    node = lab.node
    # As the agent's settings have it, below.
    node.install_lock(ignored_users=["watcher"])
    node.write("/etc/ssh/open_sshd_config", OPEN_SSHD)
    node.add_user("service")
    node.add_user("watcher", password="watcher-password")
    lab.keys["watcher"] = node.make_key("watcher")
    for user in ("bob", "watcher", "ops"):
        node.write(f"/etc/ssh/open_keys/{user}", lab.keys[user].with_suffix(".pub").read_text())
    node.popen(["/usr/sbin/sshd", "-D", "-e", "-f", "/etc/ssh/open_sshd_config", "-p", "2222"],
               log="open-sshd")  # fmt: skip
    wait_for("the open sshd listens", lambda: "listening" in node.log("open-sshd"))
    node.popen(["sleep", "1000"], user="service")
    port = ("-tt", "-p", "2222")
    lab.server.grant(mode="observe")
    lab.start_agent(ignored_users=["watcher"])
    with lab.session("bob", options=port) as bob, lab.session(
        "watcher", options=port
    ) as watcher, lab.session("ops", options=port) as ops:  # fmt: skip
        would_end = "enforce: would end bob: no running reservation, 1 SSH connections"
        wait_for("it is reported", lambda: would_end in lab.agent_problems())
        assert bob.is_open()
        assert "ServerSentinel" not in bob.text()
        assert not any("watcher" in text or "ops" in text for text in lab.agent_problems())
        connected = {"bob": 1, "ops": 1, "watcher": 1}
        wait_for("all are counted", lambda: lab.server.heartbeats[-1]["sessions"] == connected)
        lab.server.grant(mode="enforce")
        wait_for("bob is ended", lambda: not bob.is_open())
        wait_for("it is no problem any more", lambda: lab.agent_problems() == [])
        assert "you have no running reservation here" in bob.text()
        assert watcher.is_open()
        assert ops.is_open()
    assert node.processes("service") == ["sleep 1000"]


def test_the_node_can_refuse_to_enforce(lab: Lab) -> None:
    lab.server.grant(make_grant("alice", lab.keys["alice"]))
    lab.start_agent(enforce=False)
    with lab.session("alice") as session:
        lab.server.grant()
        would_end = "enforce: would end alice: no running reservation, 1 SSH connections"
        wait_for("it is reported", lambda: would_end in lab.agent_problems())
        assert lab.server.heartbeats[-1]["mode"] == "observe"
        assert session.is_open()


def test_no_process_outlives_its_users_access(lab: Lab) -> None:
    users = {f"hostile{number}": what for number, what in enumerate(HOSTILE)}
    for user, what in users.items():
        lab.node.add_user(user)
        lab.keys[user] = lab.keys["alice"]
        script = f"#!/bin/bash\n{HOSTILE[what]}\n"
        lab.node.write(f"/home/{user}/hostile", script, mode=0o755, owner=user)
    lab.server.grant(*(make_grant(user, lab.keys["alice"]) for user in users))
    lab.start_agent()
    command = "setsid ./hostile >/dev/null 2>&1 </dev/null & sleep 0.5; cat"
    with contextlib.ExitStack() as sessions:
        for user in users:
            sessions.enter_context(lab.session(user, command))
        for user, what in users.items():
            wait_for(f"the one that {what} runs", partial(lab.node.processes, user))
        lab.server.grant()
        for user, what in users.items():
            wait_for(f"the one that {what} is ended", partial(has_nothing, lab, user))
        # A forking one would be back by now.
        assert [user for user in users if lab.node.processes(user)] == []


def test_an_extended_reservation_goes_on(lab: Lab) -> None:
    lab.server.grant(make_grant("alice", lab.keys["alice"], end_s=4))
    lab.start_agent()
    with lab.session("alice") as session:
        lab.server.grant(
            make_grant("alice", lab.keys["alice"], end_s=4),
            make_grant("alice", lab.keys["alice"], start_s=3, end_s=3600, reservation=2),
        )
        lab.wait_for_policy()
        old_end = json.loads(lab.cache())["grants"][0]["not_after"]
        wait_for("the old end has passed", lambda: datetime.now(UTC) > parse_time(old_end))
        # Two more rounds of the agent, told by its heartbeats.
        beats = len(lab.server.heartbeats)
        wait_for("it looked again", lambda: len(lab.server.heartbeats) >= beats + 3)
        assert session.is_open()


def test_during_a_long_grace_sessions_stay_and_logins_are_refused(lab: Lab) -> None:
    lab.server.grant(make_grant("alice", lab.keys["alice"]))
    lab.start_agent(grace_s=300, handover_limit_s=310)
    with lab.session("alice") as session:
        lab.server.grant()
        wait_for("it is told", lambda: "end in 300 s: save your work" in session.text())
        assert "300 秒后" in session.text()
        assert not lab.is_let_in("alice")
        beats = len(lab.server.heartbeats)
        wait_for("it looked again", lambda: len(lab.server.heartbeats) >= beats + 3)
        assert session.is_open()
        # Booked again, she just goes on.
        lab.server.grant(make_grant("alice", lab.keys["alice"], start_s=0, reservation=2))
        wait_for("she is let in", lambda: lab.is_let_in("alice"))
        assert session.is_open()
