"""One HTTP answer, and its head as it is sent. Decides nothing that it says."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus

from . import __version__

SERVER = f"sentinel-exporter/{__version__}"

_PLAIN = "text/plain; charset=utf-8"


@dataclass(frozen=True)
class Answer:
    """What is said to a client; `headers` are those beside the ones of every answer."""

    status: int
    body: bytes
    content_type: str = _PLAIN
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def text(cls, status: int, text: str) -> Answer:
        """Plain text, with a line's end."""
        return cls(status, f"{text}\n".encode())

    @classmethod
    def busy(cls, reason: str) -> Answer:
        """For whom there is no room now: Prometheus comes again by itself, others may."""
        return cls(503, f"{reason}\n".encode(), headers={"Retry-After": "5"})

    def head(self) -> bytes:
        """Return what is sent before the body (HTTP/1.0: the connection's end ends that)."""
        fields = {
            "Server": SERVER,
            "Date": _format_date(int(time.time())),
            "Content-Type": self.content_type,
            "Content-Length": str(len(self.body)),
            **self.headers,
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        phrase = HTTPStatus(self.status).phrase
        return f"HTTP/1.0 {self.status} {phrase}\r\n{lines}\r\n".encode("latin-1")


# Of hundreds of answers in one second it is the same.
@lru_cache(maxsize=1)
def _format_date(unix_s: int) -> str:
    return formatdate(unix_s, usegmt=True)
