"""Reading sshd's part of a process table: a /proc made of files, so that it can be any."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sentinel_exporters.collectors.ssh import Settings, read
from sentinel_exporters.errors import CollectorError
from sentinel_exporters.ssh.processes import read_processes
from sentinel_exporters.ssh.sessions import Process

SETTINGS = Settings(login_log="none")
BOOTED = 1_700_000_000
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A /proc with process 1 and the listener, 2."""
    (tmp_path / "stat").write_text(f"cpu 1 2 3\nbtime {BOOTED}\nprocesses 9\n")
    write(tmp_path, 1, "systemd", 0)
    write(tmp_path, 2, "sshd", 1, cgroup="0::/system.slice/ssh.service\n")
    return tmp_path


def write(
    proc: Path,
    pid: int,
    comm: str,
    ppid: int,
    *,
    tty: int = 0,
    uid: int = 0,
    state: str = "S",
    threads: int = 1,
    started_s: int = 0,
    ns_pid: str = "",
    cgroup: str = "0::/\n",
    login_uid: int | None = None,
) -> None:
    """Write one process in the kernel's formats: proc_pid_stat(5), proc_pid_status(5)."""
    folder = proc / str(pid)
    folder.mkdir()
    before = f"{pid} ({comm}) {state} {ppid} {pid} {pid} {tty} -1 4194560 0 0 0 0 1 2 3 4 20 0"
    after = f"{threads} 0 {started_s * TICKS_PER_S} 9 9\n"
    (folder / "stat").write_text(f"{before} {after}")
    (folder / "status").write_text(
        f"Name:\t{comm}\nUmask:\t0022\nState:\t{state} (x)\nPid:\t{pid}\nPPid:\t{ppid}\n"
        f"TracerPid:\t0\nUid:\t{uid}\t0\t0\t0\nGroups:\t0 1\nNStgid:\t{pid}\n"
        f"NSpid:\t{ns_pid or pid}\n"
    )
    (folder / "cmdline").write_bytes(b"sshd: " + comm.encode() + b"\0\0")
    (folder / "cgroup").write_text(cgroup)
    if login_uid is not None:
        (folder / "loginuid").write_text(str(login_uid))


def by_pid(proc: Path) -> dict[int, Process]:
    return {process.pid: process for process in read_processes(proc)}


def test_only_sshds_and_their_relations_are_kept(proc: Path) -> None:
    write(proc, 3, "sshd", 2, uid=1000)
    write(proc, 4, "bash", 3, tty=34816, uid=1000)
    write(proc, 5, "vim", 4, tty=34816, uid=1000)
    write(proc, 6, "postgres", 1, uid=70)
    (proc / "self").mkdir()
    assert sorted(by_pid(proc)) == [1, 2, 3, 4]


def test_real_uid_and_title_are_read_of_sshds(proc: Path) -> None:
    write(proc, 3, "sshd", 2, uid=4711)
    found = by_pid(proc)
    assert [found[pid].uid for pid in (1, 2, 3)] == [0, 0, 4711]
    assert found[3].title == "sshd: sshd"
    reading = read(SETTINGS, proc)
    assert reading.users == {0: "root", 4711: "4711"}


def test_a_start_is_told_in_unix_time(proc: Path) -> None:
    write(proc, 3, "sshd", 2, started_s=90)
    assert by_pid(proc)[3].started == BOOTED + 90


@pytest.mark.parametrize("comm", ["init) S 7 (", "a\nb", "sshd) S 1 2", "x) y", ") ) )"])
def test_a_command_may_hold_any_character(proc: Path, comm: str) -> None:
    write(proc, 3, "sshd", 2)
    write(proc, 4, comm, 3, tty=34816)
    found = by_pid(proc)[4]
    assert (found.parent, found.command, found.has_terminal) == (3, comm, True)


@pytest.mark.parametrize("comm", ["ssh\\d", "a\nb\\", "bash"])
def test_no_name_hides_that_a_user_is_above(proc: Path, comm: str) -> None:
    """A user's shell of any name, a setuid program that is called sshd, and one below that."""
    write(proc, 3, comm, 1, uid=1000)
    # The kernel escapes in `status` what it does not in `stat`.
    status = proc / "3" / "status"
    escaped = comm.replace("\\", "\\\\").replace("\n", "\\n")
    status.write_text(status.read_text().replace(f"Name:\t{comm}", f"Name:\t{escaped}"))
    write(proc, 4, "sshd", 3)
    write(proc, 5, "sshd", 4)
    assert by_pid(proc)[3].uid == 1000


def test_it_is_known_in_whose_login_an_sshd_of_roots_was_started(proc: Path) -> None:
    cgroup = "1:name=systemd:/\n0::/user.slice/user-1000.slice/session-3.scope\n"
    write(proc, 3, "sshd", 1, cgroup=cgroup)
    write(proc, 4, "sshd", 1, cgroup="0::/user.slice/user-1000.slice\n")
    # pam_loginuid's word is the better one: (uid_t) -1 is nobody's.
    write(proc, 5, "sshd", 1, cgroup=cgroup, login_uid=1001)
    write(proc, 6, "sshd", 1, cgroup=cgroup, login_uid=2**32 - 1)
    write(proc, 7, "sshd", 2, uid=1000, cgroup=cgroup, login_uid=1000)
    found = by_pid(proc)
    assert [found[pid].login_uid for pid in range(2, 8)] == [None, 1000, 1000, 1001, 1000, None]


def test_what_is_in_a_pid_namespace_of_its_own_is_known(proc: Path) -> None:
    write(proc, 3, "sshd", 1, ns_pid="3\t1")
    found = by_pid(proc)
    assert [found[pid].is_contained for pid in (2, 3)] == [False, True]


def test_a_dead_process_is_left_out_and_one_whose_first_thread_ended_is_not(proc: Path) -> None:
    write(proc, 3, "sshd", 2, uid=1000)
    write(proc, 4, "bash", 3, state="Z")
    write(proc, 5, "python", 3, state="Z", threads=3)
    assert sorted(by_pid(proc)) == [1, 2, 3, 5]


@pytest.mark.parametrize("file", ["stat", "status", "cmdline"])
def test_a_process_that_ends_meanwhile_is_left_out(proc: Path, file: str) -> None:
    write(proc, 3, "sshd", 2, uid=1000)
    write(proc, 4, "sshd", 2, uid=1001)
    (proc / "3" / file).unlink()
    (proc / "5").mkdir()
    assert sorted(by_pid(proc)) == [1, 2, 4]


@pytest.mark.parametrize("change", [("Name:\tsshd", "Name:\tcat"), ("PPid:\t2", "PPid:\t1")])
def test_a_number_that_another_process_has_got_meanwhile_is_left_out(
    proc: Path, change: tuple[str, str]
) -> None:
    write(proc, 3, "sshd", 2, uid=1000)
    status = proc / "3" / "status"
    status.write_text(status.read_text().replace(*change))
    assert sorted(by_pid(proc)) == [1, 2]


def test_a_hidden_process_table_is_a_failure_and_not_an_empty_machine(tmp_path: Path) -> None:
    (tmp_path / "stat").write_text(f"btime {BOOTED}\n")
    write(tmp_path, os.getpid(), "python", 1)
    with pytest.raises(CollectorError, match="hidepid"):
        read(SETTINGS, tmp_path)
