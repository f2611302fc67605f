"""What the lock promises when something fails. docs/failures.md says the same to operators.

It holds for all rows that former and never-booked users do not get in, and that break-glass
accounts do; a row says what happens to the user who holds a reservation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# `in again`: out until the agent has mended it, in its next round.
Booked = Literal["in", "in again", "out"]


@dataclass(frozen=True)
class Promise:
    """One row of the table: what the booked user meets at the door, and why."""

    failure: str
    booked: Booked
    why: str


SERVER = (
    Promise("it is down", "in", "the policy is on the node"),
    Promise("it takes requests and says nothing", "in", "the policy is on the node"),
    Promise("it answers a byte at a time", "in", "an answer counts when it is whole"),
    Promise("it answers something that is not JSON", "in", "the policy held stays"),
    Promise("it answers JSON that is no policy", "in", "the policy held stays"),
    Promise("it sends an older policy", "in", "it is refused: it would open what was released"),
    Promise("it sends another node's policy", "in", "it is refused, the policy held stays"),
    Promise("one grant of many is damaged", "in", "only the damaged grant opens nothing"),
    Promise("it answers 500", "in", "the policy held stays"),
    Promise("it answers 401", "in", "what was granted stays granted until the policy expires"),
    Promise("it answers 302", "in", "redirections are not followed"),
    Promise("its answer has no end", "in", "reading ends at 16 MiB"),
    Promise("its answer unpacks to gigabytes", "in", "packed answers are refused"),
    Promise("its answer is packed many times over", "in", "packed answers are refused"),
)
