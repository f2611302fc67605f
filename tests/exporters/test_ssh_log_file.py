"""Following a log file through all that a logging daemon and logrotate do to one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from sentinel_exporters.errors import CollectorError
from sentinel_exporters.ssh.log_file import LogFile

HEAD = "Nov 21 10:00:00 gpu-01 sshd[7]: "


@pytest.fixture
def path(tmp_path: Path) -> Path:
    log = tmp_path / "auth.log"
    log.write_text(f"{HEAD}before us\n")
    return log


@pytest.fixture
def log(path: Path) -> Iterator[LogFile]:
    followed = LogFile(path)
    yield followed
    followed.close()


def append(path: Path, *messages: str) -> None:
    with path.open("a") as file:
        file.write("".join(f"{HEAD}{message}\n" for message in messages))


def read(log: LogFile) -> list[str]:
    return [message for _, message in log.read()]


def test_only_what_is_written_from_now_on_is_read(path: Path, log: LogFile) -> None:
    assert read(log) == []
    append(path, "a", "b")
    assert log.read() == [(7, "a"), (7, "b")]
    assert read(log) == []


@pytest.mark.parametrize(
    "line",
    [
        "Nov 21 10:00:00 gpu-01 sshd[4711]: hello",
        "Nov  1 10:00:00 gpu-01.lab.example sshd-session[4711]: hello",
        "2026-11-21T10:00:00.123456+01:00 gpu-01 sshd[4711]: hello",
        "2026-11-21T10:00:00Z gpu-01 sshd[4711]: hello",
        "<38>Nov 21 10:00:00 sshd[4711]: hello",
        "Nov 21 10:00:00 gpu-01 sentinel-breakglass-sshd[4711]: hello",
    ],
)
def test_the_formats_of_the_usual_daemons_are_known(
    path: Path, log: LogFile, line: str
) -> None:
    with path.open("a") as file:
        file.write(f"{line}\n")
    assert log.read() == [(4711, "hello")]


@pytest.mark.parametrize(
    "line",
    [
        "Nov 21 10:00:00 gpu-01 sudo[7]: alice : COMMAND=/bin/echo sshd[1]: Accepted",
        "Nov 21 10:00:00 gpu-01 sudo: sshd[1]: Accepted password for root",
        "Nov 21 10:00:00 gpu-01 sshdx[7]: hello",
        "Nov 21 10:00:00 gpu-01 sshd: hello",
        "sshd[7]: hello",
        "hello Nov 21 10:00:00 gpu-01 sshd[7]: hello",
        "",
    ],
)
def test_what_other_programs_write_is_left_out(path: Path, log: LogFile, line: str) -> None:
    with path.open("a") as file:
        file.write(f"{line}\n")
    append(path, "next")
    assert read(log) == ["next"]


def test_a_line_counts_when_it_is_whole(path: Path, log: LogFile) -> None:
    with path.open("a") as file:
        for part in (f"{HEAD}Acc", "epted", " x\n", HEAD):
            file.write(part)
            file.flush()
            seen = read(log)
            assert seen == (["Accepted x"] if "\n" in part else [])
    append(path, "y")
    assert read(log) == [f"{HEAD}y"]


def test_the_end_of_a_line_that_began_before_us_is_no_line(path: Path) -> None:
    with path.open("a") as file:
        file.write("Nov 21 10:00:00 gpu-01 sudo[1]: ")
    log = LogFile(path)
    append(path, "not sshd's, but the rest of sudo's", "sshd's")
    assert read(log) == ["sshd's"]
    log.close()


def test_bytes_that_are_no_text_do_no_harm(path: Path, log: LogFile) -> None:
    with path.open("ab") as file:
        file.write(b"\xff\xfe\0\0\n" + HEAD.encode() + b"Invalid user \xff\xc3\x28 from h\n")
    append(path, "next")
    assert read(log) == ["Invalid user \ufffd\ufffd( from h", "next"]


def test_a_line_without_end_is_left_out_and_costs_no_memory(path: Path, log: LogFile) -> None:
    with path.open("a") as file:
        file.write(HEAD + "x" * (10 << 20))
    for _ in range(5):
        assert read(log) == []
    with path.open("a") as file:
        file.write("\n")
    append(path, "next")
    assert read(log) == ["next"]


def test_much_at_once_is_read_in_parts_and_in_order(path: Path, log: LogFile) -> None:
    messages = [f"{number} {'x' * 400}" for number in range(30_000)]
    append(path, *messages)
    parts = []
    while part := read(log):
        parts.append(part)
    assert len(parts) > 1
    assert [message for part in parts for message in part] == messages


# Rotation.


def test_a_log_that_was_renamed_is_read_to_its_end_and_then_the_new_one(
    path: Path, log: LogFile
) -> None:
    append(path, "a")
    old = path.rename(path.with_suffix(".1"))
    append(old, "b")
    # The new file is there, but the daemon has not been told yet.
    path.touch()
    append(old, "c")
    assert read(log) == ["a", "b", "c"]
    append(old, "d")
    append(path, "e")
    assert read(log) == ["d", "e"]
    append(path, "f")
    assert read(log) == ["f"]


def test_a_log_that_is_made_anew_only_by_the_next_message_is_waited_for(
    path: Path, log: LogFile
) -> None:
    path.rename(path.with_suffix(".1"))
    assert read(log) == []
    append(path, "a")
    assert read(log) == ["a"]


def test_a_rotation_while_we_are_behind_loses_nothing(path: Path, log: LogFile) -> None:
    messages = [f"{number} {'x' * 400}" for number in range(30_000)]
    append(path, *messages)
    path.rename(path.with_suffix(".1"))
    append(path, "last")
    seen = []
    while part := read(log):
        seen += part
    assert seen == [*messages, "last"]


def test_a_log_that_was_copied_and_cut_is_read_from_its_beginning(
    path: Path, log: LogFile
) -> None:
    append(path, "a")
    assert read(log) == ["a"]
    shutil.copy(path, path.with_suffix(".1"))
    os.truncate(path, 0)
    append(path, "b")
    assert read(log) == ["b"]


def test_a_log_that_was_cut_and_is_longer_again_is_read_from_its_beginning(
    path: Path, log: LogFile
) -> None:
    append(path, "a")
    assert read(log) == ["a"]
    os.truncate(path, 0)
    append(path, *(f"new {number}" for number in range(20)))
    assert read(log) == [f"new {number}" for number in range(20)]


def test_a_daemon_that_writes_on_where_it_was_leaves_a_hole_that_does_no_harm(
    path: Path, log: LogFile
) -> None:
    with path.open("r+b") as file:
        file.seek(0, os.SEEK_END)
        file.write(f"{HEAD}a\n".encode())
        file.flush()
        assert read(log) == ["a"]
        os.truncate(path, 0)
        file.write(f"{HEAD}in the hole's line\n{HEAD}b\n".encode())
    assert read(log) == ["b"]


# What cannot be read.


def test_a_log_that_is_not_there_or_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("none", "pipe", "."):
        with pytest.raises(CollectorError):
            LogFile(tmp_path / name)


def test_a_log_that_was_removed_is_said_and_its_successor_read(
    path: Path, log: LogFile
) -> None:
    path.unlink()
    with pytest.raises(CollectorError, match=r"auth\.log: No such file"):
        log.read()
    append(path, "a")
    assert read(log) == ["a"]


def test_nothing_that_was_read_is_lost_when_the_new_log_is_no_file(
    path: Path, log: LogFile
) -> None:
    append(path, "a")
    path.rename(path.with_suffix(".1"))
    path.mkdir()
    (path / "x").touch()
    assert read(log) == ["a"]
    with pytest.raises(CollectorError, match="not a file"):
        log.read()
    shutil.rmtree(path)
    append(path, "b")
    assert read(log) == ["b"]
