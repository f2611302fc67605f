"""The services' refusals in the page's language. It words them; it decides none."""

from __future__ import annotations

import re
from collections.abc import Iterable

from .texts import _

_TEXTS: tuple[str, ...] = ()


def say(text: str) -> str:
    """Return a service's text in the page's language; one that is not known as it is."""
    for message, pattern in _PATTERNS:
        found = pattern.fullmatch(text)
        if found:
            return _(message, **found.groupdict())
    return text


def title_of(problem: object) -> str:
    """Return the heading of an error page."""
    return say(getattr(problem, "title", ""))


def _pattern(message: str) -> re.Pattern[str]:
    """Return what matches the message with anything in its places."""
    parts = re.split(r"%\((\w+)\)s", message)
    parts[::2] = [re.escape(part) for part in parts[::2]]
    parts[1::2] = [f"(?P<{name}>.+)" for name in parts[1::2]]
    return re.compile("".join(parts), re.DOTALL)


def _compiled(messages: Iterable[str]) -> list[tuple[str, re.Pattern[str]]]:
    return [(message, _pattern(message)) for message in messages]


_PATTERNS = _compiled(_TEXTS)
