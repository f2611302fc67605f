"""Answer plain requests without a thread for each, where nothing has to be waited for.

When Prometheus asks for hundreds of BMCs at once, threads would cost more than all else. What
is not a whole, simple request, and what cannot be answered so, is left to a thread, untouched.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Mapping
from email.utils import formatdate
from http import HTTPStatus

from . import __version__
from .connections import Connections
from .deadline import DeadlineWriter
from .pages import Answer, Pages

log = logging.getLogger(__name__)

SERVER = f"sentinel-exporter/{__version__}"

# Scrapers' requests have some 400 bytes.
_MAX_REQUEST_BYTES = 4096
_CLIENT_TIMEOUT_S = 10.0


class _Headers:
    """A request's headers by their names in lower case."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values

    def get(self, name: str, failobj: str, /) -> str:
        return self._values.get(name.lower(), failobj)


def read_request(data: bytes) -> tuple[str, dict[str, str]] | None:
    """Return the target and the headers of a whole GET; None for anything that is unusual."""
    head, end, rest = data.partition(b"\r\n\r\n")
    if not end or rest:
        return None
    line, *fields = head.decode("latin-1").split("\r\n")
    words = line.split(" ")
    if len(words) != 3 or words[0] != "GET" or words[2] not in ("HTTP/1.0", "HTTP/1.1"):
        return None
    headers: dict[str, str] = {}
    for one in fields:
        name, colon, value = one.partition(":")
        name = name.lower()
        # A line that is folded, a header that is there twice, a body: all permitted, and rare.
        if not colon or not name or name[0] in " \t" or name in headers:
            return None
        headers[name] = value.strip()
    if "content-length" in headers or "transfer-encoding" in headers:
        return None
    return words[1], headers


def begin_answer(
    connection: socket.socket,
    pages: Pages,
    connections: Connections,
    close: Callable[[socket.socket], None],
) -> bool:
    """Begin to answer the request that has come; False when it needs a thread.

    `close` ends the connection when all is sent.
    """
    try:
        # It stays there for the thread that may have to read it.
        data = connection.recv(_MAX_REQUEST_BYTES, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except OSError:
        return False
    asked = read_request(data)
    if asked is None:
        return False
    target, headers = asked

    def leave() -> None:
        close(connection)
        connections.leave(connection)

    def send_rest(rest: bytes) -> None:
        try:
            DeadlineWriter(connection, _CLIENT_TIMEOUT_S).write(rest)
        except OSError as error:
            log.debug("answer not sent error=%s", error)
        finally:
            leave()

    def done(answer: Answer) -> None:
        message = write_head(answer) + answer.body
        connections.wait_for(connection)
        try:
            connection.setblocking(False)
            connection.recv(len(data))
            message = message[connection.send(message) :]
        except BlockingIOError:
            pass
        except OSError as error:  # the client went away
            log.debug("answer not sent error=%s", error)
            message = b""
        if message:  # more than the socket takes at once
            threading.Thread(
                target=send_rest, args=(message,), name="http", daemon=True
            ).start()
        else:
            leave()

    connections.has_asked(connection)
    if pages.begin(target, _Headers(headers), done):
        log.debug("http target=%s", target)
        return True
    connections.wait_for(connection)
    return False


def write_head(answer: Answer) -> bytes:
    """Return the answer's head, which the body follows."""
    fields = {
        "Server": SERVER,
        "Date": formatdate(time.time(), usegmt=True),
        "Content-Type": answer.content_type,
        "Content-Length": str(len(answer.body)),
        **answer.headers,
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    phrase = HTTPStatus(answer.status).phrase
    return f"HTTP/1.0 {answer.status} {phrase}\r\n{lines}\r\n".encode("latin-1")
