"""A person's or a program's view of booking's JSON interface. Asserts nothing by itself."""

from __future__ import annotations

from typing import Any

import requests


class Api:
    """A signed-in client; each call returns the raw answer."""

    def __init__(self, url: str, name: str, password: str) -> None:
        self.url = url
        self.name = name
        self._session = requests.Session()
        answer = self.post("/api/auth/login", {"name": name, "password": password})
        answer.raise_for_status()
        token = answer.json()["access_token"]
        self._session.headers["Authorization"] = f"Bearer {token}"

    def get(self, path: str, **parameters: str) -> requests.Response:
        """GET with query parameters."""
        return self._session.get(self.url + path, params=parameters, timeout=10)

    def post(
        self, path: str, body: dict[str, Any] | None = None, **headers: str
    ) -> requests.Response:
        """POST a JSON body."""
        return self._session.post(self.url + path, json=body, headers=headers, timeout=10)

    def patch(self, path: str, body: dict[str, Any], **headers: str) -> requests.Response:
        """PATCH with a JSON body."""
        return self._session.patch(self.url + path, json=body, headers=headers, timeout=10)
