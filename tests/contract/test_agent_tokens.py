"""The agent's token against the real booking server: exchanged, refused, never lost."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import FrameType

import pytest
import requests
from apiflask import APIFlask
from sqlalchemy import select

import sentinel_agent
from sentinel_agent.config import Config as AgentConfig
from sentinel_agent.errors import ServerError
from sentinel_agent.server.client import BookingClient
from sentinel_agent.server.registration import (
    Registration,
    load_registration,
    store_registration,
)
from sentinel_agent.server.rotation import HeldToken, TokenTask
from sentinel_booking.models import Node, write
from sentinel_booking.services.audit import SYSTEM
from sentinel_booking.services.nodes import revoke_agent
from tests.booking.lab import add_key, add_node, invite, now, nvidia, reserve
from tests.booking.people import add_user
from tests.lab.wait import wait_for

AGENT_CODE = str(Path(sentinel_agent.__file__).parent)
# A child that was killed on its way, as by a power loss.
KILLED = 9


def register(app: APIFlask, url: str, node: str, state_dir: Path) -> Registration:
    """Register the node with a token that is eight days old."""
    add_node(app, node, mode="enforce")
    _, token = BookingClient(url, None).register(invite(app, node), node, "127.0.0.1")
    registration = Registration(node, token, url, now() - timedelta(days=8))
    store_registration(state_dir, registration)
    return registration


def agent_config(url: str, state_dir: Path, token_days: int = 7) -> AgentConfig:
    return AgentConfig(server=url, state_dir=state_dir, token_days=token_days)


def held_token(state_dir: Path) -> HeldToken:
    """What an agent that starts now holds."""
    return HeldToken(state_dir, load_registration(state_dir))


def hash_of(app: APIFlask, node: str) -> str | None:
    with app.app_context(), write() as session:
        return session.scalars(select(Node.token_hash).where(Node.name == node)).one()


def test_a_due_token_is_exchanged_and_the_old_one_ends(
    server: tuple[APIFlask, str], tmp_path: Path
) -> None:
    app, url = server
    old = register(app, url, "gpu1", tmp_path)
    held = held_token(tmp_path)
    client = BookingClient(url, None, held)
    task = TokenTask(agent_config(url, tmp_path), client, held)
    task.step()
    new = load_registration(tmp_path)
    assert new.token == held.current() != old.token
    assert (new.node, new.registered_at) == ("gpu1", old.registered_at)
    assert client.get_policy("", 0).is_new
    with pytest.raises(ServerError, match="status 401"):
        BookingClient(url, None, old.token).get_policy("", 0)
    # It is not due any more.
    task.step()
    assert load_registration(tmp_path) == new


@pytest.mark.parametrize("token_days", [0, 9])
def test_a_token_that_is_not_due_stays(
    server: tuple[APIFlask, str], tmp_path: Path, token_days: int
) -> None:
    app, url = server
    old = register(app, url, f"stays-{token_days}", tmp_path)
    held = held_token(tmp_path)
    client = BookingClient(url, None, held)
    TokenTask(agent_config(url, tmp_path, token_days), client, held).step()
    assert load_registration(tmp_path) == old


def killed_at_line(number: int, work: Callable[[], None]) -> bool:
    """Do the work in another process that dies before the agent's line of that number.

    False: it was done before.
    """
    child = os.fork()
    if child == 0:
        left = number

        def trace(frame: FrameType, event: str, _: object) -> object:
            nonlocal left
            if not frame.f_code.co_filename.startswith(AGENT_CODE):
                return None
            if event == "line":
                left -= 1
                if left < 0:
                    os._exit(KILLED)
            return trace

        try:
            sys.settrace(trace)  # type: ignore[arg-type]  # its stub wants a recursive type
            work()
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, KILLED), "the exchange failed by itself"
    return status == KILLED


def test_killed_at_any_line_of_the_exchange_the_agent_can_still_speak(
    server: tuple[APIFlask, str], tmp_path: Path
) -> None:
    app, url = server
    register(app, url, "gpu2", tmp_path)
    config = agent_config(url, tmp_path, token_days=1)

    def exchange() -> None:
        held = held_token(tmp_path)
        client = BookingClient(url, None, held)
        TokenTask(config, client, held).step()
        client.get_policy("", 0)

    number = 0
    hashes = {hash_of(app, "gpu2")}
    while killed_at_line(number, exchange):
        held = held_token(tmp_path)
        client = BookingClient(url, None, held)
        assert client.get_policy("", 0).is_new, f"killed before line {number}"
        hashes.add(hash_of(app, "gpu2"))
        client.close()
        # The next try finds a token that is due again.
        registration = load_registration(tmp_path)
        aged = Registration(
            registration.node, registration.token, url, now() - timedelta(days=8)
        )
        store_registration(tmp_path, aged)
        number += 1
    # It was killed before the exchange, and also behind it.
    assert number > 50
    assert len(hashes) > 10


def test_a_waiting_poll_outlives_the_exchange(
    server: tuple[APIFlask, str], tmp_path: Path
) -> None:
    app, url = server
    register(app, url, "gpu3", tmp_path)
    held = held_token(tmp_path)
    polling, other = (BookingClient(url, None, held) for _ in range(2))
    other.put_inventory([nvidia(0)], {})
    etag = polling.get_policy("", 0).etag
    answers = []
    poll = threading.Thread(target=lambda: answers.append(polling.get_policy(etag, 50)))
    poll.start()
    metrics = {"Authorization": "Bearer scrape-for-tests-0123456789abcdef0123456789"}
    wait_for("the poll waits", lambda: _waiting(url, metrics) == 1)
    TokenTask(agent_config(url, tmp_path), other, held).step()
    other.get_policy("", 0)
    alice = add_user(app, "alice")
    add_key(app, alice)
    reserve(app, alice, "gpu3", slots=[0])
    _bump(app, "gpu3")
    poll.join(20)
    (answer,) = answers
    assert answer.is_new


def _waiting(url: str, headers: dict[str, str]) -> float:
    text = requests.get(f"{url}/metrics", headers=headers, timeout=5).text
    (line,) = [
        line
        for line in text.splitlines()
        if line.startswith("sentinel_policy_requests_waiting")
    ]
    return float(line.split()[-1])


def _bump(app: APIFlask, node: str) -> None:
    with app.app_context(), write() as session:
        found = session.scalars(select(Node).where(Node.name == node)).one()
        found.policy_version += 1


def test_a_token_that_a_restored_database_does_not_know_is_taken_back(
    server: tuple[APIFlask, str], tmp_path: Path
) -> None:
    app, url = server
    old = register(app, url, "gpu4", tmp_path)
    before = hash_of(app, "gpu4")
    held = held_token(tmp_path)
    client = BookingClient(url, None, held)
    task = TokenTask(agent_config(url, tmp_path), client, held)
    task.step()
    client.get_policy("", 0)
    with app.app_context(), write() as session:
        node = session.scalars(select(Node).where(Node.name == "gpu4")).one()
        node.token_hash = before
    assert client.get_policy("", 0).is_new
    assert load_registration(tmp_path).token == held.current() == old.token
    # It is exchanged anew at the next opportunity.
    task.step()
    assert client.get_policy("", 0).is_new
    assert held.current() != old.token


def test_a_waiting_poll_with_a_revoked_token_ends_at_once_and_says_what_to_do(
    server: tuple[APIFlask, str], tmp_path: Path
) -> None:
    app, url = server
    register(app, url, "gpu5", tmp_path)
    client = BookingClient(url, None, held_token(tmp_path))
    etag = client.get_policy("", 0).etag

    def revoke() -> None:
        with app.app_context():
            revoke_agent(SYSTEM, "gpu5")

    timer = threading.Timer(0.3, revoke)
    timer.start()
    began = time.monotonic()
    with pytest.raises(ServerError, match=r"status 401.*sentinel-agent register") as refused:
        client.get_policy(etag, 50)
    timer.join()
    assert time.monotonic() - began < 25, "the wait was not cut short"
    assert refused.value.is_permanent
