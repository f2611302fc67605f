"""The policy in force: the same in memory and in the cache on the disk.

It fetches nothing and ends nobody.
"""

from __future__ import annotations

import logging
import threading

from .cache import Cache
from .policy import Policy, check_replaces
from .registration import Registration

log = logging.getLogger(__name__)


class HeldPolicy:
    """The node's policy, shared by the agent's threads."""

    def __init__(self, cache: Cache, registration: Registration) -> None:
        self._cache = cache
        self._registration = registration
        self._lock = threading.Lock()
        self._policy: Policy | None = None
        # Whether a policy older than the one held is refused.
        self._is_binding = True

    @property
    def policy(self) -> Policy | None:
        """The policy in force, None before the first."""
        return self._policy

    def load(self) -> None:
        """Take up the cache. Raises StateError, PolicyRefused: nothing is held then."""
        policy = self._cache.load()
        if policy is not None:
            check_replaces(policy, None, self._registration.node)
            self._policy = policy
            # Registering anew is how an operator says that the server was restored from a
            # backup and counts from an older version.
            self._is_binding = self._cache.written_at() >= self._registration.registered_at

    def replace(self, policy: Policy) -> None:
        """Hold a new policy.

        Raises PolicyRefused and holds the old one, or StateError when it could not be written:
        it is in force for open sessions then, and `mend` tries again.
        """
        with self._lock:
            held = self._policy if self._is_binding else None
            check_replaces(policy, held, self._registration.node)
            self._policy = policy
            self._is_binding = True
            self._cache.store(policy)
        log.info("policy in force version=%d grants=%d", policy.version, len(policy.grants))

    def mend(self) -> None:
        """Write the cache again if it is not what was stored. Raises StateError."""
        with self._lock:
            if self._policy is not None and not self._cache.is_as_stored():
                self._cache.store(self._policy)
                log.info("policy cache written version=%d", self._policy.version)
