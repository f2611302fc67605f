"""Answer plain requests without a thread for each, where nothing has to be waited for.

When Prometheus asks for hundreds of BMCs at once, threads would cost more than all else. What
is not a whole, simple request, and what cannot be answered so, is left to a thread, untouched.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Mapping

from .answer import Answer
from .connections import Connections
from .deadline import CLIENT_TIMEOUT_S, DeadlineWriter
from .pages import Pages

log = logging.getLogger(__name__)

# Scrapers' requests have some 400 bytes.
_MAX_REQUEST_BYTES = 4096


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
            DeadlineWriter(connection, CLIENT_TIMEOUT_S).write(rest)
        except OSError as error:
            log.debug("answer not sent error=%s", error)
        finally:
            leave()

    def done(answer: Answer) -> None:
        message = answer.head() + answer.body
        connections.note_wait(connection)
        try:
            connection.setblocking(False)
            connection.recv(len(data))
            message = message[connection.send(message) :]
        except BlockingIOError:
            pass
        except OSError as error:  # the client went away
            log.debug("answer not sent error=%s", error)
            message = b""
        if not message:
            leave()
            return
        # More than the socket takes at once.
        thread = threading.Thread(target=send_rest, args=(message,), name="http", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the system has no thread left
            log.warning("answer cut short reason=%s", error)
            leave()

    connections.note_request(connection)
    if pages.begin(target, _Headers(headers), done):
        log.debug("http target=%r", target)
        return True
    connections.note_wait(connection)
    return False
