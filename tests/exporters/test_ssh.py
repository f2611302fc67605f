"""Finding SSH sessions among processes: descent counts, titles of users do not."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from sentinel_exporters.collectors.ssh import (
    CONNECTIONS,
    COUNTED_SINCE,
    FAILURES,
    LOG_READABLE,
    LOGINS,
    NEWEST,
    OLDEST,
    SESSIONS,
    USER_CHANNELS,
    USER_CONNECTIONS,
    Reading,
    Settings,
    is_present,
    parse,
)
from sentinel_exporters.ssh.login_log import LoginReading
from sentinel_exporters.ssh.sessions import Connection, Process, find_connections

ALICE, BOB, SSHD = 1000, 1001, 106
USERS = {0: "root", ALICE: "alice", BOB: "bob", SSHD: "sshd"}
INIT = Process(1, 0, "systemd", uid=0)
LISTENER = Process(10, 1, "sshd", uid=0, title="sshd: /usr/sbin/sshd -D [listener] 0 of 10-100")


def monitor(pid: int, user: str, command: str = "sshd") -> Process:
    return Process(pid, 10, command, uid=0, title=f"{command}: {user} [priv]")


def session(pid: int, parent: int, uid: int, command: str = "sshd", where: str = "") -> Process:
    title = f"{command}: {USERS.get(uid, uid)}{where}"
    return Process(pid, parent, command, uid=uid, title=title, started=float(pid))


def child(
    pid: int, parent: int, *, has_terminal: bool = False, command: str = "bash"
) -> Process:
    return Process(pid, parent, command, has_terminal, started=float(pid))


def root_session(pid: int, title: str, parent: int = 10, command: str = "sshd") -> Process:
    return Process(pid, parent, command, uid=0, title=title)


def find(*processes: Process) -> list[Connection]:
    return find_connections((INIT, LISTENER, *processes), USERS)


def count(*processes: Process) -> dict[tuple[str, str], int]:
    return dict(Counter((one.user, at.type) for one in find(*processes) for at in one.sessions))


def test_nobody_logged_in_is_no_session() -> None:
    assert find() == []


@pytest.mark.parametrize("command", ["sshd", "sshd-session"])
def test_a_terminal_a_command_and_a_bare_connection_are_told_apart(command: str) -> None:
    processes = [
        monitor(20, "alice", command), session(21, 20, ALICE, command, "@pts/0"),
        child(22, 21, has_terminal=True),
        monitor(30, "alice", command), session(31, 30, ALICE, command, "@notty"), child(32, 31),
        monitor(40, "bob", command), session(41, 40, BOB, command),
    ]  # fmt: skip
    assert count(*processes) == {
        ("alice", "pty"): 1,
        ("alice", "exec"): 1,
        ("bob", "forward-only"): 1,
    }
    assert len(find(*processes)) == 3


def test_one_connection_may_carry_many_sessions() -> None:
    processes = [monitor(20, "alice"), session(21, 20, ALICE, where="@pts/0,pts/12")]
    processes += [child(22, 21, has_terminal=True), child(23, 21, has_terminal=True)]
    processes += [child(24, 21, command="sftp-server")]
    assert count(*processes) == {("alice", "pty"): 2, ("alice", "exec"): 1}
    assert [one.channels for one in find(*processes)] == [3]


def test_a_connection_that_only_forwards_has_no_channel() -> None:
    assert [one.channels for one in find(monitor(20, "bob"), session(21, 20, BOB))] == [0]


def test_what_runs_inside_a_session_is_no_session() -> None:
    assert count(
        monitor(20, "alice"), session(21, 20, ALICE), child(22, 21, has_terminal=True),
        child(23, 22, has_terminal=True), child(24, 23),
    ) == {("alice", "pty"): 1}  # fmt: skip


def test_a_file_transfer_inside_of_sshd_is_one_command() -> None:
    assert count(
        monitor(20, "alice"), session(21, 20, ALICE, where="@notty"),
        session(22, 21, ALICE, where="@internal-sftp"),
    ) == {("alice", "exec"): 1}  # fmt: skip


@pytest.mark.parametrize(
    ("where", "has_terminal", "kind"),
    [
        # A child that made a terminal of its own, and one that let go of sshd's.
        ("@notty", True, "exec"),
        ("@pts/3", False, "pty"),
        # Titles that sshd had to cut: what the kernel says of the child has to do.
        ("@pts/3,pt", True, "pty"),
        ("@not", False, "exec"),
        ("", True, "pty"),
    ],
)
def test_sshd_knows_better_than_the_child_whether_there_is_a_terminal(
    where: str, has_terminal: bool, kind: str
) -> None:
    processes = [monitor(20, "alice"), session(21, 20, ALICE, where=where)]
    assert count(*processes, child(22, 21, has_terminal=has_terminal)) == {("alice", kind): 1}


def test_a_name_that_a_directory_service_made_may_hold_an_at() -> None:
    there = Process(21, 20, "sshd", uid=4711, title="sshd: alice@lab.example@notty")
    processes = [LISTENER, monitor(20, "alice@lab.example"), there, child(22, 21)]
    assert find_connections(processes, {4711: "alice@lab.example"}) == [
        Connection("alice@lab.example", find(*processes)[0].sessions)
    ]
    assert find(*processes)[0].sessions[0].type == "exec"


def test_a_session_begins_with_its_command_and_a_bare_connection_with_the_login() -> None:
    processes = [monitor(20, "alice"), session(21, 20, ALICE, where="@pts/0"),
                 child(25, 21, has_terminal=True), child(29, 21),
                 monitor(30, "bob"), session(31, 30, BOB)]  # fmt: skip
    starts = [(at.type, at.started) for one in find(*processes) for at in one.sessions]
    assert starts == [("pty", 25.0), ("exec", 29.0), ("forward-only", 31.0)]


# What a user may try.


def test_a_users_own_program_called_sshd_is_no_connection() -> None:
    fake = Process(50, 49, "sshd", True, uid=ALICE, title="sshd: bob@pts/9")
    orphan = Process(60, 1, "sshd", uid=ALICE, title="sshd: bob@pts/9")
    below = Process(51, 50, "sshd", uid=ALICE, title="sshd: bob@pts/9")
    assert count(child(49, 1), fake, orphan, below) == {}


def test_a_user_cannot_pass_for_another_by_a_title() -> None:
    liar = Process(21, 20, "sshd", uid=ALICE, title="sshd: bob@pts/0")
    assert count(monitor(20, "alice"), liar) == {("alice", "forward-only"): 1}


# A setuid program is root's in /proc, with the name and title that its caller chose.
SETUID = Process(50, 49, "sshd", uid=0, title="sshd: root@pts/0")


def test_a_setuid_program_below_a_user_is_no_session_of_roots() -> None:
    shell = replace(child(49, 48, has_terminal=True), uid=ALICE)
    processes = [monitor(47, "alice"), session(48, 47, ALICE, where="@pts/0"), shell, SETUID]
    assert count(*processes) == {("alice", "pty"): 1}
    # Nor is it one when it has a whole family.
    family = [replace(SETUID, pid=60, title="sshd: bob [priv]"), session(61, 60, BOB)]
    assert count(*processes, *family) == {("alice", "pty"): 1}


def test_a_setuid_program_whose_parent_has_ended_is_still_in_its_users_login() -> None:
    orphan = replace(SETUID, parent=1, login_uid=ALICE)
    listener = replace(SETUID, pid=60, parent=1, login_uid=ALICE, title="sshd: x [listener]")
    below = replace(SETUID, pid=61, parent=60, login_uid=ALICE)
    feigned = replace(monitor(70, "bob"), parent=60, login_uid=ALICE)
    assert count(orphan, listener, below, feigned, session(71, 70, BOB)) == {}


def test_a_listener_that_somebody_has_started_by_sudo_lets_others_in_too() -> None:
    listener = replace(LISTENER, login_uid=ALICE)
    processes = [listener, replace(monitor(20, "bob"), login_uid=BOB), session(21, 20, BOB)]
    assert [one.user for one in find_connections(processes, USERS)] == ["bob"]


def test_sessions_stay_when_the_listener_has_been_restarted() -> None:
    """They are init's children then, each in its own user's login or in none."""
    monitors = [
        replace(monitor(20, "alice"), parent=1, login_uid=ALICE),
        replace(monitor(30, "bob"), parent=1),
    ]
    of_root = replace(root_session(40, "sshd: root@notty"), parent=1, login_uid=0)
    assert count(
        *monitors, session(21, 20, ALICE), session(31, 30, BOB), of_root, child(41, 40)
    ) == {
        ("alice", "forward-only"): 1,
        ("bob", "forward-only"): 1,
        ("root", "exec"): 1,
    }


def test_an_sshd_in_a_container_has_users_of_its_own() -> None:
    processes = [monitor(20, "alice"), session(21, 20, ALICE), root_session(30, "sshd: root")]
    assert count(*(replace(one, is_contained=True) for one in processes)) == {}


# Logins under way, and root.


def test_a_login_that_is_not_done_yet_is_no_session() -> None:
    assert count(
        Process(20, 10, "sshd", uid=0, title="sshd: [accepted]"),
        monitor(30, "alice"), session(31, 30, SSHD, where=" [net]"),
        monitor(40, "root"), session(41, 40, SSHD),
        # Distributions may have another user for that than sshd.
        monitor(50, "unknown"), session(51, 50, BOB, where=" [net]"),
        # Logged in, but its title is still the monitor's.
        monitor(55, "alice"), session(56, 55, ALICE, where=" [priv]"),
        # OpenSSH 10 has a program of its own for that.
        monitor(60, "bob", "sshd-session"), child(61, 60, command="sshd-auth"),
    ) == {}  # fmt: skip


# The last is the second sshd that the lock's installation starts for operators.
@pytest.mark.parametrize("command", ["sshd", "sshd-session", "sentinel-breakglass-sshd"])
@pytest.mark.parametrize(
    ("title", "kind"), [("root@pts/0", "pty"), ("root@notty", "exec"), ("root", "forward-only")]
)
def test_roots_sessions_are_told_by_the_title(command: str, title: str, kind: str) -> None:
    # The kernel keeps 15 characters of a name, and sshd's title all of it.
    processes = [root_session(20, f"{command}: {title}", command=command[:15])]
    if kind != "forward-only":
        processes.append(child(21, 20, has_terminal=kind == "pty"))
    assert count(*processes) == {("root", kind): 1}


def test_root_has_a_monitor_too_since_9_8() -> None:
    name = "sshd-session"
    processes = [root_session(20, f"{name}: root [priv]", command=name)]
    processes += [root_session(21, f"{name}: root@pts/0", parent=20, command=name)]
    assert count(*processes, child(22, 21, has_terminal=True)) == {("root", "pty"): 1}


def test_roots_file_transfer_is_one_command_and_no_second_connection() -> None:
    processes = [
        root_session(20, "sshd: root@notty"),
        root_session(21, "sshd: root@internal-sftp", parent=20),
    ]
    assert count(*processes) == {("root", "exec"): 1}
    assert len(find(*processes)) == 1


@pytest.mark.parametrize(
    "title",
    [
        "sshd: /usr/sbin/sshd -D [listener] 0 of 10-100 startups", "sshd: root [priv]",
        "sshd: root [pam]", "sshd: rootkit@pts/0", "/usr/sbin/sshd -D", "sshd -i", "",
        "watch sshd: root@pts/0", "sshd: alice", "sshd: alice@root@pts/0",
    ],
)  # fmt: skip
def test_roots_other_processes_are_no_sessions(title: str) -> None:
    assert count(root_session(20, title)) == {}


def test_a_user_that_has_no_name_is_a_number() -> None:
    assert count(monitor(20, "4711"), session(21, 20, 4711)) == {("4711", "forward-only"): 1}


def test_a_table_whose_ancestors_run_in_a_circle_ends_the_search() -> None:
    one, other = monitor(20, "alice"), Process(30, 20, "sshd", uid=0)
    assert count(replace(one, parent=30), other, session(21, 20, ALICE)) == {}


# The series.

NO_LOG = LOG_READABLE.sample(0, "none")


def test_who_is_not_there_has_no_series_and_nobody_is_a_zero() -> None:
    assert parse(Reading((LISTENER,), USERS)).samples == [CONNECTIONS.sample(0), NO_LOG]


def test_series_say_how_many_and_since_when() -> None:
    processes = (
        LISTENER,
        monitor(20, "bob"), session(21, 20, BOB), monitor(30, "bob"), session(31, 30, BOB),
        monitor(40, "bob"), session(41, 40, BOB, where="@notty"), child(42, 41), child(43, 41),
    )  # fmt: skip
    assert parse(Reading(processes, USERS)).samples == [
        CONNECTIONS.sample(3),
        USER_CONNECTIONS.sample(3, "bob"),
        USER_CHANNELS.sample(2, "bob"),
        SESSIONS.sample(2, "bob", "exec"),
        OLDEST.sample(42, "bob", "exec"),
        NEWEST.sample(43, "bob", "exec"),
        SESSIONS.sample(2, "bob", "forward-only"),
        OLDEST.sample(21, "bob", "forward-only"),
        NEWEST.sample(31, "bob", "forward-only"),
        NO_LOG,
    ]


def test_where_no_log_can_be_read_there_are_no_counts_and_a_series_says_so() -> None:
    scrape = parse(Reading((), USERS, LoginReading()))
    assert scrape.samples == [CONNECTIONS.sample(0), NO_LOG]
    assert scrape.problems == ()


def test_logins_and_failures_are_told_with_their_beginning() -> None:
    logins = LoginReading("journal", 99.0, {("bob", "password"): 2}, {"timeout": 0})
    assert parse(Reading((), USERS, logins)).samples == [
        CONNECTIONS.sample(0),
        LOG_READABLE.sample(1, "journal"),
        COUNTED_SINCE.sample(99),
        LOGINS.sample(2, "bob", "password"),
        FAILURES.sample(0, "timeout"),
    ]


def test_counts_stay_while_the_log_cannot_be_read() -> None:
    logins = LoginReading("none", 99.0, {("bob", "password"): 2}, {"timeout": 3})
    samples = parse(Reading((), USERS, logins)).samples
    assert LOG_READABLE.sample(0, "none") in samples
    assert LOGINS.sample(2, "bob", "password") in samples


@pytest.mark.parametrize("value", ["auth.log", "", "./x", "Journal"])
def test_a_login_log_that_cannot_be_one_is_refused(value: str) -> None:
    with pytest.raises(ValidationError, match="absolute path"):
        Settings(login_log=value)


def test_the_source_is_present_where_there_is_an_ssh_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sshd").write_text("")
    (tmp_path / "sshd").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert is_present(Settings())
