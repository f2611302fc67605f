"""How long to wait for a BMC's answer before asking again. Pure: reads no clock."""

from __future__ import annotations

# A request that got no answer is sent again after this time.
RETRY_S = 0.3
# A BMC that takes longer gets more, up to this.
MAX_RETRY_S = 2.0
# After so many repetitions the intervals grow: a BMC that hangs must not drown in them.
_STEADY_REPEATS = 4
_GROWTH = 1.5
# An answer that took this part of the interval or more makes it longer.
_HEADROOM = 2.0
_DECAY = 0.95


class Patience:
    """What one BMC has taught so far. Times are in seconds."""

    def __init__(self, interval_s: float = RETRY_S) -> None:
        self._interval_s = interval_s

    def wait_s(self, repeats: int) -> float:
        """Return how long to wait after a request was sent and repeated so many times."""
        if repeats < _STEADY_REPEATS:
            return self._interval_s
        grown = self._interval_s * _GROWTH ** (repeats - _STEADY_REPEATS + 1)
        return min(grown, max(MAX_RETRY_S, self._interval_s))

    def answered(self, took_s: float) -> None:
        """A request that was not repeated was answered after `took_s`."""
        if self._interval_s > RETRY_S or took_s * _HEADROOM > RETRY_S:
            wanted = max(RETRY_S, took_s * _HEADROOM, self._interval_s * _DECAY)
            self._interval_s = min(wanted, MAX_RETRY_S)

    def repeated_in_vain(self) -> None:
        """An answer came twice: the first was only late, and nothing had been lost."""
        self._interval_s = min(self._interval_s * 2, MAX_RETRY_S)
