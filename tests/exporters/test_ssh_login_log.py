"""Which log is followed, and what is said while there is none."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sentinel_exporters.ssh.login_log import UNKNOWN_S, LoginLog, LoginReading, UserNames
from tests.lab.wait import wait_for

HEAD = "Nov 21 10:00:00 gpu-01 sshd[7]: "
LOGIN = f"{HEAD}Accepted password for root from 198.51.100.7 port 1 ssh2\n"


@contextlib.contextmanager
def following(path: Path) -> Iterator[LoginLog]:
    log = LoginLog(str(path), retry_s=0.05)
    try:
        yield log
    finally:
        log.close()


def logins(log: LoginLog) -> dict[tuple[str, str], int]:
    return dict(log.read().logins)


def test_what_is_written_from_now_on_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "auth.log"
    path.write_text(LOGIN)
    with following(path) as log:
        assert log.read().source == "file"
        assert logins(log) == {}
        with path.open("a") as file:
            file.write(LOGIN)
        wait_for("it is counted", lambda: logins(log) == {("root", "password"): 1})
        assert log.read().failures["invalid_user"] == 0


def test_the_same_counts_go_on_through_a_time_without_log(tmp_path: Path) -> None:
    path = tmp_path / "auth.log"
    path.touch()
    with following(path) as log:
        started = log.read().started
        with path.open("a") as file:
            file.write(LOGIN)
        wait_for("it is counted", lambda: logins(log) == {("root", "password"): 1})
        path.unlink()
        wait_for("the loss is said", lambda: log.read().source == "none")
        assert logins(log) == {("root", "password"): 1}
        path.write_text(LOGIN)
        wait_for("the new one is read", lambda: logins(log) == {("root", "password"): 2})
        assert (log.read().source, log.read().started) == ("file", started)


def test_a_log_that_comes_later_is_followed_from_then_on(tmp_path: Path) -> None:
    path = tmp_path / "auth.log"
    with following(path) as log:
        assert log.read() == LoginReading("none", None, {}, {})
        path.write_text(LOGIN)
        wait_for("it is followed", lambda: log.read().source == "file")
        assert logins(log) == {}


@pytest.mark.parametrize(
    "message",
    [
        # More digits than Python makes a number of.
        "Timeout before authentication for connection from a to b, pid = " + "9" * 5000,
        "error: session process " + "9" * 5000 + " unpriv child crash",
        "exited MaxStartups throttling after 0:1, " + "9" * 5000 + " connections dropped",
        "Accepted password for " + "\\" * 3000 + "\x00 from 1.2.3.4 port 1 ssh2",
        "Accepted " * 1500,
    ],
)
def test_no_line_that_somebody_writes_ends_the_counting(tmp_path: Path, message: str) -> None:
    path = tmp_path / "auth.log"
    path.touch()
    with following(path) as log:
        with path.open("a") as file:
            file.write(f"{HEAD}{message}\n{LOGIN}")
        wait_for("what follows is counted", lambda: ("root", "password") in logins(log))
        assert log.read().source == "file"


def test_a_name_that_was_not_known_is_asked_for_again_after_a_while() -> None:
    """Its directory was away, say: she is not somebody else for as long as the node runs."""
    directory: dict[str, str] = {}
    asked, now_s = [], 1000.0

    def look_up(name: str) -> str | None:
        asked.append(name)
        return directory.get(name)

    names = UserNames(look_up, lambda: now_s)
    assert [names.find("alice"), names.find("alice")] == [None, None]
    directory["alice"] = "alice"
    now_s += UNKNOWN_S
    assert [names.find("alice"), names.find("alice")] == ["alice", "alice"]
    # Who was known stays so.
    directory.clear()
    now_s += UNKNOWN_S
    assert names.find("alice") == "alice"
    assert asked == ["alice", "alice"]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a folder of its own")
def test_a_journalctl_that_does_not_want_to_end_is_ended(tmp_path: Path) -> None:
    tool = tmp_path / "journalctl"
    tool.write_text(
        "#!/bin/bash\n[[ $* == *--follow* ]] || exit 0\n"
        f"trap '' TERM\n: > {tmp_path}/up\nexec sleep 60\n"
    )
    tool.chmod(0o755)
    script = tmp_path / "script.py"
    script.write_text(
        "import time, pathlib\n"
        "from sentinel_exporters.ssh.journal import Journal\n"
        "journal = Journal()\n"
        f"while not pathlib.Path('{tmp_path}/up').exists(): time.sleep(0.01)\n"
        "journal.close()\n"
        "print('closed', journal._process.returncode)\n"
    )
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c",
         "mount -t tmpfs none /run && mkdir -p /run/log/journal/x &&"
         " : > /run/log/journal/x/system.journal && exec \"$@\"", "sh",
         sys.executable, script],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("closed -9\n", "")


def test_nothing_is_left_open_after_the_end(tmp_path: Path) -> None:
    path = tmp_path / "auth.log"
    path.touch()
    before = os.listdir("/proc/self/fd")  # noqa: PTH208
    with following(path):
        assert str(path) in open_files()
    assert str(path) not in open_files()
    assert len(os.listdir("/proc/self/fd")) == len(before)  # noqa: PTH208


def open_files() -> set[str]:
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.add(str(link.readlink()))
    return found
