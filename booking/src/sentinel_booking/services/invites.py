"""One-time codes with which a node's agent registers. Only their hashes are kept."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import secrets
from dataclasses import dataclass

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from ..errors import NotAllowed, NotFound
from ..models import Invite, Node, utc_now, write
from .audit import Actor, record

# Expired and used invites stay so long, for whoever asks why a registration was refused.
KEEP_OLD = dt.timedelta(days=30)


@dataclass(frozen=True)
class NewInvite:
    """The code is shown once and stored nowhere."""

    node: str
    code: str
    expires_at: dt.datetime


class InviteRefused(NotAllowed):
    """The code is unknown, used or expired; which of them is not told."""

    code = "invite-refused"
    title = "The invite cannot be used"


def create_invite(actor: Actor, node_name: str, valid_for: dt.timedelta) -> NewInvite:
    """Make a code with which one agent can register as this node, once. Who: operators.

    Raises NotFound.
    """
    # 120 random bits in letters and digits: it is pasted into a terminal.
    code = base64.b32encode(secrets.token_bytes(15)).decode().lower()
    expires_at = utc_now() + valid_for
    with write() as session:
        node = session.scalar(
            select(Node).where(Node.name == node_name, Node.removed_at.is_(None))
        )
        if node is None:
            raise NotFound(f"There is no node {node_name}.")
        session.add(
            Invite(
                node_id=node.id,
                code_hash=_hash(code),
                created_by=actor.name,
                expires_at=expires_at,
            )
        )
        record(
            session,
            actor,
            "invite.create",
            "node",
            node.name,
            after={"expires_at": expires_at.isoformat()},
        )
    return NewInvite(node=node_name, code=code, expires_at=expires_at)


def consume_invite(session: Session, code: str) -> Node:
    """Use the code up, in the caller's transaction, and return its node, locked.

    Raises InviteRefused for a code that is unknown, used or expired, or whose node was
    removed. One UPDATE both checks and marks: of two agents with one code, one gets in.
    """
    now = utc_now()
    node_id = session.scalar(
        update(Invite)
        .where(
            Invite.code_hash == _hash(code.strip().lower()),
            Invite.used_at.is_(None),
            Invite.expires_at > now,
        )
        .values(used_at=now)
        .returning(Invite.node_id)
    )
    node = None if node_id is None else session.get(Node, node_id, with_for_update=True)
    if node is None or node.removed_at is not None:
        raise InviteRefused("The code is unknown, used or expired; ask for a new one.")
    return node


def forget_old_invites() -> int:
    """Delete invites that ended long ago; the audit trail keeps them. For the worker."""
    with write() as session:
        gone = session.execute(
            delete(Invite).where(Invite.expires_at < utc_now() - KEEP_OLD).returning(Invite.id)
        ).all()
        return len(gone)


def _hash(code: str) -> str:
    # The code has 120 random bits: nobody can try them out, so it needs no salt.
    return hashlib.sha256(code.encode()).hexdigest()
