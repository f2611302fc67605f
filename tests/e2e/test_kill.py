"""Kill -9 anywhere: nothing confirmed is lost, and nobody is in who should not be."""

from __future__ import annotations

import contextlib
import os
import random
import threading
import uuid

import requests

from tests.e2e.lab_node import LabNode
from tests.e2e.steps import add_key, add_person, join, sign_in_first, wanted
from tests.lab.api import Api
from tests.lab.system import System
from tests.lab.wait import wait_for

# At least so many bookings and so many kills.
ROUNDS = 6
KILLS = 9
# Prometheus' jobs that a node is scraped for.
EXPORTERS = {"agent", "node", "sentinel"}


class Killer:
    """kill -9 of booking, agent or exporter at random moments, until stop()."""

    def __init__(self, system: System, lab_node: LabNode, chance: random.Random) -> None:
        self._system = system
        self._lab_node = lab_node
        self._chance = chance
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self.killed: list[str] = []

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(30)

    def _work(self) -> None:
        victims: list[str] = []
        while not self._stopping.wait(self._chance.uniform(0.3, 2.5)):
            # In a random order, but each in its turn.
            if not victims:
                victims = self._chance.sample(("booking", "agent", "exporter"), 3)
            victim = victims.pop()
            if victim == "booking":
                # The master, or one worker in the middle of a request.
                pids = self._system.pids("booking")
                if pids:
                    _kill(self._chance.choice(pids))
            else:
                self._lab_node.services[victim].kill()
            self.killed.append(victim)


def test_nothing_confirmed_is_lost_and_nobody_is_in_who_should_not_be(
    system: System, lab_node: LabNode
) -> None:
    node = lab_node.node
    admin = sign_in_first(system, "admin", system.admin_password)
    uuids = join(system, admin, lab_node)
    alice, bob = (add_person(admin, system, name) for name in ("alice", "bob"))
    alice_key, bob_key = add_key(alice, node), add_key(bob, node)

    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)
    killer = Killer(system, lab_node, chance)
    killer.start()
    confirmed: dict[int, str] = {}
    try:
        rounds = 0
        while rounds < ROUNDS or len(killer.killed) < KILLS:
            rounds += 1
            cards = sorted(chance.sample(range(8), 2))
            one = book(alice, wanted(node, [uuids[card] for card in cards]))
            confirmed[one] = "running"
            wait_for(
                "alice's login after the booking was answered",
                lambda: node.ssh("alice", alice_key, "true").returncode == 0,
                timeout_s=60,
            )
            assert node.ssh("bob", bob_key, "true").returncode == 255
            release(alice, one)
            confirmed[one] = "past"
            wait_for(
                "alice's refusal after the release was answered",
                lambda: node.ssh("alice", alice_key, "true").returncode == 255,
                timeout_s=60,
            )
            assert node.ssh("bob", bob_key, "true").returncode == 255
    finally:
        killer.stop()
    assert {"booking", "agent", "exporter"} == set(killer.killed)

    wait_for("booking answers", lambda: requests.get(f"{system.url}/readyz", timeout=5).ok)
    found = alice.get("/api/reservations", holder="alice", limit="200").json()["items"]
    assert {item["id"]: item["state"] for item in found} == confirmed
    assert node.ssh("alice", alice_key, "true").returncode == 255
    up = f'up{{node="{node.name}"}} == 1'
    wait_for(
        "the node is measured again",
        lambda: {item["metric"]["job"] for item in system.query(up)} == EXPORTERS,
        timeout_s=60,
    )


def book(person: Api, body: dict[str, object]) -> int:
    """Book as a careful script does: again with the same Idempotency-Key until answered."""
    key = uuid.uuid4().hex

    def attempt() -> int | None:
        answer = person.post("/api/reservations", body, **{"Idempotency-Key": key})
        if answer.status_code in (502, 503):
            return None
        assert answer.status_code == 201, answer.text
        number: int = answer.json()["id"]
        return number

    return wait_for("the booking is answered", attempt, timeout_s=60)


def release(person: Api, number: int) -> None:
    """Release, again until answered."""
    wait_for(
        "the release is answered",
        lambda: person.post(f"/api/reservations/{number}/release").status_code == 200,
        timeout_s=60,
    )


def _kill(pid: int) -> None:
    # It may have ended by itself since the list was read.
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 9)
