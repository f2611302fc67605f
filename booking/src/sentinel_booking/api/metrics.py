"""`/metrics`: booking's own series."""

from __future__ import annotations

from apiflask import APIBlueprint
from flask import Response, request

from ..auth import require_bearer
from ..metrics import expose

bp = APIBlueprint("metrics", __name__)


@bp.get("/metrics")
@require_bearer("scrape")
@bp.doc(hide=True)
def metrics() -> Response:
    """Give booking's series; docs/metrics.md lists them. Prometheus, by the scrape token."""
    body, content_type = expose(request.headers.get("Accept", ""))
    return Response(body, content_type=content_type)
