"""The worker: leases, and what is deleted when it is old."""

from __future__ import annotations

import datetime as dt
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from apiflask import APIFlask
from sqlalchemy import func, select

from sentinel_booking.config import Config
from sentinel_booking.models import (
    AuditEntry,
    Base,
    IdempotencyKey,
    Invite,
    Lease,
    Node,
    SignIn,
    write,
)
from sentinel_booking.services.housekeeping import STEPS
from sentinel_booking.services.leases import take_lease
from sentinel_booking.worker import do_due_work
from tests.booking.lab import add_node, now
from tests.booking.people import add_user
from tests.booking.programs import migrated_app, until, write_config

HOUR = dt.timedelta(hours=1)


def count(app: APIFlask, table: type[Base]) -> int:
    with app.app_context(), write() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def add_old_and_new(app: APIFlask) -> None:
    """Two of everything that is deleted in time: one too old, one not quite."""
    user_id = add_user(app, "alice")
    add_node(app, "gpu1")
    minute = dt.timedelta(minutes=1)
    with app.app_context(), write() as session:
        node_id = session.scalars(select(Node.id)).one()
        for number, age in enumerate((minute, -minute)):
            session.add(SignIn(sid=f"s{number}", user_id=user_id, expires_at=now() - age))
            session.add(
                IdempotencyKey(
                    user_id=user_id,
                    key=f"k{number}",
                    body_hash="",
                    response={},
                    created_at=now() - 24 * HOUR - age,
                )
            )
            session.add(
                Invite(
                    node_id=node_id,
                    code_hash=f"c{number}",
                    created_by="olga",
                    expires_at=now() - dt.timedelta(days=30) - age,
                )
            )


def test_only_what_is_too_old_is_deleted(app: APIFlask) -> None:
    add_old_and_new(app)
    audited = count(app, AuditEntry)
    with app.app_context():
        assert do_due_work("w1", STEPS)
    with app.app_context(), write() as session:
        assert session.scalars(select(SignIn.sid)).all() == ["s1"]
        assert session.scalars(select(IdempotencyKey.key)).all() == ["k1"]
        assert session.scalars(select(Invite.code_hash)).all() == ["c1"]
    assert count(app, AuditEntry) == audited


def test_a_lease_has_one_owner_who_may_renew_it(app: APIFlask) -> None:
    with app.app_context():
        assert take_lease("work", "w1", HOUR)
        assert not take_lease("work", "w2", HOUR)
        assert take_lease("work", "w1", HOUR)
        assert take_lease("other", "w2", HOUR)


def test_a_lease_that_has_run_out_is_free(app: APIFlask) -> None:
    with app.app_context():
        assert take_lease("work", "w1", -HOUR)
        assert take_lease("work", "w2", HOUR)
        assert not take_lease("work", "w1", HOUR)


@pytest.mark.parametrize("is_first", [True, False])
def test_of_many_that_ask_at_once_one_gets_the_lease(app: APIFlask, is_first: bool) -> None:
    if not is_first:
        with app.app_context(), write() as session:
            session.add(Lease(name="work", owner="gone", expires_at=now() - HOUR))
    taken: list[bool] = []
    barrier = threading.Barrier(6)

    def ask(owner: str) -> None:
        with app.app_context():
            barrier.wait()
            taken.append(take_lease("work", owner, HOUR))

    threads = [threading.Thread(target=ask, args=(f"w{number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == [False] * 5 + [True]


def test_two_workers_never_work_at_once(app: APIFlask) -> None:
    inside: list[str] = []
    seen: list[list[str]] = []
    did: list[bool] = []

    def work(owner: str) -> None:
        def step() -> int:
            inside.append(owner)
            time.sleep(0.02)
            seen.append(list(inside))
            inside.remove(owner)
            return 0

        with app.app_context():
            did.extend(do_due_work(owner, {"one": step, "two": step}) for _ in range(5))

    threads = [threading.Thread(target=work, args=(f"w{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert True in did
    assert {len(one) for one in seen} == {1}


def test_a_step_that_fails_holds_up_no_other(app: APIFlask) -> None:
    done: list[str] = []

    def broken() -> int:
        raise RuntimeError("planted")

    def sound() -> int:
        done.append("sound")
        return 1

    with app.app_context():
        assert do_due_work("w1", {"broken": broken, "sound": sound})
    assert done == ["sound"]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_command_works_until_it_is_told_to_end(config: Config, tmp_path: Path) -> None:
    app = migrated_app(config)
    add_old_and_new(app)
    program = Path(sys.executable).parent / "sentinel-booking"
    file = write_config(config, tmp_path)
    with (tmp_path / "log").open("wb") as log:
        worker = subprocess.Popen([program, "--config", file, "worker"], stderr=log)
    try:
        until(
            lambda: count(app, Invite) == 1 and count(app, SignIn) == 1,
            (tmp_path / "log").read_text,
        )
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(20) == 0
    finally:
        worker.kill()
        worker.wait()
