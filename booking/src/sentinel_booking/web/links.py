"""What the addresses are that come from outside the pages. Makes none of its own."""

from __future__ import annotations

import ipaddress
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


def is_loopback(address: str) -> bool:
    """Whether the http(s) address leads to the machine itself, as the agent judges it too."""
    host = urlsplit(address).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_plain_http(address: str) -> bool:
    """Whether what is sent there can be read on its way over the network."""
    return urlsplit(address).scheme == "http" and not is_loopback(address)
