"""What the gates report is counted, whatever stands in the way of it."""

from __future__ import annotations

import os
import socket
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sentinel_agent.gates.logins import FILE_BYTES_MAX, Logins, LoginsTask
from sentinel_agent.policy.access import Access
from sentinel_agent.policy.cache import Cache
from sentinel_agent.policy.held import HeldPolicy
from sentinel_agent.server.registration import Registration
from sentinel_agent.service.metrics import Metrics
from sentinel_agent.service.status import Status
from sentinel_agent.sessions.plan import utc

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the files are root's")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "sentinel"


@pytest.fixture
def logins(folder: Path) -> Iterator[Logins]:
    """Counting has begun."""
    logins = Logins("nogroup", folder)
    assert drain(logins) == {}
    yield logins
    logins.close()


def drain(logins: Logins) -> Counter[tuple[str, str]]:
    counts, problems = logins.drain()
    assert problems == []
    return counts


def send(folder: Path, *messages: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        for message in messages:
            sender.sendto(message, str(folder / "logins.sock"))


def write(folder: Path, text: bytes) -> None:
    with (folder / "logins").open("ab") as file:
        file.write(text)


def test_both_gates_are_counted_once(folder: Path, logins: Logins) -> None:
    send(folder, b"refused alice", b"refused -")
    write(folder, b"granted alice\nrefused bob\ngranted alice\n")
    assert drain(logins) == {
        ("refused", "keys"): 2, ("granted", "pam"): 2, ("refused", "pam"): 1,
    }  # fmt: skip
    assert drain(logins) == {}
    assert [path.name for path in folder.iterdir()] == ["logins.sock"]


def test_only_the_gates_group_may_write_to_the_socket(folder: Path, logins: Logins) -> None:
    path = folder / "logins.sock"
    found = path.stat()
    assert stat.S_ISSOCK(found.st_mode)
    assert (found.st_mode & 0o7777, found.st_uid, path.group()) == (0o620, 0, "nogroup")
    assert folder.stat().st_mode & 0o7777 == 0o755


def test_what_is_no_answer_is_passed_over(folder: Path, logins: Logins) -> None:
    send(folder, b"", b"\xff\xfe", b"grant", b"granted" * 5000, b"refused bob")
    write(folder, b"\0" * 1000 + b"\ngranted\ngrantedx alice\nrefused")
    assert drain(logins) == {
        ("refused", "keys"): 1, ("granted", "pam"): 1, ("refused", "pam"): 1,
    }  # fmt: skip


def replace_by_file(path: Path) -> None:
    path.unlink()
    path.write_text("x")


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replace_by_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/null")


def replace_by_another(path: Path) -> None:
    path.unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))


@pytest.mark.parametrize(
    "damage",
    [Path.unlink, replace_by_file, replace_by_folder, replace_by_link, replace_by_another,
     lambda path: path.chmod(0o666), lambda path: os.chown(path, 1, 1)],
    ids=["gone", "file", "folder", "link", "another's", "open to all", "given away"],
)  # fmt: skip
def test_a_socket_that_is_not_ours_is_replaced(
    folder: Path, logins: Logins, damage: Callable[[Path], None]
) -> None:
    send(folder, b"refused alice")
    damage(folder / "logins.sock")
    assert drain(logins) == {("refused", "keys"): 1}
    found = (folder / "logins.sock").lstat()
    assert (stat.S_ISSOCK(found.st_mode), found.st_mode & 0o7777) == (True, 0o620)
    send(folder, b"refused alice")
    assert drain(logins) == {("refused", "keys"): 1}


@pytest.mark.parametrize("kind", ["folder", "pipe", "link"])
def test_what_is_no_file_is_removed_and_reported(
    folder: Path, logins: Logins, kind: str
) -> None:
    path = folder / "logins"
    match kind:
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "link":
            path.symlink_to("/etc/passwd")
    send(folder, b"refused alice")
    counts, problems = logins.drain()
    assert counts == {("refused", "keys"): 1}
    assert len(problems) == 1
    write(folder, b"granted alice\n")
    assert drain(logins) == {("granted", "pam"): 1}


def test_a_folder_that_others_can_write_is_not_listened_in(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)
    logins = Logins("nogroup", folder)
    write(folder, b"granted alice\n")
    counts, problems = logins.drain()
    assert counts == {("granted", "pam"): 1}
    assert problems == [f"logins are not counted: {folder}: others than root can write in it"]
    assert not (folder / "logins.sock").exists()


def test_without_the_group_it_is_reported_and_tried_again(folder: Path) -> None:
    logins = Logins("no-such-group", folder)
    for _ in range(2):
        assert logins.drain() == ({}, ["logins are not counted: no group no-such-group"])


def test_a_new_agent_takes_over_from_one_that_was_killed(folder: Path, logins: Logins) -> None:
    again = Logins("nogroup", folder)
    assert drain(again) == {}
    send(folder, b"refused alice")
    assert drain(again) == {("refused", "keys"): 1}
    again.close()


def test_a_flood_is_counted_in_parts_and_takes_little_memory(
    folder: Path, logins: Logins
) -> None:
    sent = 0
    with pytest.raises(BlockingIOError):
        for _ in range(100_000):
            send(folder, b"refused alice")
            sent += 1
    assert 0 < sent < 100_000
    with (folder / "logins").open("wb") as file:
        # A file of holes: it takes no memory to make.
        file.truncate(1 << 40)
    assert drain(logins) == {("refused", "keys"): sent}
    write(folder, b"granted alice\n" * (FILE_BYTES_MAX // 7))
    assert drain(logins)["granted", "pam"] <= FILE_BYTES_MAX // 14 + 1


def test_the_counters_rise_by_what_was_reported(folder: Path, logins: Logins) -> None:
    registration = Registration("gpu-01", "token", "http://server", utc(0))
    files = Cache(folder / "policy.json", "nogroup"), Access(folder / "access")
    metrics = Metrics(HeldPolicy(*files, registration), Status())
    task = LoginsTask(logins, metrics)

    def value(result: str, gate: str) -> float | None:
        labels = {"result": result, "gate": gate}
        return metrics.registry.get_sample_value("sentinel_agent_logins_total", labels)

    assert value("refused", "keys") == 0
    for _ in range(2):
        send(folder, b"refused alice", b"refused bob")
        write(folder, b"granted alice\n")
        assert task.step().problems == ()
    assert (value("refused", "keys"), value("granted", "pam")) == (4, 2)
    assert value("refused", "pam") == 0
