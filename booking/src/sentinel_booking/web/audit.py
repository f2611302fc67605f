"""`/admin/audit`: who changed what, and when."""

from __future__ import annotations

from flask import Blueprint, render_template, request
from flask.typing import ResponseReturnValue

from ..auth import require_role
from ..models import AuditEntry, Role
from ..services.audit import list_entries

bp = Blueprint("web_audit", __name__, url_prefix="/admin/audit")

PAGE = 50
# The databases' integers; a greater number names no entry.
_MAX_ID = 2**31 - 1


@bp.get("")
@require_role(Role.ADMIN)
def show_audit() -> ResponseReturnValue:
    """List the audit trail, the newest first. A."""
    before = request.args.get("before", type=int)
    if before is not None and not 0 < before <= _MAX_ID:
        before = None
    filters = {
        name: request.args.get(name, "").strip() or None
        for name in ("actor", "object_type", "object_id")
    }
    entries = list_entries(**filters, before_id=before, limit=PAGE + 1)
    return render_template(
        "audit.html",
        entries=[(entry, changes(entry)) for entry in entries[:PAGE]],
        filters=filters,
        before=before,
        next_before=entries[PAGE - 1].id if len(entries) > PAGE else None,
    )


def changes(entry: AuditEntry) -> list[tuple[str, object, object]]:
    """Return what differs, as (field, before, after); None where there was or is nothing."""
    before, after = entry.before or {}, entry.after or {}
    fields = [*before, *(name for name in after if name not in before)]
    return [
        (name, before.get(name), after.get(name))
        for name in fields
        if before.get(name) != after.get(name)
    ]
