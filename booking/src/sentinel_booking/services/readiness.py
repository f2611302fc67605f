"""Whether the database can be used by this version. It changes nothing."""

from __future__ import annotations

from ..errors import Unavailable
from ..models import db, schema_problems


def check_database() -> None:
    """Raise OperationalError when the database does not answer, Unavailable when its tables
    are not the ones that this version needs."""
    problems = schema_problems(db.session.connection())
    if problems:
        raise Unavailable("; ".join(problems))
