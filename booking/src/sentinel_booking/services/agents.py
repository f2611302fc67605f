"""An agent's registration, its identity and its heartbeats. Grants nothing."""

from __future__ import annotations

import datetime as dt
import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import select, update

from ..domain.targets import is_host
from ..errors import InvalidInput, NotSignedIn
from ..models import Node, db, utc_now, write
from .audit import Actor, record
from .invites import consume_invite
from .policy_version import bump_policy
from .targets import move_targets


@dataclass(frozen=True)
class Registration:
    """The node that the invite was for, and the agent's token, which is never shown again."""

    node: str
    token: str


@dataclass(frozen=True)
class Agent:
    """The node whose agent calls."""

    node_id: int
    node: str


@dataclass(frozen=True)
class Heartbeat:
    """What an agent says of itself; `sent_at` is by the node's own clock.

    `policy_version` None: it holds no policy yet. `sessions` counts SSH sessions by user.
    """

    agent_version: str
    sent_at: dt.datetime
    boot_id: str
    mode: str
    policy_version: int | None
    sessions: Mapping[str, int]
    problems: Sequence[str]


def register_agent(
    *, code: str, hostname: str, address: str, agent_version: str, ip: str
) -> Registration:
    """Use up the invite and give the node's agent a new token; an older one ends.

    `address` becomes the host of the node's scrape targets. Who: whoever has the code.
    Raises InviteRefused for a code that is unknown, used or expired, and InvalidInput for
    an address that is none.
    """
    if not is_host(address):
        raise InvalidInput.field("address", "not a host name or an IP address")
    token = secrets.token_urlsafe(32)
    with write() as session:
        node = consume_invite(session, code)
        before = {"address": node.address, "is_registered": node.token_hash is not None}
        node.token_hash = _hash(token)
        node.registered_at = utc_now()
        node.address = address
        node.agent_version = agent_version
        move_targets(node)
        # An agent that still waits with the old token is woken, and refused.
        session.flush()
        bump_policy(session, [node.id])
        record(
            session,
            Actor(kind="agent", name=node.name, ip=ip),
            "node.register",
            "node",
            node.name,
            before=before,
            after={
                "address": address,
                "is_registered": True,
                "hostname": hostname,
                "agent_version": agent_version,
            },
        )
        return Registration(node=node.name, token=token)


def find_agent(token: str) -> Agent:
    """Return whose token this is. Raises NotSignedIn when it is unknown or revoked.

    It is looked up by its hash, so that the time taken tells nothing about the token.
    """
    row = db.session.execute(
        select(Node.id, Node.name).where(
            Node.token_hash == _hash(token), Node.removed_at.is_(None)
        )
    ).one_or_none()
    if row is None:
        raise NotSignedIn("The agent's token is unknown or was revoked: register again.")
    return Agent(node_id=row.id, node=row.name)


def accept_heartbeat(node_id: int, heartbeat: Heartbeat) -> dt.datetime:
    """Store what the agent says of itself and return the server's time.

    One UPDATE and no audit entry: it comes from every node several times a minute.
    Who: the node's agent. Raises NotSignedIn when the node was removed meanwhile.
    """
    now = utc_now()
    report = {
        "mode": heartbeat.mode,
        "policy_version": heartbeat.policy_version,
        "boot_id": heartbeat.boot_id,
        "clock_skew_s": round((now - heartbeat.sent_at).total_seconds(), 3),
        "sessions": dict(heartbeat.sessions),
        "problems": list(heartbeat.problems),
    }
    with write() as session:
        found = session.scalar(
            update(Node)
            .where(Node.id == node_id, Node.removed_at.is_(None))
            .values(
                heartbeat_at=now, agent_version=heartbeat.agent_version, agent_report=report
            )
            .returning(Node.id)
        )
        if found is None:
            raise NotSignedIn("The node was removed.")
    return now


def _hash(token: str) -> str:
    # The token has 256 random bits: nobody can try them out, so it needs no salt.
    return hashlib.sha256(token.encode()).hexdigest()
