"""How long to wait for a BMC's answer before asking again. Pure: reads no clock."""

from __future__ import annotations

# A request that got no answer is sent again after this time, as long as nothing is known.
RETRY_S = 0.3
# Then after twice what the BMC's answers take and this; never less.
LEAST_RETRY_S = 0.15
_HEADROOM = 2.0
MAX_RETRY_S = 2.0
# It gets shorter step by step: BMCs have moments in which they are busy with themselves.
_DECAY = 0.7
# After so many repetitions the intervals grow: a BMC that hangs must not drown in them.
_STEADY_REPEATS = 6
_GROWTH = 1.5


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
        wanted = LEAST_RETRY_S + _HEADROOM * took_s
        self._interval_s = min(max(wanted, self._interval_s * _DECAY), MAX_RETRY_S)

    def repeated_in_vain(self) -> None:
        """An answer came twice: the first was only late, and nothing had been lost."""
        self._interval_s = min(self._interval_s * _GROWTH, MAX_RETRY_S)
