"""The demo's HTTP calls to booking. It uses the public interface only."""

from __future__ import annotations

from typing import Any

import requests


class Refused(Exception):
    """Booking answered with a problem document."""

    def __init__(self, answer: requests.Response) -> None:
        super().__init__(f"{answer.request.method} {answer.url}: {answer.text}")
        self.status = answer.status_code


class Client:
    """Calls with one bearer token."""

    def __init__(self, url: str, token: str = "") -> None:
        self._url = url
        self._http = requests.Session()
        if token:
            self._http.headers["Authorization"] = f"Bearer {token}"

    @classmethod
    def sign_in(cls, url: str, name: str, password: str) -> Client:
        """Return a client with that person's token. Raises Refused."""
        answer = cls(url).call("POST", "/api/auth/login", {"name": name, "password": password})
        return cls(url, str(answer["access_token"]))

    def call(
        self, method: str, path: str, body: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Send a request; return the answer's JSON. Raises Refused for any 4xx or 5xx."""
        answer = self._http.request(method, self._url + path, json=body, timeout=20)
        if answer.status_code >= 400:
            raise Refused(answer)
        content: dict[str, Any] = answer.json() if answer.content else {}
        return content

    def exists(self, path: str) -> bool:
        """Tell whether GET `path` finds something."""
        try:
            self.call("GET", path)
        except Refused as refusal:
            if refusal.status == 404:
                return False
            raise
        return True
