"""Keeps a log that nobody reads from stopping who writes it. It adds nothing to what is said.

A pipe that is full, as when journald hangs, blocks whoever writes to it: here that is a thread
that has nothing else to do.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Iterator
from logging.handlers import QueueHandler

LINES_MAX = 10_000
FLUSH_S = 2.0


class _Journal(QueueHandler):
    """Passes records on without waiting; what is too many is dropped."""

    def __init__(self, handlers: list[logging.Handler]) -> None:
        self._lines: queue.Queue[logging.LogRecord | None] = queue.Queue(LINES_MAX)
        self._handlers = handlers
        self._thread = threading.Thread(target=self._write, name="journal", daemon=True)
        super().__init__(self._lines)

    def enqueue(self, record: logging.LogRecord) -> None:
        """Take the record, or drop it when too many wait already."""
        with contextlib.suppress(queue.Full):
            self._lines.put_nowait(record)

    def start(self) -> None:
        """Start to write."""
        self._thread.start()

    def stop(self) -> None:
        """Write what waits, and end; give up when nobody takes it."""
        with contextlib.suppress(queue.Full):
            self._lines.put_nowait(None)
        self._thread.join(FLUSH_S)

    def _write(self) -> None:
        while (record := self._lines.get()) is not None:
            for handler in self._handlers:
                handler.handle(record)


@contextlib.contextmanager
def unhurried_logging() -> Iterator[None]:
    """Have what is logged within written by a thread of its own."""
    root = logging.getLogger()
    handlers = root.handlers[:]
    journal = _Journal(handlers)
    root.handlers[:] = [journal]
    journal.start()
    try:
        yield
    finally:
        journal.stop()
        root.handlers[:] = handlers
