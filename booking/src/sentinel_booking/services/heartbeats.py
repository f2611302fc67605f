"""What agents say of their nodes, several times a minute. It answers no questions about it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from ..domain.boots import boots_from_json, boots_to_json, hear_boot
from ..errors import NotSignedIn
from ..models import Node, utc_now, write
from .audit import Actor, record

# A version beyond this is a damaged agent's; raising ours to it would use up the numbers.
MAX_POLICY_VERSION = 2**30


@dataclass(frozen=True)
class Heartbeat:
    """What an agent says of itself; `sent_at` is by the node's own clock.

    `policy_version` None: it holds no policy yet. `sessions` counts SSH sessions by user.
    `lock` is "locked", "open" or "partial", None where the agent does not say. `unclean`:
    former holders whose processes outlived the limit of a handover, None likewise.
    """

    agent_version: str
    sent_at: dt.datetime
    boot_id: str
    mode: str
    policy_version: int | None
    sessions: Mapping[str, int]
    problems: Sequence[str]
    lock: str | None = None
    unclean: Sequence[str] | None = None


def accept_heartbeat(actor: Actor, node_id: int, heartbeat: Heartbeat) -> dt.datetime:
    """Store what the agent says of itself and return the server's time.

    No audit entry, save for what it brings to light: a copied disk, and a policy that is newer
    than ours. Who: the node's agent. Raises NotSignedIn when the node was removed meanwhile.
    """
    with write() as session:
        # Locked: the heartbeats of two machines with one token arrive at the same time.
        node = session.scalar(
            select(Node)
            .where(Node.id == node_id, Node.removed_at.is_(None))
            .with_for_update(of=Node)
        )
        if node is None:
            raise NotSignedIn("The node was removed.")
        now = utc_now()
        node.heartbeat_at = now
        node.agent_version = heartbeat.agent_version
        node.agent_report = {
            "mode": heartbeat.mode,
            "policy_version": heartbeat.policy_version,
            "boot_id": heartbeat.boot_id,
            "clock_skew_s": round((now - heartbeat.sent_at).total_seconds(), 3),
            "sessions": dict(heartbeat.sessions),
            "problems": list(heartbeat.problems),
            "lock": heartbeat.lock,
            "unclean": None if heartbeat.unclean is None else sorted(set(heartbeat.unclean)),
        }
        _note_boot(session, actor, node, heartbeat, now)
        _raise_policy(session, actor, node, heartbeat.policy_version or 0)
    return now


def _note_boot(
    session: Session, actor: Actor, node: Node, heartbeat: Heartbeat, now: dt.datetime
) -> None:
    before = boots_from_json(node.boots)
    boots, is_back = hear_boot(before, heartbeat.boot_id, heartbeat.sent_at, now)
    if boots != before:
        node.boots = boots_to_json(boots)
    # Once: the two of them take turns from now on until the node registers anew.
    if is_back and node.cloned_at is None:
        node.cloned_at = now
        record(
            session,
            actor,
            "node.token_cloned",
            "node",
            node.name,
            after={"boot_id": heartbeat.boot_id, "other_boot_id": before[-1].boot_id},
        )


def _raise_policy(session: Session, actor: Actor, node: Node, held: int) -> None:
    """Go beyond the version that the agent holds: it takes none that is older.

    It holds a newer one than ours after the database was restored from a backup.
    """
    if node.policy_version >= held or held > MAX_POLICY_VERSION:
        return
    before = node.policy_version
    node.policy_version = held + 1
    record(
        session,
        actor,
        "node.raise_policy",
        "node",
        node.name,
        before={"policy_version": before},
        after={"policy_version": held + 1},
    )
