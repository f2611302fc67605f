"""Which log is followed, and what is said while there is none."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from sentinel_exporters.ssh.login_log import LoginLog, LoginReading
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
