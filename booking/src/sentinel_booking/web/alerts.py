"""`/alerts`: what fires and what fired."""

from __future__ import annotations

from flask import Blueprint, render_template, request
from flask.typing import ResponseReturnValue

from ..auth import require_role
from ..models import Role
from ..services.alerts import AlertState, list_alerts
from .runbooks import runbook_link

bp = Blueprint("web_alerts", __name__, url_prefix="/alerts")

# More than fire at once in a lab that still works; the history has pages.
MAX_FIRING = 200
PAGE = 30


@bp.get("")
@require_role(Role.READONLY)
def show_alerts() -> ResponseReturnValue:
    """List the alerts that fire, and the history behind them. R."""
    node = request.args.get("node") or None
    cursor = request.args.get("cursor") or None
    firing = list_alerts(node=node, state=AlertState.FIRING, limit=MAX_FIRING)
    return render_template(
        "alerts.html",
        node=node,
        cursor=cursor,
        firing=firing.items,
        history=list_alerts(node=node, state=AlertState.RESOLVED, cursor=cursor, limit=PAGE),
        runbook_link=runbook_link,
    )
