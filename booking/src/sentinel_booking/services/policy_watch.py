"""Waits for a node's policy to change: one look at the database for all who wait.

It builds no policy and answers nobody; a waiting caller must hold no database connection.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from flask import Flask, current_app
from sqlalchemy import Engine, select

from ..models import Node

log = logging.getLogger(__name__)

_EXTENSION = "sentinel_policy_watch"
# How soon a change is seen, and how often the database is asked while somebody waits.
_PERIOD_S = 0.2
# A database that fails is asked less often.
_RETRY_S = 2.0


@dataclass(eq=False)
class _Waiter:
    node_id: int
    version: int
    woken: threading.Event = field(default_factory=threading.Event)


class PolicyWatch:
    """The waiting requests of one process.

    A single thread asks for the versions of all nodes that are waited for; it runs only
    while somebody waits. After a fork the child starts empty: threads are not inherited,
    and a lock might have been held.
    """

    def __init__(self, engine: Engine, max_waiters: int) -> None:
        self._engine = engine
        self._max_waiters = max_waiters
        self._reset()
        reset = weakref.WeakMethod(self._reset)
        os.register_at_fork(after_in_child=lambda: _call(reset))

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._waiters: set[_Waiter] = set()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    @property
    def waiting(self) -> int:
        """How many requests wait now."""
        with self._lock:
            return len(self._waiters)

    def wait(self, node_id: int, version: int, timeout_s: float) -> bool:
        """Return when the node's version is not `version` any more, or after `timeout_s`.

        False: nothing was waited for, because too many wait already. Whether anything
        changed is for the caller to read; after release() it returns at once.
        """
        with self._place(_Waiter(node_id, version)) as waiter:
            if waiter is None:
                return False
            waiter.woken.wait(timeout_s)
            return True

    def release(self) -> None:
        """Let everybody go, now and from now on: the process is about to end."""
        self._stop.set()
        with self._lock:
            for waiter in self._waiters:
                waiter.woken.set()

    @contextmanager
    def _place(self, waiter: _Waiter) -> Iterator[_Waiter | None]:
        with self._lock:
            is_admitted = len(self._waiters) < self._max_waiters and not self._stop.is_set()
            if is_admitted:
                self._waiters.add(waiter)
        try:
            if is_admitted:
                self._start()
            yield waiter if is_admitted else None
        finally:
            with self._lock:
                self._waiters.discard(waiter)

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._watch, name="policy-watch", daemon=True
                )
                self._thread.start()

    def _watch(self) -> None:
        period_s = _PERIOD_S
        while not self._stop.wait(period_s):
            with self._lock:
                if not self._waiters:
                    self._thread = None
                    return
                waiters = list(self._waiters)
            try:
                versions = self._read_versions({waiter.node_id for waiter in waiters})
            except Exception as error:
                # Whatever it is must not end the thread that all waiters rely on. They are
                # answered "nothing new" in time, and nodes keep the policy they have.
                if period_s != _RETRY_S:
                    log.error("policy versions cannot be read error=%s", type(error).__name__)
                period_s = _RETRY_S
                continue
            period_s = _PERIOD_S
            for waiter in waiters:
                # A removed node has no version: its agent is woken, to be refused.
                if versions.get(waiter.node_id) != waiter.version:
                    waiter.woken.set()

    def _read_versions(self, node_ids: set[int]) -> dict[int, int]:
        query = select(Node.id, Node.policy_version).where(
            Node.id.in_(sorted(node_ids)), Node.removed_at.is_(None)
        )
        with self._engine.connect() as connection:
            return {row.id: row.policy_version for row in connection.execute(query)}


def init_policy_watch(app: Flask, engine: Engine, max_waiters: int) -> None:
    """Give the application its watch."""
    app.extensions[_EXTENSION] = PolicyWatch(engine, max_waiters)


def current_policy_watch() -> PolicyWatch:
    """Return the watch of the application that is running."""
    watch: PolicyWatch = current_app.extensions[_EXTENSION]
    return watch


def policy_watch_of(app: Flask) -> PolicyWatch:
    """Return the application's watch; for what ends a process."""
    watch: PolicyWatch = app.extensions[_EXTENSION]
    return watch


def _call(method: weakref.WeakMethod[Callable[[], None]]) -> None:
    found = method()
    if found is not None:
        found()
