"""The cache, the policy in force and the agent's own files, on a real disk."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path

import pytest

from sentinel_agent.errors import NotRegistered, PolicyRefused, StateError
from sentinel_agent.policy.access import Access
from sentinel_agent.policy.cache import Cache
from sentinel_agent.policy.held import HeldPolicy
from sentinel_agent.server.registration import (
    Registration,
    load_registration,
    store_registration,
)
from sentinel_agent.sessions.granted import GrantedUsers
from sentinel_agent.sessions.plan import utc
from tests.agent.policies import NOON, build_grants, build_policy

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the files are root's")

LONG_AGO = Registration("gpu-01", "token", "http://server", NOON - timedelta(days=30))


def make_held(
    folder: Path, registration: Registration = LONG_AGO, group: str = "nogroup"
) -> HeldPolicy:
    return HeldPolicy(
        Cache(folder / "policy.json", group), Access(folder / "access"), registration
    )


def test_the_cache_is_readable_to_its_group_only(tmp_path: Path) -> None:
    held = make_held(tmp_path)
    held.replace(build_grants(("alice", 0, 60)))
    found = (tmp_path / "policy.json").stat()
    assert (found.st_mode & 0o7777, found.st_uid) == (0o640, 0)
    assert (tmp_path / "policy.json").group() == "nogroup"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["access", "policy.json"]


def test_a_link_in_the_caches_place_is_replaced_and_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "policy.json").symlink_to(victim)
    with pytest.raises(StateError):
        make_held(tmp_path).load()
    make_held(tmp_path).replace(build_grants())
    assert victim.read_text() == "precious"
    assert not (tmp_path / "policy.json").is_symlink()


def test_readers_see_the_old_cache_or_the_new_one(tmp_path: Path) -> None:
    held = make_held(tmp_path)
    held.replace(build_policy(version=3))
    with (tmp_path / "policy.json").open("rb") as reader:
        held.replace(build_policy(version=4))
        assert b'"version":3' in reader.read()
    assert b'"version":4' in (tmp_path / "policy.json").read_bytes()


def test_the_policy_in_force_survives_a_restart(tmp_path: Path) -> None:
    policy = build_grants(("alice", 0, 60))
    make_held(tmp_path).replace(policy)
    again = make_held(tmp_path)
    again.load()
    assert again.policy == policy


def test_an_older_policy_is_refused_and_the_held_one_stays(tmp_path: Path) -> None:
    held = make_held(tmp_path)
    held.replace(build_policy(version=4))
    with pytest.raises(PolicyRefused):
        held.replace(build_policy(version=3))
    assert held.policy == build_policy(version=4)
    assert b'"version":4' in (tmp_path / "policy.json").read_bytes()


def test_registering_anew_lets_a_restored_server_count_from_less(tmp_path: Path) -> None:
    make_held(tmp_path).replace(build_policy(version=4))
    anew = Registration("gpu-01", "token", "http://server", utc(time.time() + 1))
    held = make_held(tmp_path, anew)
    held.load()
    held.replace(build_policy(version=2))
    with pytest.raises(PolicyRefused):
        held.replace(build_policy(version=1))
    assert held.policy == build_policy(version=2)


def test_a_cache_of_another_node_is_not_taken_up(tmp_path: Path) -> None:
    make_held(tmp_path).replace(build_policy())
    other = Registration("gpu-02", "token", "http://server", NOON)
    held = make_held(tmp_path, other)
    with pytest.raises(PolicyRefused):
        held.load()
    assert held.policy is None


@pytest.mark.parametrize("damage", ["garbage", "writable", "pipe"])
def test_a_damaged_cache_is_not_taken_up(tmp_path: Path, damage: str) -> None:
    make_held(tmp_path).replace(build_policy())
    path = tmp_path / "policy.json"
    match damage:
        case "garbage":
            path.write_text('{"grants": [')
        case "writable":
            path.chmod(0o666)
        case "pipe":
            path.unlink()
            os.mkfifo(path)
    held = make_held(tmp_path)
    with pytest.raises(StateError):
        held.load()
    assert held.policy is None


def test_a_changed_cache_is_mended_and_a_whole_one_left_alone(tmp_path: Path) -> None:
    held = make_held(tmp_path)
    held.mend()  # nothing is held yet
    held.replace(build_policy())
    path = tmp_path / "policy.json"
    inode = path.stat().st_ino
    held.mend()
    assert path.stat().st_ino == inode
    whole = path.read_bytes()
    for damage in (path.unlink, lambda: path.write_text("x"), lambda: path.chmod(0o666),
                   lambda: os.chown(path, 1, 1)):  # fmt: skip
        damage()
        held.mend()
        assert path.read_bytes() == whole
        assert path.stat().st_mode & 0o7777 == 0o640


def test_a_policy_that_cannot_be_written_holds_for_open_sessions(tmp_path: Path) -> None:
    held = make_held(tmp_path, group="no-such-group")
    with pytest.raises(StateError, match="no group no-such-group"):
        held.replace(build_policy(version=9))
    assert held.policy == build_policy(version=9)
    tmp_path.chmod(0o777)
    held = make_held(tmp_path)
    with pytest.raises(StateError, match="others than root can write"):
        held.replace(build_policy(version=9))


def test_the_token_is_readable_to_root_only(tmp_path: Path) -> None:
    with pytest.raises(NotRegistered, match="sentinel-agent register"):
        load_registration(tmp_path)
    store_registration(tmp_path, LONG_AGO)
    assert load_registration(tmp_path) == LONG_AGO
    assert (tmp_path / "registration.json").stat().st_mode & 0o7777 == 0o600
    (tmp_path / "registration.json").write_text("{}")
    with pytest.raises(StateError, match="register the node again"):
        load_registration(tmp_path)


def test_former_holders_are_remembered(tmp_path: Path) -> None:
    granted = GrantedUsers(tmp_path)
    granted.users = {"alice": 1001, "bob": 1002}
    granted.touch({"alice": frozenset(["*"])})
    granted.exempt = frozenset(["ops"])
    granted.save()
    again = GrantedUsers(tmp_path)
    again.load()
    assert again.users == {"alice": 1001, "bob": 1002}
    assert again.touched == {"alice": {"*"}}
    assert again.exempt == {"ops"}
    # A disk that was full for a while loses nobody.
    again.users = {**again.users, "carol": 1003}
    tmp_path.chmod(0o777)
    with pytest.raises(StateError):
        again.save()
    tmp_path.chmod(0o700)
    again.save()
    third = GrantedUsers(tmp_path)
    third.load()
    assert third.users == {"alice": 1001, "bob": 1002, "carol": 1003}


def test_the_file_of_an_older_agent_is_read_and_a_damaged_one_refused(tmp_path: Path) -> None:
    path = tmp_path / "granted.json"
    path.write_text('{"users": {"alice": 1001}}')
    granted = GrantedUsers(tmp_path)
    granted.load()
    assert (granted.users, granted.touched) == ({"alice": 1001}, {})
    path.write_text("[]")
    with pytest.raises(StateError):
        GrantedUsers(tmp_path).load()
