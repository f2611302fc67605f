"""Cursors of keyset paging: opaque to callers, the last row's key to us."""

from __future__ import annotations

import base64
import binascii

from ..errors import InvalidInput
from .schemas import MAX_ID_DIGITS


def encode_cursor(key: object) -> str:
    """Make the cursor for the page after the row with this key."""
    return base64.urlsafe_b64encode(str(key).encode()).decode().rstrip("=")


def decode_cursor(cursor: str) -> str:
    """Return the key in a cursor. Raises InvalidInput for what is not one of ours."""
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        key = base64.b64decode(padded, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise InvalidInput.field("cursor", "not one that this list gave") from error
    if "\x00" in key:
        raise InvalidInput.field("cursor", "not one that this list gave")
    return key


def decode_id_cursor(cursor: str | None) -> int | None:
    """Return the row id in a cursor; None without one. Raises InvalidInput."""
    if cursor is None:
        return None
    key = decode_cursor(cursor)
    # isascii, because isdigit takes the digits of other scripts too.
    if not (key.isascii() and key.isdigit() and len(key) <= MAX_ID_DIGITS):
        raise InvalidInput.field("cursor", "not one that this list gave")
    return int(key)
