"""`/api/audit`: who changed what, for admins. Read only."""

from __future__ import annotations

from typing import Any

from apiflask import APIBlueprint
from pydantic import Field

from ..auth import require_role
from ..models import Role
from ..services.audit import list_entries
from ..services.paging import decode_id_cursor, encode_cursor
from .schemas import Out, OutTime, Page

bp = APIBlueprint("audit", __name__, url_prefix="/api/audit")


class AuditQuery(Page):
    """All conditions must match."""

    actor: str | None = Field(default=None, max_length=63)
    object_type: str | None = Field(default=None, max_length=32)
    object_id: str | None = Field(default=None, max_length=64)


class AuditEntryOut(Out):
    """One change. `before` and `after` hold what differs, in the fields of that object."""

    id: int
    at: OutTime
    actor_kind: str
    actor: str
    ip: str
    action: str
    object_type: str
    object_id: str
    before: dict[str, Any] | None  # Any: each object type has its own fields
    after: dict[str, Any] | None


class AuditOut(Out):
    """A page of entries, the newest first; `next_cursor` is null on the last page."""

    items: list[AuditEntryOut]
    next_cursor: str | None


@bp.get("")
@require_role(Role.ADMIN)
@bp.input(AuditQuery, location="query")
@bp.output(AuditOut)
def list_audit(query_data: AuditQuery) -> dict[str, object]:
    """List the audit trail, the newest first. Admin."""
    entries = list_entries(
        actor=query_data.actor,
        object_type=query_data.object_type,
        object_id=query_data.object_id,
        before_id=decode_id_cursor(query_data.cursor) if query_data.cursor else None,
        limit=query_data.limit,
    )
    is_last = len(entries) < query_data.limit
    return {"items": entries, "next_cursor": None if is_last else encode_cursor(entries[-1].id)}
