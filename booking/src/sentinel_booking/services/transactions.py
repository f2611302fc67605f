"""Runs a booking's transaction, and again when the database asked for it. Knows no rule."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from ..errors import Conflict, Unavailable
from ..models import write
from ..models.guards import CONSTRAINT, OVERLAP_MESSAGE

log = logging.getLogger(__name__)

Result = TypeVar("Result")

_ATTEMPTS = 4
# PostgreSQL's appendix A: serialization_failure, deadlock_detected. In both nothing was
# done, so that doing it again is safe.
_TRANSIENT = {"40001", "40P01"}
# lock_not_available: it has waited for lock_timeout already.
_BUSY = "55P03"
# Two requests with one Idempotency-Key for two nodes: the second attempt sees the first's.
_REPEATED_KEY = "uq_idempotency_keys_user_id_key"


def run_write(use_case: Callable[[Session], Result]) -> Result:
    """Run `use_case` in one write transaction; it may be run several times.

    Raises Conflict when the net under the bookings refused it each time, Unavailable when
    the database was too busy each time; whatever else `use_case` raises goes through.
    """
    overlapped = False
    for attempt in range(_ATTEMPTS):
        if attempt:
            # Jitter, so that those who met do not meet again.
            time.sleep(random.uniform(0.01, 0.05) * attempt)  # noqa: S311  no secret
        try:
            with write() as session:
                return use_case(session)
        except DBAPIError as error:
            if _is_busy(error):
                overlapped = False
                break
            overlapped = _is_overlap(error)
            if not overlapped and not _is_transient(error):
                raise
            log.warning(
                "write attempt failed attempt=%d overlap=%s error=%s",
                attempt + 1,
                overlapped,
                type(error.orig).__name__,
            )
    if overlapped:
        raise Conflict("Somebody else has booked it at this moment.")
    raise Unavailable("The database is too busy; nothing was changed. Try again soon.")


def _is_overlap(error: DBAPIError) -> bool:
    return _constraint(error) == CONSTRAINT or OVERLAP_MESSAGE in str(error.orig)


def _is_transient(error: DBAPIError) -> bool:
    return (
        getattr(error.orig, "sqlstate", None) in _TRANSIENT
        or _constraint(error) == _REPEATED_KEY
    )


def _is_busy(error: DBAPIError) -> bool:
    """Tell whether somebody else has kept the lock for longer than models.database waits."""
    return getattr(error.orig, "sqlstate", None) == _BUSY or "database is locked" in str(
        error.orig
    )


def _constraint(error: DBAPIError) -> str | None:
    # psycopg says which constraint it was; sqlite3 has no such attribute.
    name: str | None = getattr(getattr(error.orig, "diag", None), "constraint_name", None)
    return name
