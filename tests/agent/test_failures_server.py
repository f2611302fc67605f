"""The booking server fails in every way: reservations hold, and nobody else gets in."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path

import pytest

from tests.agent import bad_server
from tests.agent.bad_server import BadServer, Reply
from tests.agent.booking_server import make_policy
from tests.agent.failure_table import SERVER, Promise
from tests.agent.failures import USERS, Failure, Matrix, outcomes, row
from tests.lab.wait import wait_for

# Far more than the agent needs, and far less than what the bad servers send.
MEMORY_MAX_KIB = 300 * 1024


@contextlib.contextmanager
def down(matrix: Matrix, reply: Reply | None = None, said: str = "no answer") -> Iterator[None]:
    """Stop the server, or have one that replies like this in its place.

    `said`: what the agent logs once the failure has reached it.
    """
    start = len(matrix.node.log("agent"))
    matrix.server.stop()
    with contextlib.ExitStack() as stack:
        if reply is not None:
            bad = stack.enter_context(
                BadServer(matrix.server.address, matrix.server.port, reply)
            )
            wait_for("the agent asks for the policy", lambda: bad.policies_asked)
        if said:
            wait_for(f"the agent says: {said}", partial(matrix.has_logged, said, start))
        yield
        assert peak_memory_kib(matrix) < MEMORY_MAX_KIB
    asked = len(matrix.server.requests)
    matrix.server.start()
    wait_for(
        "the agent asks the good server",
        lambda: any("/policy" in line for line in matrix.server.requests[asked:]),
    )


def peak_memory_kib(matrix: Matrix) -> int:
    """Return the most that the agent ever had."""
    assert matrix.node.agent is not None
    nsenter = matrix.node.agent.pid
    pid = Path(f"/proc/{nsenter}/task/{nsenter}/children").read_text().split()[0]
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def for_everybody(matrix: Matrix, **more: object) -> dict[str, object]:
    """Return a policy that lets all of them in, but for what is wrong with it."""
    return make_policy(*matrix.grants_for(*USERS), version=1000) | more


def no_policy(matrix: Matrix) -> Reply:
    return bad_server.answering_json({"grants": matrix.grants_for(*USERS)})


def older(matrix: Matrix) -> Reply:
    return bad_server.answering_json(for_everybody(matrix, version=1))


def of_another_node(matrix: Matrix) -> Reply:
    return bad_server.answering_json(for_everybody(matrix, node="gpu-02"))


def with_damaged_grants(matrix: Matrix) -> Reply:
    alice, *others = matrix.grants_for("alice", "bob", "carol")
    damaged = [grant | {"env": {"LD_PRELOAD": "/tmp/x"}} for grant in others]
    policy = make_policy(damaged[0], alice, damaged[1])
    return bad_server.answering_json(policy | {"version": matrix.server.policy["version"]})


def cut_short(matrix: Matrix) -> Reply:
    text = json.dumps(for_everybody(matrix)).encode()
    return bad_server.answering("200 OK", text[:-2])


def elsewhere(matrix: Matrix) -> Reply:
    return bad_server.redirecting(for_everybody(matrix))


def refusing(status: str) -> Callable[[Matrix], Reply]:
    return lambda matrix: bad_server.answering_json(for_everybody(matrix), status)


# What replies, and what the agent logs of it.
REPLIES: dict[str, tuple[Callable[[Matrix], Reply] | None, str]] = {
    "it is down": (None, "no answer"),
    "it takes requests and says nothing": (lambda _: bad_server.saying_nothing, ""),
    "it answers a byte at a time": (lambda _: bad_server.dripping, ""),
    "it answers something that is not JSON": (cut_short, "the answer is not JSON"),
    "it answers JSON that is no policy": (no_policy, "task=policy reason=version: Field"),
    "it sends an older policy": (older, "the policy has version 1, older than"),
    "it sends another node's policy": (of_another_node, "the policy is for node 'gpu-02'"),
    "one grant of many is damaged": (with_damaged_grants, "policy in force"),
    "it answers 500": (refusing("500 Internal Server Error"), "task=policy reason=status 500"),
    "it answers 401": (refusing("401 Unauthorized"), "task=policy reason=status 401"),
    "it answers 302": (elsewhere, "task=policy reason=status 302"),
    "its answer has no end": (lambda _: bad_server.endless, "more than 16777216 bytes"),
    "its answer unpacks to gigabytes": (lambda _: bad_server.bombing(1), "is packed"),
    "its answer is packed many times over": (lambda _: bad_server.bombing(4), "is packed"),
}


def failure_of(promise: Promise) -> Failure:
    make, said = REPLIES[promise.failure]
    return lambda matrix: down(matrix, make(matrix) if make else None, said)


@pytest.fixture(scope="module")
def outcome(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[Promise], Future[None]]]:
    """Run all rows at once; each test takes its own."""
    rows = dict(row(promise, failure_of(promise)) for promise in SERVER)
    with outcomes(tmp_path_factory.mktemp("server-fails"), rows) as found:
        yield lambda promise: found[promise.failure]


@pytest.mark.parametrize("promise", SERVER, ids=lambda promise: promise.failure)
def test_whatever_the_server_does_a_reservation_holds(
    outcome: Callable[[Promise], Future[None]], promise: Promise
) -> None:
    outcome(promise).result()
