"""The policy that an agent gets, and how it waits for a change."""

from __future__ import annotations

import datetime as dt
import json
import os
import threading
import time
from importlib.resources import files
from typing import Any

import jsonschema
import pytest
from apiflask import APIFlask
from sqlalchemy import update
from sqlalchemy.pool import QueuePool
from werkzeug.test import TestResponse

from sentinel_booking.config import Config
from sentinel_booking.models import Kind, Role, User, db, write
from sentinel_booking.services.policy_version import bump_policy
from sentinel_booking.services.policy_watch import PolicyWatch, policy_watch_of
from tests.booking.lab import (
    HOUR,
    AgentOf,
    add_agent,
    add_key,
    ascend,
    nvidia,
    policy_version,
    register,
    reserve,
)
from tests.booking.people import add_person, add_user

SCHEMA = json.loads((files("sentinel_booking") / "contract/policy.schema.json").read_text())


def policy_of(agent: AgentOf) -> dict[str, Any]:
    """The policy, checked against the contract."""
    answer = agent.call("GET", "/policy")
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.get_json()
    jsonschema.validate(
        document, SCHEMA, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    )
    return document


def ask(agent: AgentOf, etag: str, wait: int) -> TestResponse:
    return agent.call("GET", f"/policy?wait={wait}", headers={"If-None-Match": etag})


def etag_of(agent: AgentOf) -> str:
    return agent.call("GET", "/policy").headers["ETag"]


class Asking(threading.Thread):
    """An agent that waits; `answer` once it has one."""

    def __init__(self, agent: AgentOf, wait: int = 30) -> None:
        super().__init__(daemon=True)
        self.agent, self.wait_s, self.etag = agent, wait, etag_of(agent)
        self.answer: TestResponse | None = None

    def run(self) -> None:
        self.answer = ask(self.agent, self.etag, self.wait_s)

    def status(self) -> int:
        """Wait for the answer, which comes long before the wait is over."""
        self.join(15)
        assert self.answer is not None, "nobody was woken"
        return self.answer.status_code


def until_waiting(app: APIFlask, count: int) -> None:
    deadline = time.monotonic() + 15
    while policy_watch_of(app).waiting != count:
        assert time.monotonic() < deadline, "they do not wait"
        time.sleep(0.01)


def bump(app: APIFlask, node_id: int = 1) -> None:
    with app.app_context(), write() as session:
        bump_policy(session, [node_id])


def test_a_card_of_two_vendors_node_is_granted_with_keys_and_environment(
    app: APIFlask,
) -> None:
    agent = add_agent(app, mode="enforce")
    agent.report([nvidia(0), nvidia(1), ascend(2), ascend(3)])
    alice = add_user(app, "alice")
    keys = [add_key(app, alice), add_key(app, alice)]
    reservation = reserve(app, alice, slots=[1, 3])
    document = policy_of(agent)
    assert (document["node"], document["mode"]) == ("gpu1", "enforce")
    (grant,) = document["grants"]
    assert (grant["reservation"], grant["user"], grant["keys"]) == (reservation, "alice", keys)
    assert grant["whole_node"] is False
    assert grant["devices"] == [
        {"vendor": "nvidia", "uuid": "GPU-1", "index": 1, "minor": 1},
        {"vendor": "ascend", "uuid": "npu-0000:C3:00.0", "index": 3, "minor": 3},
    ]
    assert grant["env"] == {
        "CUDA_VISIBLE_DEVICES": "GPU-1",
        "ASCEND_RT_VISIBLE_DEVICES": "3",
        "ASCEND_VISIBLE_DEVICES": "3",
    }


def test_a_whole_node_grants_all_devices_that_are_there(app: APIFlask) -> None:
    agent = add_agent(app)
    agent.report([nvidia(0), nvidia(1)])
    agent.report([nvidia(1), nvidia(2)])
    reserve(app, add_user(app, "alice"))
    (grant,) = policy_of(agent)["grants"]
    assert grant["whole_node"] is True
    assert [device["uuid"] for device in grant["devices"]] == ["GPU-1", "GPU-2"]
    assert grant["env"] == {"CUDA_VISIBLE_DEVICES": "GPU-1,GPU-2"}


def test_a_card_that_vanished_is_not_granted(app: APIFlask) -> None:
    agent = add_agent(app)
    agent.report([nvidia(0, "a"), nvidia(1, "b")])
    reserve(app, add_user(app, "alice"), slots=[0])
    # After a reboot without card a, card b has its numbers.
    agent.report([nvidia(0, "b")])
    (grant,) = policy_of(agent)["grants"]
    assert grant["devices"] == []
    assert grant["env"] == {"CUDA_VISIBLE_DEVICES": ""}


def test_only_what_runs_or_comes_soon_on_this_node_is_granted(app: APIFlask) -> None:
    agent, other = add_agent(app), add_agent(app, "gpu2")
    alice, rita = add_user(app, "alice"), add_user(app, "rita", Role.READONLY)
    running = reserve(app, alice)
    coming = reserve(app, alice, starts=2 * HOUR, ends=3 * HOUR)
    reserve(app, alice, starts=-3 * HOUR, ends=-2 * HOUR)
    reserve(app, alice, starts=9 * 24 * HOUR, ends=10 * 24 * HOUR)
    reserve(app, rita, starts=4 * HOUR, ends=5 * HOUR)
    elsewhere = reserve(app, alice, "gpu2")
    assert [grant["reservation"] for grant in policy_of(agent)["grants"]] == [running, coming]
    assert [grant["reservation"] for grant in policy_of(other)["grants"]] == [elsewhere]


def test_maintenance_grants_its_holder_access(app: APIFlask) -> None:
    agent = add_agent(app)
    reserve(app, add_user(app, "otto", Role.OPERATOR), kind=Kind.MAINTENANCE)
    assert [grant["user"] for grant in policy_of(agent)["grants"]] == ["otto"]


def test_a_deactivated_holder_is_not_granted(app: APIFlask) -> None:
    agent = add_agent(app)
    alice = add_user(app, "alice")
    reserve(app, alice)
    with app.app_context(), write() as session:
        session.execute(update(User).where(User.id == alice).values(is_active=False))
    assert policy_of(agent)["grants"] == []


def test_an_unchanged_policy_is_not_sent_again(app: APIFlask) -> None:
    agent = add_agent(app)
    etag = etag_of(agent)
    for tag in (etag, f'"other", {etag}', f"W/{etag}"):
        answer = agent.call("GET", "/policy", headers={"If-None-Match": tag})
        assert (answer.status_code, answer.data) == (304, b"")
        assert answer.headers["ETag"] == etag
    assert ask(agent, etag, 1).status_code == 304


def test_another_nodes_etag_is_not_this_ones(app: APIFlask) -> None:
    agent, other = add_agent(app), add_agent(app, "gpu2")
    assert policy_of(agent)["version"] == policy_of(other)["version"]
    assert ask(other, etag_of(agent), 30).status_code == 200


def test_what_the_agent_does_not_know_comes_at_once(app: APIFlask) -> None:
    agent = add_agent(app)
    etag = etag_of(agent)
    bump(app)
    assert ask(agent, etag, 60).status_code == 200
    assert agent.call("GET", "/policy?wait=60").status_code == 200


def test_a_wait_that_is_none_is_refused(app: APIFlask) -> None:
    agent = add_agent(app)
    for query in ("wait=61", "wait=-1", "wait=x", "wait=", "wait=1&wait=2", "until=1"):
        assert agent.call("GET", f"/policy?{query}").status_code == 422, query


def test_a_change_wakes_who_waits_for_it_and_nobody_else(app: APIFlask) -> None:
    agent, other = Asking(add_agent(app)), Asking(add_agent(app, "gpu2"), wait=3)
    agent.start()
    other.start()
    until_waiting(app, 2)
    bump(app, 1)
    assert agent.status() == 200
    assert agent.answer is not None
    assert agent.answer.get_json()["version"] == policy_version(app)
    assert other.status() == 304


def test_revoking_the_token_ends_the_wait(app: APIFlask) -> None:
    olga = add_person(app, "olga", Role.OPERATOR)
    asking = Asking(add_agent(app))
    asking.start()
    until_waiting(app, 1)
    olga.call("DELETE", "/api/nodes/gpu1/token")
    assert asking.status() == 401


def test_removing_the_node_ends_the_wait(app: APIFlask) -> None:
    olga = add_person(app, "olga", Role.OPERATOR)
    asking = Asking(add_agent(app))
    asking.start()
    until_waiting(app, 1)
    assert olga.call("DELETE", "/api/nodes/gpu1").status_code == 204
    assert asking.status() == 401


def test_registering_anew_ends_the_old_agents_wait(app: APIFlask) -> None:
    asking = Asking(add_agent(app))
    asking.start()
    until_waiting(app, 1)
    register(app)
    assert asking.status() == 401


def test_who_waits_holds_no_database_connection(app: APIFlask, config: Config) -> None:
    agent = add_agent(app)
    asking = [Asking(agent, wait=20) for _ in range(config.max_policy_waiters)]
    for one in asking:
        one.start()
    until_waiting(app, len(asking))
    with app.app_context():
        pool = db.engine.pool
    assert isinstance(pool, QueuePool)
    # The one thread that looks for all of them may be looking just now.
    assert max(pool.checkedout() for _ in range(50)) <= 1
    bump(app)
    assert {one.status() for one in asking} == {200}


def test_who_is_one_too_many_is_told_to_come_back(app: APIFlask, config: Config) -> None:
    agent = add_agent(app)
    asking = [Asking(agent, wait=20) for _ in range(config.max_policy_waiters)]
    for one in asking:
        one.start()
    until_waiting(app, len(asking))
    answer = ask(agent, etag_of(agent), 60)
    assert answer.status_code == 304
    assert int(answer.headers["Retry-After"]) > 0
    bump(app)
    for one in asking:
        one.status()


def test_a_process_that_ends_lets_everybody_go(app: APIFlask) -> None:
    asking = Asking(add_agent(app))
    asking.start()
    until_waiting(app, 1)
    policy_watch_of(app).release()
    assert asking.status() == 304


def test_a_database_that_fails_for_a_while_wakes_nobody_and_harms_nobody(
    app: APIFlask,
) -> None:
    asking = Asking(add_agent(app))
    asking.start()
    until_waiting(app, 1)
    with app.app_context(), db.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE nodes RENAME TO gone")
    time.sleep(0.5)
    assert asking.answer is None
    with app.app_context(), db.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE gone RENAME TO nodes")
    bump(app)
    assert asking.status() == 200


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_forked_process_watches_for_itself(app: APIFlask) -> None:
    add_agent(app)
    with app.app_context():
        watch = PolicyWatch(db.engine, max_waiters=1)
    parent = threading.Thread(target=watch.wait, args=(1, policy_version(app), 10))
    parent.start()
    deadline = time.monotonic() + 10
    while watch.waiting != 1:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child = os.fork()
    if child == 0:
        # One waiter is the most there may be, and the parent's must not count here. The
        # version is one that the node does not have, so the child's own thread wakes it.
        started = time.monotonic()
        waited = watch.wait(1, -1, 20)
        os._exit(0 if waited and time.monotonic() - started < 15 else 1)
    _, status = os.waitpid(child, 0)
    watch.release()
    parent.join()
    assert os.waitstatus_to_exitcode(status) == 0


def test_the_policy_expires_no_sooner_than_it_reaches(app: APIFlask, config: Config) -> None:
    document = policy_of(add_agent(app))
    reach = dt.datetime.fromisoformat(document["expires_at"]) - dt.datetime.fromisoformat(
        document["generated_at"]
    )
    assert reach == dt.timedelta(days=config.policy_horizon_days)
