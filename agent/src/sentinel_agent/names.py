"""Asks the system's name service, and waits for no answer longer than a moment.

A directory that hangs must not keep anybody's session from being ended. It judges nobody.
"""

from __future__ import annotations

import grp
import logging
import pwd
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

log = logging.getLogger(__name__)

K = TypeVar("K")
T = TypeVar("T")

WAIT_S = 2.0
# How long an answer is good; what was not found is asked for again sooner.
FOUND_S = 30.0
NOT_FOUND_S = 5.0


@dataclass(frozen=True)
class Account:
    """What the name service says of an account."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True)
class Group:
    """What the name service says of a group; those who have it as their first are not in it."""

    gid: int
    members: frozenset[str]


@dataclass(frozen=True)
class Answer(Generic[T]):
    """`value` None: there is no such entry, says the name service. `is_fresh`: just asked.

    An entry that is not found proves little: a directory that is down finds nothing either.
    """

    value: T | None
    is_fresh: bool


@dataclass
class _Known(Generic[T]):
    value: T | None
    asked_s: float


class NameService:
    """getpwnam(3) and the like, asked by a thread of its own."""

    def __init__(self, wait_s: float = WAIT_S) -> None:
        self._wait_s = wait_s
        self._users: dict[str, _Known[Account]] = {}
        self._uids: dict[int, _Known[Account]] = {}
        self._groups: dict[str, _Known[Group]] = {}
        self._questions: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        # Set when the question is answered that was waited for in vain.
        self._overdue: threading.Event | None = None

    @property
    def is_hanging(self) -> bool:
        """Say whether a question has been waiting for its answer for too long."""
        return self._overdue is not None and not self._overdue.is_set()

    def user(self, name: str, *, anew: bool = False) -> Answer[Account]:
        """Look up an account by its name; `anew`: do not take an answer of a moment ago."""
        return self._ask(self._users, name, _user_of_name, anew=anew)

    def uid(self, uid: int, *, anew: bool = False) -> Answer[Account]:
        """Look up an account by its uid."""
        return self._ask(self._uids, uid, _user_of_uid, anew=anew)

    def group(self, name: str, *, anew: bool = False) -> Answer[Group]:
        """Look up a group."""
        return self._ask(self._groups, name, _group_of_name, anew=anew)

    def _ask(
        self, known: dict[K, _Known[T]], key: K, look: Callable[[K], T | None], *, anew: bool
    ) -> Answer[T]:
        last = known.get(key)
        if last is not None and not anew:
            good_s = FOUND_S if last.value is not None else NOT_FOUND_S
            if time.monotonic() - last.asked_s < good_s:
                return Answer(last.value, is_fresh=True)
        if self.is_hanging:
            return Answer(last.value if last else None, is_fresh=False)
        answered = threading.Event()

        def ask() -> None:
            try:
                known[key] = _Known(look(key), time.monotonic())
            finally:
                answered.set()

        meanwhile = last.value if last is not None and not anew else None
        if meanwhile is not None:
            # Good enough until the answer is there: a round has many to ask for. Put there
            # before the question, so that it never takes the answer's place.
            known[key] = _Known(meanwhile, time.monotonic())
        self._questions.put(ask)
        self._start()
        if meanwhile is not None:
            return Answer(meanwhile, is_fresh=True)
        if not answered.wait(self._wait_s):
            self._overdue = answered
        now = known.get(key)
        is_fresh = now is not None and now is not last
        return Answer(now.value if now else None, is_fresh=is_fresh)

    def _start(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._answer, name="names", daemon=True)
            self._thread.start()

    def _answer(self) -> None:
        while True:
            question = self._questions.get()
            try:
                question()
            except Exception as error:  # one odd name must not end the thread
                log.error("name service failed reason=%r", error)


def _user_of_name(name: str) -> Account | None:
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        return None
    return Account(found.pw_name, found.pw_uid, found.pw_gid)


def _user_of_uid(uid: int) -> Account | None:
    try:
        found = pwd.getpwuid(uid)
    except KeyError:
        return None
    return Account(found.pw_name, found.pw_uid, found.pw_gid)


def _group_of_name(name: str) -> Group | None:
    try:
        found = grp.getgrnam(name)
    except KeyError:
        return None
    return Group(found.gr_gid, frozenset(found.gr_mem))
