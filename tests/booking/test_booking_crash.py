"""kill -9 in the middle of bookings: what was confirmed is there, and nothing is half done."""

from __future__ import annotations

import datetime as dt
import os
import signal
import threading
from pathlib import Path

import requests

from sentinel_booking.config import Config
from sentinel_booking.domain.times import rfc3339
from sentinel_booking.models import AuditEntry, Reservation, db
from tests.booking.bookings import add_node, broken_invariants, soon
from tests.booking.people import Person, add_person
from tests.booking.programs import BookingServer, booking_server, migrated_app, until

CALLERS = 6
MINUTE = dt.timedelta(minutes=1)
# So many answers, then the kill; the callers never stop by themselves.
CONFIRMED_BEFORE_THE_KILL = 40


class Caller(threading.Thread):
    """Books a card minute after minute, extends and releases some, until nobody answers."""

    def __init__(self, server: BookingServer, who: Person, card: int) -> None:
        super().__init__(daemon=True)
        self.server, self.card = server, card
        self.session = requests.Session()
        self.session.headers.update(who.headers)
        # What the server said about each reservation at last.
        self.confirmed: dict[int, dict[str, object]] = {}
        # What was asked last, and not answered: it may have happened or not.
        self.unanswered: int | None = None
        self.unexpected: list[str] = []

    def run(self) -> None:
        try:
            for turn in range(10_000):
                self._book(turn)
        except requests.RequestException:
            return

    def _book(self, turn: int) -> None:
        made = self._ask(
            "POST",
            "/api/reservations",
            json={
                "node": "n1",
                "devices": [f"GPU-n1-{self.card}"],
                "starts": rfc3339(soon() + turn * MINUTE),
                "ends": rfc3339(soon() + (turn + 1) * MINUTE),
            },
        )
        number, path = int(str(made["id"])), f"/api/reservations/{made['id']}"
        if turn % 3 == 1:
            self._ask("PATCH", path, number, json={"purpose": "x"}, headers={"If-Match": '"1"'})
        if turn % 3 == 2:
            self._ask("POST", f"{path}/release", number)

    def _ask(
        self, method: str, path: str, number: int | None = None, **options: object
    ) -> dict[str, object]:
        self.unanswered = number
        answer = self.session.request(
            method,
            self.server.url + path,
            timeout=60,
            **options,  # type: ignore[arg-type]  # json and headers only
        )
        if answer.status_code not in (200, 201):
            self.unexpected.append(f"{answer.status_code} {answer.text}")
            raise requests.RequestException("unexpected answer")
        self.unanswered = None
        document: dict[str, object] = answer.json()
        self.confirmed[int(str(document["id"]))] = document
        return document


def test_what_was_confirmed_survives_kill_9(config: Config, tmp_path: Path) -> None:
    app = migrated_app(config)
    add_node(app, devices=CALLERS)
    alice = add_person(app, "alice")
    folders = [tmp_path / name for name in ("first", "second")]
    for folder in folders:
        folder.mkdir()

    with booking_server(
        config, folders[0], workers=2, threads=8, max_policy_waiters=2
    ) as server:
        callers = [Caller(server, alice, card) for card in range(CALLERS)]
        for caller in callers:
            caller.start()
        until(
            lambda: (
                sum(len(caller.confirmed) for caller in callers) >= CONFIRMED_BEFORE_THE_KILL
            ),
            lambda: f"too few bookings: {[caller.unexpected for caller in callers]}",
            timeout_s=120,
        )
        # Gunicorn and its workers, in the middle of whatever they do.
        os.killpg(server.process.pid, signal.SIGKILL)
        for caller in callers:
            caller.join(60)
    assert [caller.unexpected for caller in callers] == [[]] * CALLERS

    with app.app_context():
        assert broken_invariants() == []
        audited = {
            entry.object_id
            for entry in db.session.query(AuditEntry).filter_by(action="reservation.create")
        }
        rows = {row.id: row for row in db.session.query(Reservation)}
        assert audited == {str(number) for number in rows}
        for caller in callers:
            for number, said in caller.confirmed.items():
                row = rows[number]
                if number == caller.unanswered:
                    # Its next change was under way: done or not, but nothing in between.
                    assert row.version in (said["version"], int(str(said["version"])) + 1)
                    continue
                assert (row.version, row.purpose, row.is_cancelled) == (
                    said["version"],
                    said["purpose"],
                    said["is_cancelled"],
                )
                assert (rfc3339(row.starts), rfc3339(row.ends)) == (
                    said["starts"],
                    said["ends"],
                )

    with booking_server(config, folders[1]) as server:
        answer = requests.post(
            f"{server.url}/api/reservations",
            json={"node": "n1", "whole_node": True, "ends": rfc3339(soon(-1))},
            headers=alice.headers,
            timeout=60,
        )
        assert answer.status_code == 201, answer.text
