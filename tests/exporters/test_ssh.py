"""Counting SSH sessions in a process table: descent counts, titles of users do not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sentinel_exporters.collectors.ssh import (
    CONNECTIONS,
    SESSIONS,
    Process,
    Reading,
    count_sessions,
    is_present,
    parse,
    read,
)
from sentinel_exporters.core import CollectorSettings
from sentinel_exporters.errors import CollectorError

ALICE, BOB, SSHD = 1000, 1001, 106
USERS = {0: "root", ALICE: "alice", BOB: "bob", SSHD: "sshd"}
LISTENER = Process(10, 1, "sshd", False, 0, "sshd: /usr/sbin/sshd -D [listener] 0 of 10-100")


def monitor(pid: int, user: str, command: str = "sshd") -> Process:
    return Process(pid, 10, command, False, 0, f"{command}: {user} [priv]")


def session(pid: int, parent: int, uid: int, command: str = "sshd") -> Process:
    return Process(pid, parent, command, False, uid)


def child(
    pid: int, parent: int, *, has_terminal: bool = False, command: str = "bash"
) -> Process:
    return Process(pid, parent, command, has_terminal)


def root_session(pid: int, title: str, parent: int = 10, command: str = "sshd") -> Process:
    return Process(pid, parent, command, False, 0, title)


def count(*processes: Process) -> dict[tuple[str, str], int]:
    sessions, _ = count_sessions((LISTENER, *processes), USERS)
    return dict(sessions)


def connections(*processes: Process) -> int:
    return count_sessions((LISTENER, *processes), USERS)[1]


def test_nobody_logged_in_is_no_session() -> None:
    assert count() == {}
    assert connections() == 0


@pytest.mark.parametrize("command", ["sshd", "sshd-session"])
def test_a_terminal_a_command_and_a_bare_connection_are_told_apart(command: str) -> None:
    processes = [
        monitor(20, "alice", command), session(21, 20, ALICE, command),
        child(22, 21, has_terminal=True),
        monitor(30, "alice", command), session(31, 30, ALICE, command), child(32, 31),
        monitor(40, "bob", command), session(41, 40, BOB, command),
    ]  # fmt: skip
    assert count(*processes) == {
        ("alice", "pty"): 1,
        ("alice", "exec"): 1,
        ("bob", "forward"): 1,
    }
    assert connections(*processes) == 3


def test_one_connection_may_carry_many_sessions() -> None:
    processes = [monitor(20, "alice"), session(21, 20, ALICE)]
    processes += [child(22, 21, has_terminal=True), child(23, 21, has_terminal=True)]
    processes += [child(24, 21, command="sftp-server")]
    assert count(*processes) == {("alice", "pty"): 2, ("alice", "exec"): 1}
    assert connections(*processes) == 1


def test_what_runs_inside_a_session_is_no_session() -> None:
    assert count(
        monitor(20, "alice"), session(21, 20, ALICE), child(22, 21, has_terminal=True),
        child(23, 22, has_terminal=True), child(24, 23),
    ) == {("alice", "pty"): 1}  # fmt: skip


def test_a_file_transfer_inside_of_sshd_is_one_command() -> None:
    assert count(
        monitor(20, "alice"), session(21, 20, ALICE), session(22, 21, ALICE)
    ) == {("alice", "exec"): 1}  # fmt: skip


def test_a_users_own_program_called_sshd_is_no_connection() -> None:
    fake = Process(50, 49, "sshd", True, ALICE, "sshd: bob@pts/9")
    orphan = Process(60, 1, "sshd", False, ALICE, "sshd: bob@pts/9")
    init = Process(1, 0, "systemd", False)
    assert count(init, child(49, 1), fake, orphan) == {}


def test_a_user_cannot_pass_for_another_by_a_title() -> None:
    liar = Process(21, 20, "sshd", False, ALICE, "sshd: bob@pts/0")
    assert count(monitor(20, "alice"), liar) == {("alice", "forward"): 1}


def test_a_login_that_is_not_done_yet_is_no_session() -> None:
    assert count(
        Process(20, 10, "sshd", False, 0, "sshd: [accepted]"),
        monitor(30, "alice"), session(31, 30, SSHD),
        monitor(40, "root"), session(41, 40, SSHD),
        monitor(50, "unknown"), session(51, 50, SSHD),
        # OpenSSH 10 has a program of its own for that.
        monitor(60, "bob", "sshd-session"), child(61, 60, command="sshd-auth"),
    ) == {}  # fmt: skip


# The last is the second sshd that the lock's installation starts for operators.
@pytest.mark.parametrize("command", ["sshd", "sshd-session", "sentinel-breakglass"])
@pytest.mark.parametrize(
    ("title", "kind"), [("root@pts/0", "pty"), ("root@notty", "exec"), ("root", "forward")]
)
def test_roots_sessions_are_told_by_the_title(command: str, title: str, kind: str) -> None:
    # The kernel keeps 15 characters of a name, and sshd's title all of it.
    processes = [root_session(20, f"{command}: {title}", command=command[:15])]
    if kind != "forward":
        processes.append(child(21, 20, has_terminal=kind == "pty"))
    assert count(*processes) == {("root", kind): 1}


def test_roots_file_transfer_is_one_command_and_no_second_connection() -> None:
    processes = [
        root_session(20, "sshd: root@notty"),
        root_session(21, "sshd: root@internal-sftp", parent=20),
    ]
    assert count(*processes) == {("root", "exec"): 1}
    assert connections(*processes) == 1


@pytest.mark.parametrize(
    "title",
    [
        "sshd: /usr/sbin/sshd -D [listener] 0 of 10-100 startups", "sshd: root [priv]",
        "sshd: root [pam]", "sshd: rootkit@pts/0", "/usr/sbin/sshd -D", "sshd -i", "",
        "watch sshd: root@pts/0",
    ],
)  # fmt: skip
def test_roots_other_processes_are_no_sessions(title: str) -> None:
    assert count(root_session(20, title)) == {}


def test_a_user_that_has_no_name_is_a_number() -> None:
    assert count(monitor(20, "4711"), session(21, 20, 4711)) == {("4711", "forward"): 1}


def test_who_is_not_there_has_no_series_and_nobody_is_a_zero() -> None:
    assert parse(Reading((LISTENER,), USERS)).samples == [CONNECTIONS.sample(0)]
    processes = (LISTENER, monitor(20, "bob"), session(21, 20, BOB))
    assert parse(Reading(processes, USERS)).samples == [
        SESSIONS.sample(1, "bob", "forward"),
        CONNECTIONS.sample(1),
    ]


# The process table itself.


def write_process(
    proc: Path, pid: int, comm: str, ppid: int, *, tty: int = 0, uid: int = 0, state: str = "S"
) -> None:
    folder = proc / str(pid)
    folder.mkdir()
    (folder / "stat").write_text(f"{pid} ({comm}) {state} {ppid} {pid} {pid} {tty} -1 0\n")
    (folder / "status").write_text(f"Name:\t{comm}\nUid:\t{uid}\t0\t0\t0\n")
    (folder / "cmdline").write_bytes(b"sshd: " + comm.encode() + b"\0\0")


def test_a_command_may_hold_any_character(tmp_path: Path) -> None:
    write_process(tmp_path, 1, "init) S 7 (", 0)
    write_process(tmp_path, 2, "a\nb", 1, tty=34816)
    found = {process.pid: process for process in read(CollectorSettings(), tmp_path).processes}
    assert found[1] == Process(1, 0, "init) S 7 (", False)
    assert found[2] == Process(2, 1, "a\nb", True)


def test_a_process_that_ends_meanwhile_or_is_dead_is_left_out(tmp_path: Path) -> None:
    write_process(tmp_path, 1, "init", 0)
    write_process(tmp_path, 2, "bash", 1, state="Z")
    write_process(tmp_path, 3, "sshd", 1, uid=1000)
    (tmp_path / "3" / "status").unlink()
    (tmp_path / "4").mkdir()
    (tmp_path / "self").mkdir()
    assert [process.pid for process in read(CollectorSettings(), tmp_path).processes] == [1]


def test_the_real_uid_counts_and_only_sshd_is_asked(tmp_path: Path) -> None:
    write_process(tmp_path, 1, "init", 0)
    write_process(tmp_path, 2, "sshd", 1)
    write_process(tmp_path, 3, "sshd", 2, uid=4711)
    reading = read(CollectorSettings(), tmp_path)
    by_pid = {process.pid: process for process in reading.processes}
    assert [by_pid[pid].uid for pid in (1, 2, 3)] == [None, 0, 4711]
    assert [by_pid[pid].title for pid in (2, 3)] == ["sshd: sshd  ", ""]
    assert reading.users == {0: "root", 4711: "4711"}


def test_a_hidden_process_table_is_a_failure_and_not_an_empty_machine(tmp_path: Path) -> None:
    write_process(tmp_path, os.getpid(), "python", 1)
    with pytest.raises(CollectorError, match="hidepid"):
        read(CollectorSettings(), tmp_path)


def test_the_source_is_present_where_there_is_an_ssh_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sshd").write_text("")
    (tmp_path / "sshd").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert is_present(CollectorSettings())
