"""The policy in force: the same in memory and in the two files that the gates read.

It fetches nothing and ends nobody.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from .access import Access
from .cache import Cache
from .errors import StateError
from .policy import Policy, check_replaces
from .registration import Registration

log = logging.getLogger(__name__)


class HeldPolicy:
    """The node's policy, shared by the agent's threads."""

    def __init__(self, cache: Cache, access: Access, registration: Registration) -> None:
        self._cache = cache
        self._access = access
        self._files = (cache, access)
        self._registration = registration
        self._lock = threading.Lock()
        self._policy: Policy | None = None
        self._opens: Mapping[int, datetime] = {}
        # Whether a policy older than the one held is refused.
        self._is_binding = True

    @property
    def policy(self) -> Policy | None:
        """The policy in force, None before the first."""
        return self._policy

    @property
    def opens(self) -> Mapping[int, datetime]:
        """Until when grants are held back, by reservation."""
        return self._opens

    def load(self) -> None:
        """Take up the cache. Raises StateError, PolicyRefused: nothing is held then."""
        held = self._cache.load_held()
        if held is not None:
            policy, opens = held
            check_replaces(policy, None, self._registration.node)
            # What was held back stays so until somebody has looked at what is running.
            self._policy, self._opens = policy, opens
            written_at = self._cache.written_at()
            # Registering anew is how an operator says that the server was restored from a
            # backup and counts from an older version.
            self._is_binding = written_at >= self._registration.registered_at
            self._access.adopt(written_at)

    def replace(
        self,
        policy: Policy,
        opens: Mapping[int, datetime] | None = None,
        taken: Callable[[], None] = lambda: None,
    ) -> None:
        """Hold a new policy, with its grants held back as `opens` says.

        `taken` is called when it is in force, before it is written: that may take any time.
        Raises PolicyRefused and holds the old one, or StateError when it could not be written:
        it is in force for open sessions then, and `mend` tries again.
        """
        with self._lock:
            held = self._policy if self._is_binding else None
            check_replaces(policy, held, self._registration.node)
            self._policy = policy
            self._opens = dict(opens or {})
            self._is_binding = True
            taken()
            self._store(policy, self._files)
        log.info("policy in force version=%d grants=%d", policy.version, len(policy.grants))

    def hold_back(self, opens: Mapping[int, datetime]) -> None:
        """Hold the present policy's grants back as `opens` says, and no others.

        Raises StateError as `replace` does; does nothing when that is so already.
        """
        with self._lock:
            if self._policy is None or self._opens == opens:
                return
            self._opens = dict(opens)
            self._store(self._policy, self._files)
        log.info("grants held back reservations=%s", sorted(opens))

    def mend(self) -> None:
        """Write what is not as it was stored again. Raises StateError."""
        with self._lock:
            if self._policy is None:
                return
            # Each by itself: one that cannot be written is tried in each round.
            files = [file for file in self._files if not file.is_as_stored()]
            if files:
                self._store(self._policy, files)
                log.info("policy written again version=%d", self._policy.version)

    def _store(self, policy: Policy, files: Sequence[Cache | Access]) -> None:
        """Write those of the two files. Raises StateError when one fails.

        A login needs both, so whoever lost access is out as soon as either is written; that is
        why the second is written although the first failed. When neither can be written, the
        access file takes back what it gave (Access.store), which needs no space on the disk.
        The cache is the first because it is what the agent starts from: had it written the
        access file and been cut off, it would, started anew, write it again from the old cache.
        """
        failures = []
        for file in files:
            try:
                file.store(policy, self._opens)
            except StateError as error:
                failures.append(str(error))
        if failures:
            raise StateError("; ".join(failures))
