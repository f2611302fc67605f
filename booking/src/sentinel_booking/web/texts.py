"""gettext for the pages' Python code, typed. It chooses no language: languages.py does."""

from __future__ import annotations

from flask_babel import gettext, lazy_gettext  # type: ignore[import-untyped]  # has no types


def _(message: str, **values: object) -> str:
    """Return the message in the request's language, with its `%(name)s` filled in."""
    return str(gettext(message, **values))


class LazyText:
    """A text of a table that is built at import; str() gives it in the request's language."""

    def __init__(self, message: str) -> None:
        self._text = lazy_gettext(message)

    def __str__(self) -> str:
        return str(self._text)


def _l(message: str) -> LazyText:
    """Mark a text for translation and translate it when it is shown."""
    return LazyText(message)


def N_(message: str) -> str:  # noqa: N802  gettext's customary name
    """Mark a text for translation without translating it."""
    return message
