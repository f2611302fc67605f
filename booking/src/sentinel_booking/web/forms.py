"""Refused forms: what the services object to, sorted by field for the page. Decides nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..errors import BookingError
from .reasons import say
from .texts import _


def by_field(error: BookingError, fields: Iterable[str]) -> dict[str, list[str]]:
    """Return the problems of the form's own `fields`, as texts to show beside them.

    "tags.0" counts as "tags".
    """
    known = set(fields)
    found: dict[str, list[str]] = {}
    for problem in error.fields:
        name = problem.field.partition(".")[0]
        if name in known:
            found.setdefault(name, []).append(_sentence(say(problem.reason)))
    return found


def whole_form(error: BookingError, errors: Mapping[str, object]) -> str:
    """Return what to show above the form: the refusal, unless the fields say it all."""
    covered = {problem.field.partition(".")[0] for problem in error.fields} <= set(errors)
    return "" if error.fields and covered else say(error.detail)


def _sentence(text: str) -> str:
    """Return a reason, which programs get as "lies in the past", as people write it."""
    # A first word with digits is a name, which stays as it is.
    if text.partition(" ")[0].replace("-", "").isalpha():
        text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "?", "。", "？")) else text + _(".")
