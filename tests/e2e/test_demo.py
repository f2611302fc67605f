"""script/demo makes a running system look like a lab."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from script.demo_lab.lab import NODES, PEOPLE
from tests.lab.api import Api
from tests.lab.system import ROOT, System
from tests.lab.wait import wait_for


@contextmanager
def demo(state: Path, log: Path) -> Iterator[None]:
    """Run it until the block ends, as Ctrl-C would end it."""
    with log.open("w") as output:
        process = subprocess.Popen(
            [str(ROOT / "script" / "demo"), str(state)], stdout=output, stderr=output
        )
        try:
            wait_for("the lab runs", lambda: "the lab is running" in log.read_text(), 120)
            yield
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0, log.read_text()


def test_the_demo_has_people_nodes_bookings_and_series_that_move(tmp_path: Path) -> None:
    system = System(tmp_path / "up", "127.0.0.1", smtp_port=9, offline_for="5s")
    system.start()
    try:
        with demo(system.state, tmp_path / "demo.log"):
            admin = Api(
                system.url, "demo", (system.state / "demo/password").read_text().strip()
            )
            users = {user["name"] for user in admin.get("/api/users").json()["items"]}
            assert {person.name for person in PEOPLE} < users
            for state in ("running", "coming", "past"):
                found = admin.get("/api/reservations", state=state, limit="200").json()["items"]
                assert len({one["node"] for one in found}) > 5, state
            alive = sum(node.is_up for node in NODES)
            up = 'up{job="sentinel",node!="server"} == 1'
            wait_for("the nodes are scraped", lambda: len(system.query(up)) == alive)
            changes = "max(changes(accelerator_utilization_ratio[1m])) > 0"
            wait_for("the readings move", lambda: system.query(changes))
            # What the product is for: the two join.
            booked_and_used = """count(
                sentinel_reservation_device
                * on (uuid, node) group_left () accelerator_utilization_ratio)"""
            wait_for("booked against used", lambda: system.query(booked_and_used))
        # A second time: nothing is doubled.
        before = len(admin.get("/api/nodes").json()["items"])
        with demo(system.state, tmp_path / "again.log"):
            assert len(admin.get("/api/nodes").json()["items"]) == before
            assert "0 added" in (tmp_path / "again.log").read_text()
    finally:
        system.stop()
