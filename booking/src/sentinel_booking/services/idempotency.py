"""The answers kept for a repeated POST, in the transaction of the first one.

When they are forgotten is housekeeping's matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from ..errors import FieldProblem, InvalidInput
from ..models import IdempotencyKey

MAX_KEY_CHARS = 255


@dataclass(frozen=True)
class Once:
    """A caller's Idempotency-Key, and the SHA-256 of the body that came with it."""

    user_id: int
    key: str
    body_hash: str

    def problems(self) -> list[FieldProblem]:
        """Return what is wrong with the key: visible ASCII is what a header can carry."""
        if not 1 <= len(self.key) <= MAX_KEY_CHARS:
            return [FieldProblem("Idempotency-Key", f"1 to {MAX_KEY_CHARS} characters")]
        if not all(" " <= char <= "~" for char in self.key):
            return [FieldProblem("Idempotency-Key", "printable ASCII characters only")]
        return []


def find_answer(session: Session, once: Once) -> dict[str, Any] | None:  # Any: JSON
    """Return the answer to the first request with this key; None when this is the first.

    Call it behind the lock that the first one took. Raises InvalidInput when the first
    one's body was another.
    """
    row = session.scalar(
        select(IdempotencyKey).where(
            IdempotencyKey.user_id == once.user_id, IdempotencyKey.key == once.key
        )
    )
    if row is None:
        return None
    if row.body_hash != once.body_hash:
        raise InvalidInput.field("Idempotency-Key", "was used before with another body")
    return row.response


def keep_answer(session: Session, once: Once, response: dict[str, Any]) -> None:
    """Keep the answer in the caller's transaction, for whoever asks the same again."""
    session.add(
        IdempotencyKey(
            user_id=once.user_id, key=once.key, body_hash=once.body_hash, response=response
        )
    )
