"""The node fails in every way: a reservation holds where it can, and nobody else gets in."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial

import pytest

from tests.agent.booking_server import public_key
from tests.agent.failure_table import AGENT, FILES, GATES, Promise
from tests.agent.failures import STATE, USERS, Failure, Matrix, outcomes, row
from tests.lab.node import GET_KEYS as GET_KEYS_SOURCE
from tests.lab.wait import wait_for

CACHE = f"{STATE}/policy.json"
ACCESS = f"{STATE}/access"
GET_KEYS = "/usr/lib/sentinel/get-keys"
PAM_GATE = "/usr/lib/sentinel/pam-gate"
PAM = "/etc/pam.d/sshd"
SHIPPED = {GET_KEYS: GET_KEYS_SOURCE, PAM_GATE: GET_KEYS_SOURCE.with_name("pam_gate")}


@contextlib.contextmanager
def agent_killed(matrix: Matrix) -> Iterator[None]:
    matrix.node.stop_agent(signal.SIGKILL)
    yield
    matrix.restart_agent()


@contextlib.contextmanager
def agent_hung(matrix: Matrix) -> Iterator[None]:
    with matrix.agent_hung():
        yield


@contextlib.contextmanager
def agent_without_config(matrix: Matrix) -> Iterator[None]:
    """Its configuration is damaged, and it is started anew."""
    config = matrix.node.root / "etc/sentinel/agent.toml"
    sound = config.read_text()
    matrix.node.stop_agent()
    config.write_text(sound[:-20])
    matrix.node.start_agent()
    assert matrix.node.agent is not None
    assert matrix.node.agent.wait(30) == 2
    yield
    config.write_text(sound)
    matrix.restart_agent()


@contextlib.contextmanager
def agent_without_state(matrix: Matrix) -> Iterator[None]:
    """Nothing it keeps can be read, and there is no server to ask when it is started anew."""
    matrix.node.stop_agent()
    matrix.server.stop()
    start = len(matrix.node.log("agent"))
    damage = "echo damaged > granted.json; rm policy.json access; mkdir policy.json access"
    matrix.node.run(["sh", "-c", f"cd {STATE}; {damage}"])
    matrix.node.start_agent()
    wait_for("it misses the server", partial(matrix.has_logged, "no answer", start))
    yield
    matrix.server.start()
    matrix.wait_for_agent()


AGENT_ROWS: dict[str, Failure] = {
    "it is killed": agent_killed,
    "it hangs": agent_hung,
    "its configuration is damaged when it starts": agent_without_config,
    "all it keeps is damaged when it starts, and the server is down": agent_without_state,
}


def by(command: str, cure: str = "") -> Failure:
    """Return the failure that a shell command in the node makes, and what takes it back."""

    @contextlib.contextmanager
    def failure(matrix: Matrix) -> Iterator[None]:
        matrix.node.run(["sh", "-c", command])
        yield
        if cure:
            matrix.node.run(["sh", "-c", cure])

    return failure


@contextlib.contextmanager
def disk_full(matrix: Matrix) -> Iterator[None]:
    """There is no space left when bob, who is logged in, loses his reservation."""
    matrix.server.grant(*matrix.grants_for("alice", "bob"))
    matrix.lab.wait_for_policy()
    wait_for("bob gets in", lambda: "bob" in matrix.who_gets_in())
    with matrix.lab.session("bob") as session:
        fill = f"cat /dev/zero > {STATE}/filler"
        assert "No space left" in matrix.node.run(["sh", "-c", fill], check=False).stderr
        matrix.server.grant(*matrix.grants_for("alice"))
        wait_for("bob's session is ended", lambda: not session.is_open())
    wait_for("it is reported", lambda: matrix.is_reported("No space left"))
    yield
    matrix.node.run(["rm", f"{STATE}/filler"])
    matrix.lab.wait_for_policy()
    wait_for("all is well", lambda: not matrix.is_reported("No space left"))


FILE_DAMAGES: dict[str, str] = {
    "is cut short": "truncate -s -5 {0}",
    "is emptied": "truncate -s 0 {0}",
    "is removed": "rm {0}",
    "can be written by all": "chmod 0666 {0}",
    "belongs to a user": "chown carol {0}",
    "is a symbolic link": "cp -p {0} {0}.real; ln -sf {0}.real {0}",
    "is a pipe": "rm {0}; mkfifo -m 0640 {0}",
    "is a folder": "rm {0}; mkdir {0}",
}
FILE_ROWS: dict[str, Failure] = {
    f"{name} {what}": by(command.format(path))
    for name, path in (("the cache", CACHE), ("the access file", ACCESS))
    for what, command in FILE_DAMAGES.items()
} | {"their folder can be written by all": by(f"chmod 0777 {STATE}", f"chmod 0750 {STATE}")}
FILE_ROWS["the disk is full while a reservation is released"] = disk_full


def unmended(failure: Failure, gate: str) -> Failure:
    """Return the failure as it is before the agent puts the gate right, which it must then."""

    @contextlib.contextmanager
    def lasting(matrix: Matrix) -> Iterator[None]:
        with matrix.agent_hung(), failure(matrix):
            yield
        installed = matrix.node.root / gate.lstrip("/")
        shipped = SHIPPED[gate].read_bytes()
        wait_for("it is put right", lambda: installed.read_bytes() == shipped)
        wait_for("its mode too", lambda: installed.stat().st_mode & 0o7777 == 0o755)
        wait_for("it is reported", lambda: matrix.is_reported(f"integrity: {gate}: "))

    return lasting


def giving_out_keys(matrix: Matrix) -> str:
    """Return a program for get-keys' place that gives everybody the key that they bring."""
    lines = "".join(f"{user}) echo '{public_key(matrix.lab.keys[user])}';;\n" for user in USERS)
    return f"#!/bin/sh\ncase $1 in\n{lines}esac\n"


@contextlib.contextmanager
def get_keys_gives_out_keys(matrix: Matrix) -> Iterator[None]:
    """Root's own, and nobody else can write it: sshd has no reason not to run it."""
    matrix.node.write(GET_KEYS, giving_out_keys(matrix), mode=0o755)
    yield


@contextlib.contextmanager
def pam_gate_not_asked(matrix: Matrix) -> Iterator[None]:
    """Another package's tool writes PAM's configuration anew, say."""
    service = matrix.node.root / "etc/pam.d/sshd"
    sound = service.read_text()
    with matrix.agent_hung():
        matrix.node.run(["sed", "-i", "/BEGIN ServerSentinel/,/END ServerSentinel/d", PAM])
        assert service.read_text() != sound
        yield
    wait_for("it is put back", lambda: service.read_text() == sound)
    wait_for("it is reported", lambda: matrix.is_reported("lock: put back: /etc/pam.d/sshd"))


@contextlib.contextmanager
def get_keys_account_deleted(matrix: Matrix) -> Iterator[None]:
    accounts = ("passwd", "shadow", "group", "gshadow")
    for name in accounts:
        matrix.node.run(["cp", "-p", f"/etc/{name}", f"/etc/{name}.sound"])
    matrix.node.run(["userdel", "--force", "sentinel-akc"])
    yield
    for name in accounts:
        matrix.node.run(["mv", f"/etc/{name}.sound", f"/etc/{name}"])


GATE_ROWS: dict[str, Failure] = {
    "get-keys is replaced by root's own that gives out keys": unmended(
        get_keys_gives_out_keys, GET_KEYS
    ),
    "get-keys can be written by all": by(f"chmod 0777 {GET_KEYS}"),
    "get-keys belongs to a user": by(f"chown carol {GET_KEYS}"),
    "get-keys is removed": by(f"rm {GET_KEYS}"),
    "get-keys is a folder": by(f"rm {GET_KEYS}; mkdir {GET_KEYS}"),
    "get-keys cannot be executed": by(f"chmod 0644 {GET_KEYS}"),
    "get-keys is replaced by one that hangs": by(
        f"printf '#!/bin/sh\nexec sleep 1000\n' > {GET_KEYS}"
    ),
    "pam-gate is replaced by one that lets all in": by(
        f"printf '#!/bin/sh\nexit 0\n' > {PAM_GATE}"
    ),
    "pam-gate can be written by all": by(f"chmod 0777 {PAM_GATE}"),
    "pam-gate is removed": by(f"rm {PAM_GATE}"),
    "pam-gate is taken out of PAM's configuration": pam_gate_not_asked,
    "the account of get-keys is deleted": get_keys_account_deleted,
}


FAILURES = AGENT_ROWS | FILE_ROWS | GATE_ROWS


@pytest.fixture(scope="module")
def outcome(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[Promise], Future[None]]]:
    """Run all rows at once; each test takes its own."""
    promises = (*AGENT, *FILES, *GATES)
    rows = dict(row(promise, FAILURES[promise.failure]) for promise in promises)
    with outcomes(tmp_path_factory.mktemp("node-fails"), rows) as found:
        yield lambda promise: found[promise.failure]


@pytest.mark.parametrize("promise", AGENT, ids=lambda promise: promise.failure)
def test_whatever_the_agent_does_a_reservation_holds(
    outcome: Callable[[Promise], Future[None]], promise: Promise
) -> None:
    outcome(promise).result()


@pytest.mark.parametrize("promise", FILES, ids=lambda promise: promise.failure)
def test_a_damaged_file_lets_nobody_in_until_it_is_mended(
    outcome: Callable[[Promise], Future[None]], promise: Promise
) -> None:
    outcome(promise).result()


@pytest.mark.parametrize("promise", GATES, ids=lambda promise: promise.failure)
def test_one_gate_that_fails_lets_nobody_in_alone(
    outcome: Callable[[Promise], Future[None]], promise: Promise
) -> None:
    outcome(promise).result()
