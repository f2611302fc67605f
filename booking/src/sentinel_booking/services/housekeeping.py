"""Deletes what nobody will ask for again. History and audit trail are never touched."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping

from sqlalchemy import delete

from ..models import IdempotencyKey, utc_now, write
from .invites import forget_old_invites
from .sign_ins import forget_old_sign_ins

# How long a repeated POST with the same Idempotency-Key gets the first one's answer.
IDEMPOTENCY_LIFETIME = dt.timedelta(hours=24)


def forget_old_idempotency_keys() -> int:
    """Delete the answers that are kept for repeated POSTs, once they are old."""
    with write() as session:
        gone = session.execute(
            delete(IdempotencyKey)
            .where(IdempotencyKey.created_at < utc_now() - IDEMPOTENCY_LIFETIME)
            .returning(IdempotencyKey.id)
        ).all()
        return len(gone)


# Each returns how many rows it deleted.
STEPS: Mapping[str, Callable[[], int]] = {
    "sign_ins": forget_old_sign_ins,
    "idempotency_keys": forget_old_idempotency_keys,
    "invites": forget_old_invites,
}
