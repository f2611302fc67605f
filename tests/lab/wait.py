"""Waiting for something to become true, with a limit. Knows nothing of what is waited for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_for(what: str, probe: Callable[[], T | None], timeout_s: float = 30.0) -> T:
    """Call `probe` until it returns something true, and return that.

    An OSError (a refused connection, say) counts as 'not yet'. Raises AssertionError, naming
    `what` and the last answer or error, when the time is up.
    """
    began = time.monotonic()
    last: object = None
    while True:
        try:
            found = probe()
            if found:
                return found
            last = found
        except OSError as error:
            last = error
        waited_s = time.monotonic() - began
        if waited_s > timeout_s:
            raise AssertionError(f"not within {timeout_s} s: {what}; last seen: {last!r}")
        # Seen late by an eighth of the time that it took at most, and by 0.1 s.
        time.sleep(min(max(waited_s / 8, 0.01), 0.1))
