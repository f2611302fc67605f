"""`/`: who has what, at a glance. It changes nothing."""

from __future__ import annotations

from flask import Blueprint, render_template, request
from flask.typing import ResponseReturnValue

from ..auth import current_actor, require_role
from ..config import current_config
from ..models import Role
from ..services.matrix import read_matrix

bp = Blueprint("web_matrix", __name__)


@bp.get("/")
@require_role(Role.READONLY)
def show_matrix() -> ResponseReturnValue:
    """Show the matrix; to htmx only its rows, or 204 when they are still the same. R."""
    matrix = read_matrix(
        current_actor().name,
        current_config().offline_after_s,
        cluster=request.args.get("cluster") or None,
        tag=request.args.get("tag") or None,
        only_free=request.args.get("free") == "1",
    )
    state = matrix.fingerprint
    if "HX-Request" not in request.headers:
        return render_template("matrix.html", matrix=matrix, state=state)
    # The page polls: what has not changed is neither sent nor swapped, so nothing flickers.
    if request.args.get("state") == state:
        return "", 204
    return render_template("_matrix_live.html", matrix=matrix, state=state)
