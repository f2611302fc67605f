"""How a time is written for others. It reads no clock."""

from __future__ import annotations

import datetime as dt


def rfc3339(time: dt.datetime) -> str:
    """Write an aware time in UTC with Z, to the microsecond where it has any."""
    return time.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")
