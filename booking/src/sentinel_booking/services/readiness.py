"""Whether the database can be used. It changes nothing."""

from __future__ import annotations

from sqlalchemy import text

from ..models import db


def check_database() -> None:
    """Raise OperationalError or Unavailable unless the database can serve."""
    db.session.execute(text("SELECT 1"))
