"""Keyset cursors: where the next page of a list begins. It runs no query."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
from dataclasses import dataclass
from typing import Generic, TypeVar

from ..errors import InvalidInput

Item = TypeVar("Item")

# PostgreSQL's integer, which our ids are.
_MAX_ID = 2**31 - 1


@dataclass(frozen=True)
class Slice(Generic[Item]):
    """One page; `next_cursor` None: the last one."""

    items: list[Item]
    next_cursor: str | None


def encode_cursor(time: dt.datetime, row_id: int) -> str:
    """Return the cursor that stands behind the row with this time and id."""
    text = f"{time.astimezone(dt.UTC).isoformat()}|{row_id}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_cursor(cursor: str) -> tuple[dt.datetime, int]:
    """Return the time and id of the row that the cursor stands behind. Raises InvalidInput."""
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        time_text, _, id_text = (
            base64.b64decode(padded, altchars=b"-_", validate=True).decode().partition("|")
        )
        time, row_id = dt.datetime.fromisoformat(time_text), int(id_text)
    except (ValueError, binascii.Error) as error:
        raise InvalidInput.field("cursor", "not one that was given out") from error
    if time.tzinfo is None or not 0 <= row_id <= _MAX_ID:
        raise InvalidInput.field("cursor", "not one that was given out")
    return time, row_id
