"""How often one caller may try what could be guessed. Counts in this process's memory."""

from __future__ import annotations

import time

from flask import Flask, current_app
from limits import RateLimitItem, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from .errors import TooManyAttempts

# Many people may share one address behind a router, so the narrow limit is for each name.
_PER_ADDRESS_AND_NAME = RateLimitItemPerMinute(10)
_PER_ADDRESS = RateLimitItemPerMinute(100)


def init_rate_limits(app: Flask) -> None:
    """Give the application counters of its own."""
    app.extensions["sentinel_limiter"] = MovingWindowRateLimiter(MemoryStorage())


def count_attempt(what: str, ip: str, name: str = "") -> None:
    """Count one attempt at `what` (as "sign-in") from `ip`, at `name` if there is one.

    Raises TooManyAttempts beyond 10 a minute for one name or 100 in all. With several
    processes each counts for itself.
    """
    _hit(_PER_ADDRESS, what, ip)
    if name:
        _hit(_PER_ADDRESS_AND_NAME, what, ip, name)


def _hit(limit: RateLimitItem, *key: str) -> None:
    limiter: MovingWindowRateLimiter = current_app.extensions["sentinel_limiter"]
    if limiter.hit(limit, *key):
        return
    reset_at, _ = limiter.get_window_stats(limit, *key)
    wait_s = max(1, round(reset_at - time.time()))
    raise TooManyAttempts(f"Too many attempts; try again in {wait_s} seconds.", wait_s)
