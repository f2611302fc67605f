"""Times on the pages: written for app.js to show in the browser's zone, and read from forms."""

from __future__ import annotations

import datetime as dt
from functools import lru_cache

from markupsafe import Markup

from ..errors import InvalidInput
from .texts import _


def rfc3339(time: dt.datetime) -> str:
    """Return the time in UTC with `Z`, to the second."""
    return time.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# The cards of one booking all show the same two times.
@lru_cache(maxsize=4096)
def when(time: dt.datetime | None, style: str = "smart") -> Markup:
    """Return a time element; without scripts it says the time in UTC.

    `style` is "smart" (short, by how near it is), "full", "clock" (hours and minutes) or
    "ago" (how long since or until). None gives a dash.
    """
    if time is None:
        return Markup("–")
    utc = time.astimezone(dt.UTC)
    text = utc.strftime("%H:%M UTC" if style == "clock" else "%Y-%m-%d %H:%M UTC")
    return Markup('<time datetime="{}" data-when="{}">{}</time>').format(
        rfc3339(time), style, text
    )


def form_time(time: dt.datetime | None) -> str:
    """Return the value of a datetime-local input; app.js turns it into the local zone."""
    return "" if time is None else time.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M")


def read_form_time(field: str, text: str) -> dt.datetime | None:
    """Return the time that a form's field holds; None when it is empty.

    app.js sends an offset. Without scripts there is none, and the form says that it takes
    UTC. Raises InvalidInput naming the field.
    """
    text = text.strip()
    if not text:
        return None
    try:
        time = dt.datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput.field(field, _("This is not a time.")) from None
    if time.tzinfo is None:
        time = time.replace(tzinfo=dt.UTC)
    return time.astimezone(dt.UTC)


def span(length: dt.timedelta) -> str:
    """Return a length in words, from minutes up to days, as "2 d 3 h" or "45 min"."""
    minutes = max(0, round(length.total_seconds() / 60))
    days, rest = divmod(minutes, 24 * 60)
    hours, minutes = divmod(rest, 60)
    parts = []
    if days:
        parts.append(_("%(count)s d", count=days))
    if hours:
        parts.append(_("%(count)s h", count=hours))
    if (minutes and not days) or not parts:
        parts.append(_("%(count)s min", count=minutes))
    return " ".join(parts)
