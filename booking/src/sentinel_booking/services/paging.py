"""Cursors of keyset paging: opaque to callers, the last row's key to us. It runs no query."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
from dataclasses import dataclass
from typing import Generic, TypeVar

from ..errors import InvalidInput

Item = TypeVar("Item")

# PostgreSQL's integer, which our ids are, has ten digits.
_MAX_ID_DIGITS = 9


@dataclass(frozen=True)
class Slice(Generic[Item]):
    """One page; `next_cursor` None: the last one."""

    items: list[Item]
    next_cursor: str | None


def encode_cursor(key: object) -> str:
    """Return the cursor that stands behind the row with this key."""
    return base64.urlsafe_b64encode(str(key).encode()).decode().rstrip("=")


def decode_cursor(cursor: str) -> str:
    """Return the key in a cursor. Raises InvalidInput for what is not one of ours."""
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        key = base64.b64decode(padded, altchars=b"-_", validate=True).decode()
    except (ValueError, binascii.Error) as error:
        raise _not_ours() from error
    if "\x00" in key:
        raise _not_ours()
    return key


def decode_id_cursor(cursor: str) -> int:
    """Return the row id in a cursor. Raises InvalidInput."""
    return _read_id(decode_cursor(cursor))


def encode_time_cursor(time: dt.datetime, row_id: int) -> str:
    """Return the cursor that stands behind the row with this time and id."""
    return encode_cursor(f"{time.astimezone(dt.UTC).isoformat()}|{row_id}")


def decode_time_cursor(cursor: str) -> tuple[dt.datetime, int]:
    """Return the time and id of the row that the cursor stands behind. Raises InvalidInput."""
    time_text, _, id_text = decode_cursor(cursor).partition("|")
    try:
        time = dt.datetime.fromisoformat(time_text)
    except ValueError as error:
        raise _not_ours() from error
    if time.tzinfo is None:
        raise _not_ours()
    return time, _read_id(id_text)


def _read_id(text: str) -> int:
    # isascii, because isdigit takes the digits of other scripts too.
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_ID_DIGITS):
        raise _not_ours()
    return int(text)


def _not_ours() -> InvalidInput:
    return InvalidInput.field("cursor", "not one that was given out")
