"""The addresses of BMCs' names, remembered for a while. Sends nothing but name look-ups."""

from __future__ import annotations

import ipaddress
import threading
import time
from functools import lru_cache

from .target import Address, Target, resolve

# Short, as a name server's own times are not known here, and a BMC may be moved.
_KEEP_S = 60.0
_MAX_NAMES = 4096


class Resolver:
    """Looks names up. Safe to use from several threads."""

    def __init__(self, keep_s: float = _KEEP_S) -> None:
        self._keep_s = keep_s
        self._lock = threading.Lock()
        # The address, and until when it counts.
        self._found: dict[Target, tuple[Address, float]] = {}

    def known(self, target: Target) -> Address | None:
        """Return the address if that needs no look-up; does not wait."""
        literal = _literal(target)
        if literal is not None:
            return literal
        address, until = self._found.get(target, (None, 0.0))
        return address if time.monotonic() < until else None

    def resolve(self, target: Target) -> Address:
        """Return the address; may wait for a name server. Raises IpmiError."""
        address = self.known(target)
        if address is None:
            address = resolve(target)
            with self._lock:
                if len(self._found) >= _MAX_NAMES:
                    self._found.clear()
                self._found[target] = address, time.monotonic() + self._keep_s
        return address


@lru_cache(maxsize=_MAX_NAMES)
def _literal(target: Target) -> Address | None:
    try:
        ipaddress.ip_address(target.host)
    except ValueError:
        return None
    return resolve(target)
