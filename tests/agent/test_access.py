"""The access file: what is in it, and that no failure to write lets a former holder in."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentinel_agent.errors import StateError
from sentinel_agent.policy.access import Access, encode_access
from sentinel_agent.policy.cache import Cache
from sentinel_agent.policy.held import HeldPolicy
from sentinel_agent.policy.model import Policy, format_time
from sentinel_agent.server.registration import Registration
from tests.agent.policies import (
    NOON,
    build_grants,
    build_policy,
    grant_document,
    minutes,
    policies,
    running_grants,
)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the files are root's")

NOON_S = 1772366400
REGISTRATION = Registration("gpu-01", "token", "http://server", NOON - timedelta(days=30))


def who(content: bytes) -> set[str]:
    """Return the users whose lines pam-gate would take."""
    lines = content.decode().splitlines()[1:]
    return {line.split()[0] for line in lines if "#" not in line}


def hold(folder: Path, group: str = "nogroup") -> HeldPolicy:
    files = Cache(folder / "policy.json", group), Access(folder / "access", "https://book.ing")
    return HeldPolicy(*files, REGISTRATION)


def test_the_form_is_the_contracts() -> None:
    policy = build_policy(
        grant_document("bob", 30, 60),
        grant_document("alice", 0, 60, not_after="2026-03-01T13:00:00.000001Z"),
        grant_document("dave", -5, 60, not_before="2026-03-01T11:55:00.999999Z"),
    )
    week = NOON_S + 7 * 24 * 3600
    assert encode_access(policy, {}, "https://book.ing/x").decode().splitlines() == [
        f"sentinel-access 1 {week} https://book.ing/x",
        f"dave {NOON_S - 300} {NOON_S + 3600}",
        f"alice {NOON_S} {NOON_S + 3601}",
        f"bob {NOON_S + 1800} {NOON_S + 3600}",
    ]


def test_a_grant_is_open_from_opens_at_and_within_its_policy() -> None:
    policy = build_policy(
        grant_document("alice", 0, 60, reservation=1),
        grant_document("bob", 0, 60, reservation=2),
        grant_document("carol", 0, 60, reservation=3),
        grant_document("dave", 0, 60, reservation=4, keys=[]),
        expires_at=format_time(minutes(30)),
    )
    opens = {1: minutes(10), 2: minutes(60), 3: minutes(-10)}
    lines = encode_access(policy, opens).decode().splitlines()
    ends = NOON_S + 1800
    assert lines == [
        f"sentinel-access 1 {ends} -", f"carol {NOON_S} {ends}", f"alice {NOON_S + 600} {ends}",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "url", ["", "ftp://x", "https://a b", "https://a\nroot 0 9", "https://\x1b[2J"]
)
def test_a_url_that_is_none_is_left_out(url: str) -> None:
    assert encode_access(build_policy(), {}, url).endswith(b" -\n")


@given(
    policies(), st.integers(-90, 90), st.dictionaries(st.integers(1, 9), st.integers(-60, 90))
)
def test_whoever_has_a_running_grant_with_a_key_has_a_line(
    policy: Policy, at: int, held_back: dict[int, int]
) -> None:
    opens = {number: minutes(until) for number, until in held_back.items()}
    now = minutes(at)
    lines = [line.split() for line in encode_access(policy, opens).decode().splitlines()[1:]]
    for user in ("alice", "bob"):
        has_line = any(
            name == user and int(starts) <= now.timestamp() < int(ends)
            for name, starts, ends in lines
        )
        running = running_grants(policy, user, now)
        assert has_line == any(
            grant.keys and opens.get(grant.reservation, now) <= now for grant in running
        )


def test_both_files_are_written_and_say_the_same(tmp_path: Path) -> None:
    held = hold(tmp_path)
    held.replace(build_grants(("alice", 0, 60)))
    found = (tmp_path / "access").stat()
    assert (found.st_mode & 0o7777, found.st_uid) == (0o600, 0)
    assert who((tmp_path / "access").read_bytes()) == {"alice"}
    assert b'"user":"alice"' in (tmp_path / "policy.json").read_bytes()


def test_what_is_held_back_stays_so_over_a_restart(tmp_path: Path) -> None:
    policy = build_policy(grant_document("alice", 0, 60, reservation=4))
    hold(tmp_path).replace(policy, {4: minutes(2)})
    held = hold(tmp_path)
    held.load()
    assert (held.policy, held.opens) == (policy, {4: minutes(2)})
    held.mend()
    assert b'"opens_at":"2026-03-01T12:02:00Z"' in (tmp_path / "policy.json").read_bytes()
    held.hold_back({})
    assert b"opens_at" not in (tmp_path / "policy.json").read_bytes()
    assert f"alice {NOON_S} ".encode() in (tmp_path / "access").read_bytes()
    inode = (tmp_path / "access").stat().st_ino
    held.hold_back({})
    assert (tmp_path / "access").stat().st_ino == inode


@pytest.mark.parametrize("odd", ['"soon"', "1", "null", '"2026-03-01T12:02:00+00:00"'])
def test_a_cache_with_an_odd_opens_at_is_not_taken_up(tmp_path: Path, odd: str) -> None:
    policy = build_policy(grant_document("alice", 0, 60, reservation=4))
    hold(tmp_path).replace(policy, {4: minutes(2)})
    path = tmp_path / "policy.json"
    path.write_text(path.read_text().replace('"2026-03-01T12:02:00Z"', odd))
    with pytest.raises(StateError, match="damaged"):
        hold(tmp_path).load()


def test_each_file_is_mended_by_itself(tmp_path: Path) -> None:
    held = hold(tmp_path)
    held.replace(build_grants(("alice", 0, 60)))
    whole = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for damaged in whole:
        inodes = {path: path.stat().st_ino for path in whole}
        damaged.chmod(0o666)
        held.mend()
        assert {path: path.read_bytes() for path in whole} == whole
        assert [path for path in whole if path.stat().st_ino != inodes[path]] == [damaged]


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of its own, with Alice and Bob in force and no space left."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "none", folder], check=True
    )
    try:
        hold(folder).replace(build_grants(("alice", 0, 60), ("bob", 0, 60)))
        with pytest.raises(OSError, match="No space"), (folder / "filler").open("wb") as filler:
            filler.write(bytes(1 << 20))
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def resume(folder: Path) -> HeldPolicy:
    held = hold(folder)
    held.load()
    return held


def test_a_full_disk_takes_back_access_and_keeps_the_others(full_disk: Path) -> None:
    held = resume(full_disk)
    before = (full_disk / "policy.json").read_bytes()
    with pytest.raises(StateError, match=r"policy\.json.*No space.*access.*No space"):
        held.replace(build_grants(("bob", 0, 60), ("carol", 0, 60)))
    assert (full_disk / "policy.json").read_bytes() == before
    access = (full_disk / "access").read_bytes()
    assert who(access) == {"bob"}
    assert b"alice" not in access
    # Started anew, the agent has but the old cache; it must not write Alice in again.
    again = resume(full_disk)
    (full_disk / "filler").unlink()
    again.mend()
    assert who((full_disk / "access").read_bytes()) == {"bob"}
    resume(full_disk).mend()
    assert who((full_disk / "access").read_bytes()) == {"bob"}
    # With space, all is as it should be.
    held.mend()
    assert who((full_disk / "access").read_bytes()) == {"bob", "carol"}
    assert b'"user":"carol"' in (full_disk / "policy.json").read_bytes()


def test_a_grant_that_is_held_back_too_late_for_the_disk_does_not_open(full_disk: Path) -> None:
    held = resume(full_disk)
    assert held.policy is not None
    with pytest.raises(StateError):
        held.hold_back({held.policy.grants[0].reservation: minutes(5)})
    assert who((full_disk / "access").read_bytes()) == set()


def test_a_cache_that_cannot_be_written_keeps_the_former_holder_out(tmp_path: Path) -> None:
    hold(tmp_path).replace(build_grants(("alice", 0, 60)))
    held = hold(tmp_path, group="no-such-group")
    held.load()
    with pytest.raises(StateError, match="no-such-group"):
        held.replace(build_grants(("bob", 0, 60)))
    assert b'"user":"alice"' in (tmp_path / "policy.json").read_bytes()
    assert who((tmp_path / "access").read_bytes()) == {"bob"}


def test_a_cache_that_could_not_be_written_is_tried_again(tmp_path: Path) -> None:
    cache, access = Cache(tmp_path / "policy.json", "nogroup"), Access(tmp_path / "access")
    held = HeldPolicy(cache, access, REGISTRATION)
    held.replace(build_grants(("alice", 0, 60)))
    cache.group = "no-such-group"
    with pytest.raises(StateError):
        held.replace(build_grants(("bob", 0, 60)))
    with pytest.raises(StateError):
        held.mend()
    cache.group = "nogroup"
    held.mend()
    assert b'"user":"bob"' in (tmp_path / "policy.json").read_bytes()


@pytest.mark.parametrize("wrong", [{"mode": 0o600}, {"gid": 1}], ids=str)
def test_a_loaded_cache_that_get_keys_cannot_read_is_written_again(
    tmp_path: Path, wrong: dict[str, int]
) -> None:
    hold(tmp_path).replace(build_grants(("alice", 0, 60)))
    path = tmp_path / "policy.json"
    path.chmod(wrong.get("mode", 0o640))
    os.chown(path, 0, wrong.get("gid", path.stat().st_gid))
    inode = path.stat().st_ino
    resume(tmp_path).mend()
    assert (path.stat().st_mode & 0o7777, path.group()) == (0o640, "nogroup")
    assert path.stat().st_ino != inode
    # A whole one is left as it is.
    inode = path.stat().st_ino
    resume(tmp_path).mend()
    assert path.stat().st_ino == inode


def test_an_access_file_older_than_the_cache_is_written_again(tmp_path: Path) -> None:
    """The agent was cut off between the two: the cache has the newer policy."""
    hold(tmp_path).replace(build_grants(("alice", 0, 60)))
    old = (tmp_path / "access").read_bytes()
    held = hold(tmp_path)
    held.replace(build_grants(("bob", 0, 60)))
    (tmp_path / "access").write_bytes(old)
    cached_s = (tmp_path / "policy.json").stat().st_mtime
    os.utime(tmp_path / "access", (cached_s - 1, cached_s - 1))
    resume(tmp_path).mend()
    assert who((tmp_path / "access").read_bytes()) == {"bob"}


def test_an_access_file_that_cannot_even_be_blanked_goes_away(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    held = hold(folder)
    held.replace(build_grants(("alice", 0, 60)))
    # Others can write it: who knows what it says.
    (folder / "access").chmod(0o666)
    folder.chmod(0o777)
    with pytest.raises(StateError):
        held.replace(build_grants(("bob", 0, 60)))
    assert not (folder / "access").exists()


def test_a_reader_of_a_file_that_is_blanked_sees_whole_lines_or_marks(full_disk: Path) -> None:
    held = resume(full_disk)
    seen: set[bytes] = set()
    is_over = threading.Event()

    def read_byte_by_byte() -> None:
        # As a shell reads.
        while not is_over.is_set():
            with (full_disk / "access").open("rb", buffering=0) as file:
                seen.add(b"".join(iter(partial(file.read, 1), b"")))

    reader = threading.Thread(target=read_byte_by_byte)
    reader.start()
    try:
        with pytest.raises(StateError):
            held.replace(build_grants(("bob", 0, 60)))
    finally:
        is_over.set()
        reader.join()
    seen.add((full_disk / "access").read_bytes())
    whole = {f"{user} {NOON_S} {NOON_S + 3600}" for user in ("alice", "bob")}
    for content in seen:
        header, *lines = content.decode().splitlines()
        assert header.endswith("https://book.ing")
        assert all(line in whole or "#" in line for line in lines), content
    assert any(b"#" in content for content in seen)


def test_times_far_away_are_written(tmp_path: Path) -> None:
    never = datetime.fromisoformat("8999-12-31T23:59:59.999999+00:00")
    policy = build_policy(
        grant_document("alice", 0, 60, not_after=format_time(never)),
        expires_at=format_time(never),
    )
    assert encode_access(policy).count(b" 221845392000") == 2
