"""The node is cut off, started anew, or wrong about the time."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial

import pytest

from tests.agent.booking_server import at, make_grant
from tests.agent.failure_table import CLOCK, NETWORK, REBOOT, Promise
from tests.agent.failures import Failure, Matrix, outcomes, row
from tests.lab.wait import wait_for

HOUR_S = 3600.0
BOOT_ID = "/proc/sys/kernel/random/boot_id"
NEXT_BOOT = "11111111-2222-3333-4444-555555555555"


@contextlib.contextmanager
def clock_off(matrix: Matrix, by_s: float) -> Iterator[None]:
    """Have the node's clock off by so much: slow for a negative number.

    A node in namespaces has the machine's clock (time_namespaces(7) has none for
    CLOCK_REALTIME). But a node can tell only how its clock compares with the server's times; so
    these are moved the other way, all of the policy's and the one that a heartbeat is answered.
    The gates, sshd's expiry-time and the agent compare nothing else with the clock. bob's
    reservation ended ten minutes ago, carol's begins in ten.
    """
    keys, server, ahead_s = matrix.lab.keys, matrix.server, -by_s
    server.clock_offset_s = ahead_s
    wait_for("it is reported", lambda: matrix.is_reported(f"the clock is {by_s:+.0f} s off"))
    server.grant(
        make_grant("alice", keys["alice"], start_s=ahead_s - 600, end_s=ahead_s + 1800),
        make_grant("bob", keys["bob"], start_s=ahead_s - 1800, end_s=ahead_s - 600),
        make_grant("carol", keys["carol"], start_s=ahead_s + 600, end_s=ahead_s + 1800),
        generated_at=at(ahead_s),
        expires_at=at(ahead_s + 7 * 86400),
    )
    matrix.lab.wait_for_policy()
    yield
    server.clock_offset_s = 0
    wait_for("it is right again", lambda: not matrix.is_reported("the clock is"))
    server.grant(*matrix.grants_for("alice"))
    matrix.lab.wait_for_policy()


@contextlib.contextmanager
def cut_off_during_a_release(matrix: Matrix) -> Iterator[None]:
    """The network goes while the agent waits for the server, and bob's release is lost."""
    node, server = matrix.node, matrix.server
    server.grant(*matrix.grants_for("alice", "bob"))
    matrix.lab.wait_for_policy()
    wait_for("bob gets in", lambda: "bob" in matrix.who_gets_in())
    with matrix.lab.session("bob") as session:
        node.run(["ip", "link", "set", "eth0", "down"])
        server.grant(*matrix.grants_for("alice"))
        # It goes by what it knew.
        assert matrix.who_gets_in(inside=True) == {"alice", "bob", "ops"}
        node.run(["ip", "link", "set", "eth0", "up"])
        wait_for("bob's session is ended", lambda: not session.is_open())
    yield


FAILURES: dict[str, Failure] = {
    "it is an hour slow": partial(clock_off, by_s=-HOUR_S),
    "it is an hour fast": partial(clock_off, by_s=HOUR_S),
    "it is cut while a release is on its way": cut_off_during_a_release,
}


def reboot(matrix: Matrix, promise: Promise) -> None:
    """Start the node anew: all processes ended, /run empty, another boot id, no network yet."""
    node, server = matrix.node, matrix.server
    is_expired = promise.booked == "out"
    if is_expired:
        server.grant(*matrix.grants_for("alice"), expires_at=at(2))
        matrix.lab.wait_for_policy()
    node.run(["ip", "link", "set", "eth0", "down"])
    node.stop_agent(signal.SIGKILL)
    assert node.sshd is not None
    node.send_signal(node.sshd, signal.SIGKILL)
    node.sshd.wait(30)
    # /run/node is the lab's: the changes of /etc and /var that a disk would keep.
    node.run(["find", "/run", "-mindepth", "1", "-not", "-path", "/run/node*", "-delete"])
    node.write("/etc/next_boot_id", f"{NEXT_BOOT}\n")
    node.run(["mount", "--bind", "/etc/next_boot_id", BOOT_ID])
    if is_expired:
        expires = json.loads(matrix.lab.cache())["expires_at"]
        wait_for("the policy expires", lambda: at(0) > expires)
    starts = node.log("sshd").count("Server listening")
    node.start_sshd()
    wait_for("sshd runs", lambda: node.log("sshd").count("Server listening") > starts)
    matrix.check(is_booked_in=not is_expired, inside=True)
    logged = len(node.log("agent"))
    node.start_agent()
    wait_for("it misses the server", lambda: matrix.has_logged("task=policy", logged))
    matrix.check(is_booked_in=not is_expired, inside=True)
    server.grant(*matrix.grants_for("alice"))
    node.run(["ip", "link", "set", "eth0", "up"])
    matrix.wait_for_agent()
    assert server.heartbeats[-1]["boot_id"] == NEXT_BOOT
    matrix.check(is_booked_in=True)
    node.run(["umount", BOOT_ID])


@pytest.fixture(scope="module")
def outcome(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[Promise], Future[None]]]:
    """Run all rows at once; each test takes its own."""
    rows = {promise.failure: partial(reboot, promise=promise) for promise in REBOOT} | dict(
        row(promise, FAILURES[promise.failure]) for promise in (*NETWORK, *CLOCK)
    )
    with outcomes(tmp_path_factory.mktemp("time-fails"), rows) as found:
        yield lambda promise: found[promise.failure]


@pytest.mark.parametrize("promise", NETWORK, ids=lambda promise: promise.failure)
def test_a_release_that_was_lost_takes_effect_when_the_network_is_back(
    outcome: Callable[[Promise], Future[None]], promise: Promise
) -> None:
    outcome(promise).result()


@pytest.mark.parametrize("promise", REBOOT, ids=lambda promise: promise.failure)
def test_the_lock_holds_from_the_first_login_after_a_reboot(
    outcome: Callable[[Promise], Future[None]], promise: Promise
) -> None:
    outcome(promise).result()


@pytest.mark.parametrize("promise", CLOCK, ids=lambda promise: promise.failure)
def test_a_reservation_opens_and_ends_by_the_servers_clock(
    outcome: Callable[[Promise], Future[None]], promise: Promise
) -> None:
    outcome(promise).result()
