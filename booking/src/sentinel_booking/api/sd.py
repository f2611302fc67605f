"""`/sd/<job>`: what Prometheus scrapes, in the form of its http_sd."""

from __future__ import annotations

from apiflask import APIBlueprint
from flask import Response, jsonify

from ..auth import require_bearer
from ..services.targets import list_targets

bp = APIBlueprint("sd", __name__, url_prefix="/sd")


@bp.get("/<job>")
@require_bearer("scrape")
@bp.doc(
    responses={
        200: "A list of {targets, labels}; a job that no node has is empty",
        404: "There can be no job of that name",
        503: "The database fails; Prometheus keeps the targets it has",
    }
)
def targets(job: str) -> Response:
    """List the targets of a job. Prometheus, by the scrape token."""
    return jsonify(
        [
            {"targets": list(group.targets), "labels": group.labels}
            for group in list_targets(job)
        ]
    )
