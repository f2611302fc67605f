"""How far this node's clock is off the server's, and a policy's times on this node's clock.

Bookings are made by the server's clock, while sshd, get-keys and pam-gate know only the node's.
On a node whose clock is an hour slow a reservation that has ended would stay open for an hour;
on one that is fast the next would open early. So the agent moves the times of each policy by
the difference before it puts the policy in force: everything behind it, on the disk too, goes
by the node's clock and yet opens and ends when the server's says. It sets no clock.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import timedelta

from ..errors import StateError
from .model import Policy

log = logging.getLogger(__name__)

# Below this the difference is left alone: a heartbeat measures it to within its own duration,
# and each change of it writes the policy anew.
TOLERATED_S = 2.0
# A heartbeat that took longer says too little about the server's time.
ROUND_TRIP_MAX_S = 4.0
# How long the first policy waits for the first heartbeat, which is on its way.
FIRST_ANSWER_S = 3.0


class ServerClock:
    """The server's time, told by heartbeats and carried on by a clock that nobody sets."""

    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
    ) -> None:
        self._wall = wall
        self._steady = steady
        self._offset_s: float | None = None
        self._heard = threading.Event()

    def hear(self, server_s: float, round_trip_s: float) -> None:
        """Take the server's time, in seconds since 1970, from an answer that came just now."""
        if round_trip_s <= ROUND_TRIP_MAX_S:
            self._offset_s = server_s + round_trip_s / 2 - self._steady()
        self._heard.set()

    def wait(self, timeout_s: float) -> None:
        """Wait until a server has answered for the first time, and no longer than this."""
        self._heard.wait(timeout_s)

    @property
    def ahead_s(self) -> float:
        """By how much the server's clock is ahead of this node's; 0 while it is not known."""
        if self._offset_s is None:
            return 0.0
        return self._offset_s + self._steady() - self._wall()


def on_this_clock(policy: Policy, ahead_s: float) -> Policy:
    """Return the policy as it reads for a node that is `ahead_s` behind the server."""
    if not ahead_s:
        return policy
    by = timedelta(seconds=ahead_s)
    grants = tuple(
        grant.model_copy(
            update={"not_before": grant.not_before - by, "not_after": grant.not_after - by}
        )
        for grant in policy.grants
    )
    return policy.model_copy(
        update={
            "generated_at": policy.generated_at - by,
            "expires_at": policy.expires_at - by,
            "grants": grants,
        }
    )


class Intake:
    """Takes the server's policies, and puts them in force by this node's clock."""

    def __init__(
        self,
        clock: ServerClock,
        put_in_force: Callable[[Policy], None],
        first_answer_s: float = FIRST_ANSWER_S,
    ) -> None:
        self._first_answer_s = first_answer_s
        self._clock = clock
        self._put_in_force = put_in_force
        self._lock = threading.Lock()
        # As the server sent it, and by how much it was moved when it was put in force.
        self._policy: Policy | None = None
        self._moved_s = 0.0

    @property
    def is_off(self) -> bool:
        """Say whether a clock was set and `follow` has still to take it up."""
        return self._policy is not None and self._wanted_s() != self._moved_s

    def take(self, policy: Policy) -> None:
        """Put a policy in force. Raises PolicyRefused, and StateError when it is in force."""
        self._clock.wait(self._first_answer_s)
        with self._lock:
            self._put(policy)

    def follow(self) -> bool:
        """Put the policy in force anew if a clock was set; say whether. Raises as `take`."""
        with self._lock:
            if self._policy is None or self._wanted_s() == self._moved_s:
                return False
            log.warning("a clock was set: policy moved seconds=%+.0f", -self._wanted_s())
            self._put(self._policy)
            return True

    def _put(self, policy: Policy) -> None:
        wanted_s = self._wanted_s()
        try:
            self._put_in_force(on_this_clock(policy, wanted_s))
        except StateError:
            self._policy, self._moved_s = policy, wanted_s
            raise
        self._policy, self._moved_s = policy, wanted_s

    def _wanted_s(self) -> float:
        # What is in force keeps its times as long as no clock was set: the milliseconds by
        # which two heartbeats differ must not make another policy of it.
        ahead_s = self._clock.ahead_s
        if abs(ahead_s - self._moved_s) <= TOLERATED_S:
            return self._moved_s
        return ahead_s if abs(ahead_s) > TOLERATED_S else 0.0
