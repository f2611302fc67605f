"""Somebody at the pages without a browser: follows no script, sends every form's fields."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html.parser import HTMLParser

from apiflask import APIFlask
from werkzeug.datastructures import MultiDict
from werkzeug.test import TestResponse

from tests.booking.people import PASSWORD

Fields = Mapping[str, str | list[str]]


class Visitor:
    """A browser without scripts; `language` is what it accepts."""

    def __init__(self, app: APIFlask, language: str = "en") -> None:
        self._client = app.test_client()
        self._headers = {"Accept-Language": language}
        self.csrf_token = ""

    def sign_in(self, name: str, password: str = PASSWORD, then: str = "/") -> TestResponse:
        """Sign in by the form; keeps the CSRF value of the page that follows."""
        answer = self._client.post(
            "/login",
            data={"name": name, "password": password, "next": then},
            headers=self._headers,
        )
        # A page that everybody may see, also who must change the password first.
        found = re.search(r'name="csrf_token" value="(\w+)"', self.get("/me/password").text)
        self.csrf_token = found.group(1) if found else ""
        return answer

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> TestResponse:
        """Open a page; redirects are not followed."""
        return self._client.get(path, headers={**self._headers, **(headers or {})})

    def post(
        self, path: str, fields: Fields | None = None, *, with_csrf: bool = True
    ) -> TestResponse:
        """Send a form; redirects are not followed."""
        data: MultiDict[str, str] = MultiDict()
        for name, value in (fields or {}).items():
            for one in [value] if isinstance(value, str) else value:
                data.add(name, one)
        if with_csrf:
            data["csrf_token"] = self.csrf_token
        return self._client.post(path, data=data, headers=self._headers)

    def cookie(self, name: str) -> str | None:
        """Return a cookie's value."""
        found = self._client.get_cookie(name)
        return None if found is None else found.value


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def tags(html: str) -> list[tuple[str, dict[str, str | None]]]:
    """Return the page's tags with their attributes, in order."""
    parser = _Tags()
    parser.feed(html)
    return parser.found


def visible_text(html: str) -> str:
    """Return the page's text without tags, white space folded."""
    texts: list[str] = []

    class Text(HTMLParser):
        def handle_data(self, data: str) -> None:
            texts.append(data)

    Text().feed(html)
    return " ".join(" ".join(texts).split())
