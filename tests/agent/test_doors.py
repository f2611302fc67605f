"""What the threads know together of who is held back, with the files that it is kept in."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest

from sentinel_agent.policy.access import Access
from sentinel_agent.policy.cache import Cache
from sentinel_agent.policy.held import HeldPolicy
from sentinel_agent.policy.model import Policy, format_time
from sentinel_agent.server.registration import Registration
from sentinel_agent.sessions.doors import Doorkeeper, Seen
from sentinel_agent.sessions.granted import GrantedUsers
from sentinel_agent.sessions.plan import utc
from tests.agent.policies import NOON, build_policy, grant_document

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the files are root's")

REGISTRATION = Registration("gpu-01", "token", "http://server", NOON - timedelta(days=30))
UIDS = {"alice": 1001, "bob": 1002}


@dataclass
class Cards:
    """Has the device files of these users open."""

    uids: set[int] = field(default_factory=set)
    asked: list[tuple[int, set[str], set[str]]] = field(default_factory=list)

    def still_open(self, uid: int, gone: Collection[str], held: Collection[str]) -> bool:
        self.asked.append((uid, set(gone), set(held)))
        return uid in self.uids


class Agent:
    """The state of an agent; another one on the same folder is the agent started anew."""

    def __init__(self, folder: Path) -> None:
        files = Cache(folder / "policy.json", "root"), Access(folder / "access")
        self.held = HeldPolicy(*files, REGISTRATION)
        self.held.load()
        self.granted = GrantedUsers(folder)
        self.granted.load()
        self.keeper = Doorkeeper(self.held, self.granted, limit_s=60, may_enforce=True)
        self.cards = Cards()

    def seen(self, *running: str, staying: Sequence[str] = ()) -> Seen:
        now = utc(time.time())
        return Seen(now, self.keeper.turn, UIDS, running, staying, exempt=())

    def look(self, *running: str, staying: Sequence[str] = ()) -> None:
        self.take_up(self.seen(*running, staying=staying))

    def take_up(self, seen: Seen) -> None:
        self.keeper.look(seen, self.cards)
        assert self.keeper.write() == []


def policy(version: int, *grants: dict[str, object], mode: str = "enforce") -> Policy:
    now = utc(time.time())
    return build_policy(
        *grants, version=version, mode=mode, generated_at=format_time(now),
        expires_at=format_time(now + timedelta(days=7)),
    )  # fmt: skip


def running(user: str, number: int, uuid: str = "a", start_s: float = -60) -> dict[str, object]:
    now = utc(time.time())
    return grant_document(user, 0, 1) | {
        "reservation": number,
        "not_before": format_time(now + timedelta(seconds=start_s)),
        "not_after": format_time(now + timedelta(hours=1)),
        "whole_node": False,
        "devices": [{"vendor": "ascend", "uuid": uuid, "index": ord(uuid), "minor": None}],
    }


def test_a_look_that_began_before_a_release_shows_nobody_gone(tmp_path: Path) -> None:
    agent = Agent(tmp_path)
    agent.keeper.take(policy(1, running("alice", 1)))
    before = agent.seen()
    # In between alice may have come in, and is released.
    agent.keeper.take(policy(2, running("bob", 2, start_s=0)))
    assert agent.held.opens.keys() == {2}
    agent.take_up(before)
    assert agent.held.opens.keys() == {2}
    agent.look("alice")
    assert agent.held.opens.keys() == {2}
    agent.look()
    assert agent.held.opens == {}


def test_a_look_that_began_before_a_planned_end_shows_nobody_gone(tmp_path: Path) -> None:
    agent = Agent(tmp_path)
    first = running("alice", 1)
    ends = utc(time.time()) + timedelta(seconds=0.3)
    first["not_after"] = format_time(ends)
    agent.keeper.take(policy(1, first, running("bob", 2) | {"not_before": format_time(ends)}))
    before = agent.seen()
    while utc(time.time()) < ends:
        time.sleep(0.05)
    agent.take_up(before)
    assert agent.held.opens.keys() == {2}
    agent.look()
    assert agent.held.opens == {}


def test_a_start_anew_forgets_neither_who_was_there_nor_until_when_others_wait(
    tmp_path: Path,
) -> None:
    agent = Agent(tmp_path)
    agent.keeper.take(policy(1, running("alice", 1)))
    agent.look("alice")
    # Alice was released while the agent was away: its server tells of bob only.
    agent = Agent(tmp_path)
    agent.keeper.take(policy(2, running("bob", 2, start_s=-30)))
    opens = agent.held.opens
    assert opens.keys() == {2}
    again = Agent(tmp_path)
    assert again.held.opens == opens
    again.keeper.take(policy(3, running("bob", 2, start_s=-30)))
    again.look("alice")
    # The limit does not begin anew.
    assert again.held.opens == opens
    again.look()
    assert again.held.opens == {}
    assert Agent(tmp_path).held.opens == {}


def test_who_held_something_while_the_agent_was_away_is_remembered(tmp_path: Path) -> None:
    agent = Agent(tmp_path)
    soon = running("alice", 1)
    now = utc(time.time())
    soon["not_before"] = format_time(now + timedelta(seconds=0.1))
    soon["not_after"] = format_time(now + timedelta(seconds=0.2))
    agent.keeper.take(policy(1, soon))
    agent.look()
    time.sleep(0.3)
    agent = Agent(tmp_path)
    agent.keeper.take(policy(2, running("bob", 2, start_s=0)))
    assert agent.held.opens.keys() == {2}


def test_whoever_stays_for_another_card_is_asked_about_by_the_cards(tmp_path: Path) -> None:
    agent = Agent(tmp_path)
    kept = running("alice", 1, "b")
    agent.keeper.take(policy(1, running("alice", 2, "a"), kept))
    agent.look("alice", staying=["alice"])
    assert agent.cards.asked == []
    agent.cards.uids = {1001}
    agent.keeper.take(policy(2, kept, running("bob", 3, "a", start_s=0)))
    agent.look("alice", staying=["alice"])
    assert agent.cards.asked == [(1001, {"a"}, {"b"})]
    assert agent.held.opens.keys() == {3}
    agent.cards.uids = set()
    agent.look("alice", staying=["alice"])
    assert agent.held.opens == {}


def test_a_node_that_only_observes_holds_nobody_back(tmp_path: Path) -> None:
    agent = Agent(tmp_path)
    agent.keeper.take(policy(1, running("alice", 1), mode="observe"))
    agent.look("alice")
    agent.keeper.take(policy(2, running("bob", 2, start_s=0), mode="observe"))
    assert agent.held.opens == {}
    # Alice is still there when it begins to enforce: bob has got in already.
    agent.keeper.take(policy(3, running("bob", 2, start_s=0)))
    assert agent.held.opens == {}
