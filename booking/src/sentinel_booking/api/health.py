"""`/healthz` and `/readyz`, for whatever watches the process."""

from __future__ import annotations

from apiflask import APIBlueprint
from flask import Response

from ..auth import public
from ..services.readiness import check_database

bp = APIBlueprint("health", __name__)


@bp.get("/healthz")
@public
@bp.doc(hide=True)
def healthz() -> Response:
    """Say that the process answers. Anybody."""
    return Response("ok\n", mimetype="text/plain")


@bp.get("/readyz")
@public
@bp.doc(hide=True)
def readyz() -> Response:
    """Say that the database answers and has the tables of this version. Anybody."""
    check_database()
    return Response("ok\n", mimetype="text/plain")
