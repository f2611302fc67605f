"""The policy in force: the same in memory and in the two files that the gates read.

It fetches nothing and ends nobody.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime

from ..errors import StateError
from ..server.registration import Registration
from .access import Access
from .cache import Cache
from .model import Policy, check_replaces

log = logging.getLogger(__name__)


class HeldPolicy:
    """The node's policy, shared by the agent's threads."""

    def __init__(self, cache: Cache, access: Access, registration: Registration) -> None:
        self._cache = cache
        self._access = access
        self._files: tuple[Cache | Access, ...] = (cache, access)
        self._registration = registration
        # The first is held while files are written, and so perhaps for long.
        self._writing = threading.Lock()
        self._lock = threading.Lock()
        # Counts the changes; which of them is in each file.
        self._change = 0
        self._written: dict[Cache | Access, int] = dict.fromkeys(self._files, 0)
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

    @property
    def is_written(self) -> bool:
        """Say whether the files were written since the last change."""
        return all(self._written[file] == self._change for file in self._files)

    def put(self, policy: Policy, opens: Mapping[int, datetime]) -> None:
        """Hold a new policy, its grants held back as `opens` says; `write` tells the gates.

        Raises PolicyRefused and holds the old one.
        """
        with self._lock:
            held = self._policy if self._is_binding else None
            check_replaces(policy, held, self._registration.node)
            self._policy, self._opens = policy, dict(opens)
            self._is_binding = True
            self._change += 1
        log.info("policy in force version=%d grants=%d", policy.version, len(policy.grants))

    def put_opens(self, opens: Mapping[int, datetime]) -> None:
        """Hold the present policy's grants back as `opens` says, and no others."""
        with self._lock:
            if self._policy is None or self._opens == opens:
                return
            self._opens = dict(opens)
            self._change += 1
        log.info("grants held back reservations=%s", sorted(opens))

    def write(self) -> None:
        """Write what has changed, or is not as it was written. Raises StateError.

        What could not be written is in force for open sessions all the same, and is tried again
        each time. A disk that hangs holds up nobody but who writes.
        """
        with self._writing:
            with self._lock:
                policy, opens, change = self._policy, self._opens, self._change
            if policy is None:
                return
            # Each by itself: one that cannot be written is tried in each round.
            files = [
                file
                for file in self._files
                if self._written[file] != change or not file.is_as_stored()
            ]
            if files and self.is_written:
                log.info("policy written again version=%d", policy.version)
            self._store(policy, opens, change, files)

    def replace(self, policy: Policy, opens: Mapping[int, datetime] | None = None) -> None:
        """`put` and `write`. Raises PolicyRefused, StateError."""
        self.put(policy, opens or {})
        self.write()

    def hold_back(self, opens: Mapping[int, datetime]) -> None:
        """`put_opens` and, if that changed something, `write`. Raises StateError."""
        self.put_opens(opens)
        if not self.is_written:
            self.write()

    def mend(self) -> None:
        """`write`, for what somebody else has changed. Raises StateError."""
        self.write()

    def _store(
        self,
        policy: Policy,
        opens: Mapping[int, datetime],
        change: int,
        files: Sequence[Cache | Access],
    ) -> None:
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
                file.store(policy, opens)
                self._written[file] = change
            except StateError as error:
                failures.append(str(error))
        if failures:
            raise StateError("; ".join(failures))
