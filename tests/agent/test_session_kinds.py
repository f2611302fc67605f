"""Whatever way a session came about, nothing of it outlives its user's access."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from tests.agent.booking_server import at, make_grant
from tests.agent.conftest import Lab
from tests.agent.session_kinds import CONNECTIONS, LEFT_BEHIND, Sessions, prepare, sessions_of
from tests.lab.wait import wait_for

RUNS = 20


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path: sockets' paths have 108 bytes."""
    path = Path(tempfile.mkdtemp(prefix="kinds-"))
    yield path
    shutil.rmtree(path)


def test_nothing_of_twelve_kinds_of_sessions_is_left_after_the_end(
    lab: Lab, folder: Path
) -> None:
    """Twenty users, each with all twelve; half are released, half come to their planned end."""
    users = [f"user{number:02}" for number in range(RUNS)]
    prepare(lab.node, users)
    key = lab.keys["alice"]
    grants = {user: make_grant(user, key, reservation=n + 1) for n, user in enumerate(users)}
    lab.server.grant(*grants.values())
    lab.start_agent(metrics_listen="")
    released, ended = users[: RUNS // 2], users[RUNS // 2 :]
    for batch in (released, ended):
        with sessions_of(lab.node, batch, key, folder) as them:
            with ThreadPoolExecutor(6) as threads:
                list(threads.map(Sessions.open_all, them.values()))
            for user in batch:
                wait_for(f"all of {user}'s are open", partial(is_complete, lab, user))
            if batch is released:
                left = [grants[user] for user in ended]
            else:
                left = [grants[user] | {"not_after": at(2)} for user in ended]
            lab.server.grant(*left)
            for user, sessions in them.items():
                wait_for(f"{user} has nothing", partial(has_nothing, lab, user))
                wait_for(f"{user} is told", sessions.check_closed)
    # A process that had got away by forking would be back by now.
    assert [user for user in users if lab.node.processes(user)] == []


def has_nothing(lab: Lab, user: str) -> bool:
    return not lab.node.processes(user)


def is_complete(lab: Lab, user: str) -> bool:
    beats = lab.server.heartbeats
    connections = beats[-1]["sessions"] if beats else {}
    assert isinstance(connections, dict)
    there = lab.node.processes(user)
    return connections.get(user) == CONNECTIONS and all(
        any(what in args for args in there) for what in LEFT_BEHIND
    )
