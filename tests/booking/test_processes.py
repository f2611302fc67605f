"""Several processes of one server: a change made in one is seen in all."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from apiflask import APIFlask

from sentinel_booking.config import Config
from sentinel_booking.models import Role
from tests.booking.lab import SCRAPE, AgentOf, add_agent
from tests.booking.people import add_person
from tests.booking.programs import BookingServer, booking_server, migrated_app, until


@pytest.fixture
def app(config: Config) -> APIFlask:
    """What the server under test serves; used for preparing only."""
    return migrated_app(config)


class Waiting(threading.Thread):
    """An agent that waits for a new policy, on a connection of its own."""

    def __init__(self, server: BookingServer, agent: AgentOf) -> None:
        super().__init__(daemon=True)
        self.connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=90)
        known = self._get(agent, "/api/agent/policy", {})
        assert known.status == 200
        self.request = (
            agent,
            "/api/agent/policy?wait=60",
            {"If-None-Match": known.headers["ETag"]},
        )
        # The connection is kept, so the same process will hold the wait.
        self.worker = server.worker_of(self.connection.sock)
        self.status: int | None = None

    def run(self) -> None:
        self.status = self._get(*self.request).status
        self.connection.close()

    def _get(
        self, agent: AgentOf, path: str, headers: dict[str, str]
    ) -> http.client.HTTPResponse:
        self.connection.request("GET", path, headers={**agent.headers, **headers})
        answer = self.connection.getresponse()
        answer.read()
        return answer

    def answered(self) -> int:
        self.join(30)
        assert self.status is not None, "nobody was woken"
        return self.status


def wait_in_both(server: BookingServer, agent: AgentOf) -> list[Waiting]:
    """Let agents wait until both processes hold some of them."""
    waiting: list[Waiting] = []
    for _ in range(200):
        one = Waiting(server, agent)
        # The kernel chooses the process; one of them can get many in a row.
        if sum(other.worker == one.worker for other in waiting) < 3:
            waiting.append(one)
        else:
            one.connection.close()
        if len({one.worker for one in waiting}) == 2:
            break
    else:
        raise AssertionError("one process takes all connections")
    for one in waiting:
        one.start()
    until(
        lambda: series(server, "sentinel_policy_requests_waiting") == len(waiting),
        lambda: "they do not wait",
    )
    return waiting


def series(server: BookingServer, name: str) -> float | None:
    """The value of one series in /metrics; None when it is not there."""
    _, _, text = call(server, "GET", "/metrics", SCRAPE)
    for line in text.splitlines():
        if line.startswith(f"{name} "):
            return float(line.rpartition(" ")[2])
    return None


def call(
    server: BookingServer, method: str, path: str, headers: dict[str, str], body: Any = None
) -> tuple[int, int, str]:
    """Ask on a new connection; returns the process that answered, status and text."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request("GET", "/healthz")
    connection.getresponse().read()
    worker = server.worker_of(connection.sock)
    connection.request(
        method,
        path,
        body=None if body is None else json.dumps(body),
        headers={**headers, "Content-Type": "application/json"},
    )
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return worker, answer.status, text


def test_a_change_in_one_process_wakes_who_waits_in_the_other(
    app: APIFlask, config: Config, tmp_path: Path
) -> None:
    agent, olga = add_agent(app), add_person(app, "olga", Role.OPERATOR)
    with booking_server(config, tmp_path, workers=2) as server:
        waiting = wait_in_both(server, agent)
        body = {"mode": "enforce"}
        changed_in, status, _ = call(server, "PATCH", "/api/nodes/gpu1", olga.headers, body)
        assert status == 200
        answered = {one.worker: one.answered() for one in waiting}
    assert set(answered) > {changed_in}
    assert set(answered.values()) == {200}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_server_that_is_stopped_answers_who_waits_and_tidies_up(
    app: APIFlask, config: Config, tmp_path: Path
) -> None:
    agent = add_agent(app)
    (tmp_path / "t").mkdir()
    env = {"TMPDIR": str(tmp_path / "t")}
    with booking_server(config, tmp_path, env=env, workers=2) as server:
        waiting = wait_in_both(server, agent)
        (counters,) = (tmp_path / "t").glob("sentinel-booking-metrics-*")
        assert list(counters.glob("*.db"))
        server.process.terminate()
        assert {one.answered() for one in waiting} == {304}
        assert server.process.wait(20) == 0
    assert not counters.exists()


# Those who wait are cut off, as is meant here; their threads complain.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_killed_master_takes_its_workers_along_and_frees_the_port(
    app: APIFlask, config: Config, tmp_path: Path
) -> None:
    agent = add_agent(app)
    with booking_server(config, tmp_path, workers=2) as server:
        wait_in_both(server, agent)
        server.process.kill()
        server.process.wait(20)
        # Gunicorn's own way lets the workers finish first: 20 seconds, with somebody waiting.
        until(lambda: not listens(server.port), lambda: "a worker keeps the port", 10)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_series_are_those_of_all_processes(
    app: APIFlask, config: Config, tmp_path: Path
) -> None:
    add_agent(app)
    labels = '{endpoint="agent.get_policy",method="GET",status="401"}'
    with booking_server(config, tmp_path, workers=2) as server:
        workers: list[int] = []
        while len(set(workers)) < 2:
            assert len(workers) < 200, "one process takes all connections"
            workers.append(call(server, "GET", "/api/agent/policy", {})[0])
        assert series(server, f"sentinel_http_requests_total{labels}") == len(workers)
        assert series(server, "sentinel_database_up") == 1
        # One that is killed takes nothing away from what was counted.
        os.kill(workers[0], signal.SIGKILL)
        until(
            lambda: workers[0] not in server.workers() and len(server.workers()) == 2,
            lambda: "no new worker",
        )
        assert series(server, f"sentinel_http_requests_total{labels}") == len(workers)
