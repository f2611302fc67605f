"""The audit trail: who acts, and one entry for each change. It decides nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from ..models import AuditEntry, Role, db


@dataclass(frozen=True)
class Actor:
    """Who asks. `kind` is "user", "agent" or "system"; `user_id` and `role` only for a user."""

    kind: str
    name: str
    ip: str = ""
    user_id: int | None = None
    role: Role | None = None

    @property
    def is_admin(self) -> bool:
        """May do everything."""
        return self.role == Role.ADMIN

    @property
    def is_operator(self) -> bool:
        """May act for others and change nodes."""
        return self.role in (Role.ADMIN, Role.OPERATOR)


SYSTEM = Actor(kind="system", name="system")


def record(
    session: Session,
    actor: Actor,
    action: str,
    object_type: str,
    object_id: object,
    *,
    before: Mapping[str, object] | None = None,
    after: Mapping[str, object] | None = None,
) -> None:
    """Add one entry to the caller's transaction; values must be public and JSON."""
    session.add(
        AuditEntry(
            actor_kind=actor.kind,
            actor=actor.name,
            ip=actor.ip,
            action=action,
            object_type=object_type,
            object_id=str(object_id),
            before=None if before is None else dict(before),
            after=None if after is None else dict(after),
        )
    )


def list_entries(
    *,
    actor: str | None = None,
    object_type: str | None = None,
    object_id: str | None = None,
    before_id: int | None = None,
    limit: int = 50,
) -> Sequence[AuditEntry]:
    """Return up to `limit` matching entries, the newest first, older than `before_id`."""
    query = select(AuditEntry).order_by(AuditEntry.id.desc()).limit(limit)
    if actor is not None:
        query = query.where(AuditEntry.actor == actor)
    if object_type is not None:
        query = query.where(AuditEntry.object_type == object_type)
    if object_id is not None:
        query = query.where(AuditEntry.object_id == object_id)
    if before_id is not None:
        query = query.where(AuditEntry.id < before_id)
    return db.session.scalars(query).all()
