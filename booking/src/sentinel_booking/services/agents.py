"""An agent's registration, its tokens and who it is by them. Grants nothing."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass

from sqlalchemy import or_, select, update

from ..domain.targets import is_host
from ..errors import InvalidInput, NotSignedIn
from ..models import Node, db, utc_now, write
from .audit import Actor, record
from .invites import consume_invite
from .policy_version import bump_policy
from .targets import move_targets

_REFUSED = "The agent's token is unknown or was revoked: register the node anew."


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
    token = _new_token()
    with write() as session:
        node = consume_invite(session, code)
        before = {"address": node.address, "is_registered": node.token_hash is not None}
        node.token_hash = _hash(token)
        node.next_token_hash = None
        # From here on it is one machine again.
        node.boots, node.cloned_at = [], None
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


def find_agent(token: str, ip: str = "") -> Agent:
    """Return whose token this is. Raises NotSignedIn when it is unknown or revoked.

    The first use of a token that `issue_token` gave ends the one before it. It is looked up by
    its hash, so that the time taken tells nothing about the token.
    """
    hashed = _hash(token)
    found = _find(hashed)
    if found is None or not found.is_next:
        return _known(found)
    with write() as session:
        # Of several requests that use it first, the one that changes the row writes it down.
        name = session.scalar(
            update(Node)
            .where(Node.next_token_hash == hashed, Node.removed_at.is_(None))
            .values(token_hash=hashed, next_token_hash=None)
            .returning(Node.name)
        )
        if name is not None:
            actor = Actor(kind="agent", name=name, ip=ip)
            record(session, actor, "node.rotate_token", "node", name)
    # Meanwhile it may have been revoked.
    return _known(_find(hashed))


def issue_token(actor: Actor, node_id: int, used: str) -> str:
    """Give the agent another token, in place of one that it was given and has not used.

    `used`, the token that it asks with, stays good until the new one is used. Who: the node's
    agent. Raises NotSignedIn when `used` was revoked meanwhile.
    """
    token = _new_token()
    with write() as session:
        name = session.scalar(
            update(Node)
            .where(
                Node.id == node_id,
                Node.token_hash == _hash(used),
                Node.removed_at.is_(None),
            )
            .values(next_token_hash=_hash(token))
            .returning(Node.name)
        )
        if name is None:
            raise NotSignedIn(_REFUSED)
        record(session, actor, "node.issue_token", "node", name)
    return token


@dataclass(frozen=True)
class _Found:
    agent: Agent
    is_next: bool


def _find(hashed: str) -> _Found | None:
    row = db.session.execute(
        select(Node.id, Node.name, Node.token_hash).where(
            or_(Node.token_hash == hashed, Node.next_token_hash == hashed),
            Node.removed_at.is_(None),
        )
    ).one_or_none()
    if row is None:
        return None
    return _Found(Agent(node_id=row.id, node=row.name), is_next=row.token_hash != hashed)


def _known(found: _Found | None) -> Agent:
    if found is None:
        raise NotSignedIn(_REFUSED)
    return found.agent


def _new_token() -> str:
    return secrets.token_urlsafe(32)


def _hash(token: str) -> str:
    # The token has 256 random bits: nobody can try them out, so it needs no salt.
    return hashlib.sha256(token.encode()).hexdigest()
