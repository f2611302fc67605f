"""Links out of the pages whose addresses come from outside. Makes none of its own."""

from __future__ import annotations

from urllib.parse import urlsplit


def web_link(address: object) -> str | None:
    """Return the address when it is an http(s) one, else None.

    An alert's annotations are whatever was posted: "javascript:…" must not become a link.
    """
    if not isinstance(address, str):
        return None
    try:
        parts = urlsplit(address)
    except ValueError:
        return None
    return address if parts.scheme in ("http", "https") and parts.netloc else None
