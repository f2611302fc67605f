"""Tell whether a name and a password belong together, by bcrypt. Keeps no password."""

from __future__ import annotations

import hashlib
import hmac
import os
import threading
from collections import OrderedDict
from collections.abc import Mapping

import bcrypt

# Name, password and hash that were found to belong together, so that a scraper's password is
# hashed once and not at each scrape.
_MAX_KNOWN = 100
# How many may wait for their password to be checked: each has a thread and a connection.
_MAX_WAITING = 32
# What bcrypt reads of a password; htpasswd and the exporters of Prometheus cut it there.
_MAX_BYTES = 72


class PasswordsBusy(Exception):
    """Others' passwords are being checked, for too long to wait."""


class Passwords:
    """Checks passwords. Safe to use from several threads."""

    def __init__(self) -> None:
        # A key of this process alone: nobody can make out passwords from what is kept.
        self._key = os.urandom(32)
        self._known: OrderedDict[bytes, None] = OrderedDict()
        self._lock = threading.Lock()
        # bcrypt is slow by intent: one at a time, so that guessing leaves the machine its CPUs.
        self._one_at_a_time = threading.Lock()
        self._places = threading.BoundedSemaphore(_MAX_WAITING)

    def is_good(
        self, users: Mapping[str, str], name: str, password: bytes, wait_s: float
    ) -> bool:
        """Whether `users` has the name with a bcrypt hash of the password.

        It takes as long for a name that is not there. Raises PasswordsBusy when it was not
        this one's turn within `wait_s`, and at once when too many wait.
        """
        is_user = name in users
        wanted = users[name] if is_user else self._decoy(users, name)
        kept = self._digest(name.encode(), wanted.encode(), password)
        with self._lock:
            if is_user and kept in self._known:
                self._known.move_to_end(kept)
                return True
        if not self._places.acquire(blocking=False):
            raise PasswordsBusy("too many wait for their passwords to be checked")
        try:
            if not self._one_at_a_time.acquire(timeout=wait_s):
                raise PasswordsBusy("passwords of others are being checked")
            try:
                is_good = bcrypt.checkpw(password[:_MAX_BYTES], wanted.encode()) and is_user
            finally:
                self._one_at_a_time.release()
        finally:
            self._places.release()
        if is_good:
            with self._lock:
                self._known[kept] = None
                while len(self._known) > _MAX_KNOWN:
                    self._known.popitem(last=False)
        return is_good

    def _digest(self, *parts: bytes) -> bytes:
        # Each part by itself first, so that no two triples run together into one.
        text = b"".join(hashlib.sha256(part).digest() for part in parts)
        return hmac.digest(self._key, text, "sha256")

    def _decoy(self, users: Mapping[str, str], name: str) -> str:
        """Return a hash that nobody has, as costly as one of the users', the same each time."""
        costs = sorted(hashed.split("$")[2] for hashed in users.values())
        cost = costs[self._digest(name.encode())[0] % len(costs)]
        return f"$2b${cost}${'.' * 53}"
