"""A node with cards and people who book it at the services, and what that leaves behind."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
from apiflask import APIFlask
from sqlalchemy import select

from sentinel_booking.errors import InvalidInput
from sentinel_booking.models import AuditEntry, Node, Role, SshKey, db, write
from sentinel_booking.services.audit import Actor
from sentinel_booking.services.reservations import Wanted
from tests.booking.bookings import add_actor, add_node, broken_invariants, soon


@dataclasses.dataclass(frozen=True)
class Lab:
    """A node with four cards, and some people."""

    app: APIFlask
    uuids: list[str]
    alice: Actor
    bob: Actor
    olga: Actor  # an operator
    rita: Actor  # may only look

    def wish(self, *slots: int, start: float = 0, end: float = 1) -> Wanted:
        """Some cards tomorrow, hours counted from soon(); without a card: the whole node."""
        return Wanted(
            node="n1",
            starts=soon(start),
            ends=soon(end),
            device_uuids=tuple(self.uuids[slot] for slot in slots),
            whole_node=not slots,
        )


@pytest.fixture
def lab(app: APIFlask) -> Iterator[Lab]:
    """On an empty database, in an app context; at the end nothing may be broken."""
    uuids = add_node(app)
    people = {
        name: add_actor(app, name, role)
        for name, role in (
            ("alice", Role.USER),
            ("bob", Role.USER),
            ("olga", Role.OPERATOR),
            ("rita", Role.READONLY),
        )
    }
    with app.app_context():
        yield Lab(app, uuids, **people)
        assert broken_invariants() == []


def node_row() -> Node:
    db.session.rollback()
    return db.session.scalars(select(Node)).one()


def audit_actions() -> list[str]:
    db.session.rollback()
    return list(
        db.session.scalars(
            select(AuditEntry.action)
            .where(AuditEntry.object_type == "reservation")
            .order_by(AuditEntry.id)
        )
    )


def fields(caught: pytest.ExceptionInfo[InvalidInput]) -> list[str]:
    return [problem.field for problem in caught.value.fields]


def add_key(who: Actor) -> int:
    """Give somebody an SSH key; returns its id."""
    with write() as session:
        key = SshKey(
            user_id=who.user_id,
            public_key=f"ssh-ed25519 {who.name}",
            key_type="ssh-ed25519",
            bits=256,
            fingerprint=f"SHA256:{who.name}",
        )
        session.add(key)
        session.flush()
        return key.id
