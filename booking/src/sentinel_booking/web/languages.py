"""The pages' languages: which there are and which one a request gets. Translates nothing."""

from __future__ import annotations

from pathlib import Path

from flask import Flask, Response, request
from flask_babel import Babel, get_locale  # type: ignore[import-untyped]  # has no types

from ..auth import current_sign_in
from ..config import current_config

# By what they call themselves. Templates' own texts are English.
LANGUAGES = {"en": "English", "zh": "中文"}
# How browsers, speech and hyphenation know them.
HTML_LANG = {"en": "en-GB", "zh": "zh-CN"}
COOKIE = "sentinel_locale"

_TRANSLATIONS = Path(__file__).parent / "translations"


def init_languages(app: Flask) -> None:
    """Translate every page that the application renders."""
    Babel(
        app,
        default_translation_directories=str(_TRANSLATIONS),
        locale_selector=select_language,
    )


def select_language() -> str:
    """Return the signed-in person's choice, else this browser's, else what it accepts."""
    signed_in = current_sign_in()
    for choice in (signed_in.locale if signed_in else None, request.cookies.get(COOKIE)):
        if choice in LANGUAGES:
            return choice
    return request.accept_languages.best_match(list(LANGUAGES)) or "en"


def current_language() -> str:
    """Return the language of the page that is being rendered."""
    locale = get_locale()
    return "en" if locale is None else str(locale)[:2]


def remember_language(response: Response, language: str) -> None:
    """Keep the choice in this browser, for the pages before signing in."""
    response.set_cookie(
        COOKIE,
        language,
        max_age=365 * 86400,
        secure=current_config().public_url.startswith("https:"),
        httponly=True,
        samesite="Lax",
    )
