"""From a booking's answer to the login: the real server, the real agent and a real sshd.

Ten people with a card each book, log in, release and are locked out again, side by side. A
login begins one second after the answer. When the node knew of each change is measured by its
gates' files: both are read anew at each login, so they decide the first login that is let in
and the first that is refused.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import requests

from tests.contract.real_lab import NODE, RealLab, real_lab
from tests.lab.api import Api
from tests.lab.node import Node
from tests.lab.wait import wait_for

PEOPLE = ("alice", "bob", "carol", "dora", "erik", "fei", "gao", "hans", "ines", "jun")
ROUNDS = 5
BEGIN_AFTER_S = 1.0


@dataclass(frozen=True)
class Asked:
    """When a request was sent and when its answer was there, by the monotonic clock."""

    sent: float
    answered: float
    answer: requests.Response


def ask(person: Api, path: str, body: dict[str, object] | None = None) -> Asked:
    sent = time.monotonic()
    answer = person.post(path, body)
    asked = Asked(sent, time.monotonic(), answer)
    assert answer.ok, answer.text
    return asked


class Gates:
    """Whom the node's two gates both let in, and since when; watched by a thread."""

    def __init__(self, node: Node) -> None:
        folder = node.root / "var/lib/sentinel"
        self._files = {"get-keys": folder / "policy.json", "pam-gate": folder / "access"}
        self._seen: dict[str, tuple[int, int]] = {}
        self._users: dict[str, frozenset[str]] = dict.fromkeys(self._files, frozenset())
        # When, by the monotonic clock, it was seen to be otherwise, and who may log in since.
        self._history: list[tuple[float, frozenset[str]]] = [(0.0, frozenset())]
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Gates:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()

    def delay_s(self, user: str, asked: Asked, *, is_open: bool) -> float:
        """Return how long after the answer the user could, or could not, log in any more."""

        def find() -> float | None:
            for at, users in self._history:
                if at > asked.sent and (user in users) is is_open:
                    return at
            return None

        at = wait_for(f"the gates know of {user}", find, timeout_s=20)
        # The node may know before the person does.
        return max(0.0, at - asked.answered)

    def _watch(self) -> None:
        while not self._ends.wait(0.002):
            for gate, path in self._files.items():
                with contextlib.suppress(FileNotFoundError):
                    found = path.stat()
                    identity = (found.st_ino, found.st_mtime_ns)
                    if self._seen.get(gate) == identity:
                        continue
                    self._users[gate] = self._read(gate, path)
                    self._seen[gate] = identity
                    both = frozenset.intersection(*self._users.values())
                    self._history.append((time.monotonic(), both))

    @staticmethod
    def _read(gate: str, path: Path) -> frozenset[str]:
        """Return the users whom the file lets in now."""
        text = path.read_text()
        if gate == "pam-gate":
            now = time.time()
            rows = [line.split() for line in text.splitlines()[1:]]
            return frozenset(row[0] for row in rows if float(row[1]) <= now < float(row[2]))
        at = dt.datetime.now(dt.UTC)
        return frozenset(
            grant["user"]
            for grant in json.loads(text)["grants"]
            if parse(grant.get("opens_at", grant["not_before"])) <= at
            if at < parse(grant["not_after"])
        )


def parse(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text)


@dataclass
class Tries:
    """What came of the logins, and how long the changes took to reach the node."""

    let_in: list[bool] = field(default_factory=list)
    refused: list[bool] = field(default_factory=list)
    open_s: list[float] = field(default_factory=list)
    shut_s: list[float] = field(default_factory=list)
    said: list[str] = field(default_factory=list)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[RealLab]:
    """A locked node that has registered with the real server and holds its policy."""
    with real_lab(tmp_path, PEOPLE, "enforce") as lab:
        lab.node.install_lock()
        lab.node.start_sshd()
        lab.start_agent()
        yield lab


def come_and_go(lab: RealLab, gates: Gates, name: str) -> Tries:
    """Book, log in, release and try again, over and over."""
    person, key, tries = lab.sign_in(name), lab.keys[name], Tries()
    public = key.with_suffix(".pub").read_text()
    assert person.post("/api/me/keys", {"public_key": public}).status_code == 201
    for _ in range(ROUNDS):
        ends = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
        wish: dict[str, object] = {
            "node": NODE,
            "devices": [lab.uuids[name]],
            "ends": ends.isoformat(),
        }
        booked = ask(person, "/api/reservations", wish)
        done = log_in(lab, name, booked.answered)
        tries.let_in.append(done.returncode == 0)
        tries.said.append(done.stderr)
        tries.open_s.append(gates.delay_s(name, booked, is_open=True))
        released = ask(person, f"/api/reservations/{booked.answer.json()['id']}/release")
        done = log_in(lab, name, released.answered)
        tries.refused.append(done.returncode == 255 and "Permission denied" in done.stderr)
        tries.shut_s.append(gates.delay_s(name, released, is_open=False))
    return tries


def log_in(lab: RealLab, name: str, answered: float) -> subprocess.CompletedProcess[str]:
    """Begin a login one second after the answer, whatever the node knows by then."""
    time.sleep(max(0.0, answered + BEGIN_AFTER_S - time.monotonic()))
    return lab.node.ssh(name, lab.keys[name], "true")


def distribution(seconds: list[float]) -> str:
    ordered = sorted(seconds)
    p90 = ordered[int(0.9 * (len(ordered) - 1))]
    return (
        f"min {ordered[0]:.3f} s, median {statistics.median(ordered):.3f} s,"
        f" p90 {p90:.3f} s, max {ordered[-1]:.3f} s"
    )


def test_a_login_begun_a_second_after_the_answer_finds_the_booking_in_force(
    lab: RealLab, capsys: pytest.CaptureFixture[str]
) -> None:
    with Gates(lab.node) as gates, ThreadPoolExecutor(len(PEOPLE)) as pool:
        results = list(pool.map(lambda name: come_and_go(lab, gates, name), PEOPLE))
    let_in = [one for tries in results for one in tries.let_in]
    refused = [one for tries in results for one in tries.refused]
    open_s = [one for tries in results for one in tries.open_s]
    shut_s = [one for tries in results for one in tries.shut_s]
    with capsys.disabled():
        print(
            f"\n{len(let_in)} bookings and releases, from the answer until the node's gates"
            f" follow:\n  booked   {distribution(open_s)}\n  released {distribution(shut_s)}"
        )
    assert len(let_in) == len(refused) == len(PEOPLE) * ROUNDS >= 50
    assert all(let_in), [said for tries in results for said in tries.said if said]
    assert all(refused)
