"""What the lock promises when something fails. docs/failures.md says the same to operators.

It holds for all rows that former and never-booked users do not get in, and that break-glass
accounts do; a row says what happens to the user who holds a reservation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# `in again`: out until the agent has put it right, in its next round; while there is no agent,
# out.
Booked = Literal["in", "in again", "out"]


@dataclass(frozen=True)
class Promise:
    """One row of the table: what the booked user meets at the door, and why."""

    failure: str
    booked: Booked
    why: str

    def row(self) -> str:
        """Return the promise as a row of the document."""
        return f"| {self.failure} | {self.booked} | {self.why} |"


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

AGENT = (
    Promise("it is killed", "in", "the gates read the policy from the disk"),
    Promise("it hangs", "in", "the gates read the policy from the disk"),
    Promise("its configuration is damaged when it starts", "in", "the gates do not read it"),
    Promise(
        "all it keeps is damaged when it starts, and the server is down", "out",
        "what cannot be read opens nothing; it ends nobody whose reservation it cannot know",
    ),
)  # fmt: skip

_DAMAGES = ("is cut short", "is emptied", "is removed", "can be written by all",
            "belongs to a user", "is a symbolic link", "is a pipe", "is a folder")  # fmt: skip
FILES = (
    *(
        Promise(f"{name} {damage}", "in again", "the gates trust only what root alone wrote")
        for name in ("the cache", "the access file")
        for damage in _DAMAGES
    ),
    Promise(
        "their folder can be written by all", "out", "the agent writes nothing into it"
    ),
    Promise("the disk is full while a reservation is released", "in",
            "what takes access away needs no space: it is blanked out of the access file"),
)  # fmt: skip

_ALL_SHUT = "sshd asks no other program"
GATES = (
    Promise("get-keys is replaced by root's own that gives out keys", "in",
            "pam-gate asks for a reservation too"),
    Promise("get-keys can be written by all", "in again", "sshd does not run it"),
    Promise("get-keys belongs to a user", "in again", "sshd does not run it"),
    Promise("get-keys is removed", "in again", _ALL_SHUT),
    Promise("get-keys is a folder", "in again", _ALL_SHUT),
    Promise("get-keys cannot be executed", "in again", _ALL_SHUT),
    Promise("get-keys is replaced by one that hangs", "in again", "sshd waits for its answer"),
    Promise("pam-gate is replaced by one that lets all in", "in",
            "get-keys asks for a reservation too"),
    Promise("pam-gate can be written by all", "in", "PAM does not mind; it is put right"),
    Promise("pam-gate is removed", "in again", "PAM refuses"),
    Promise("pam-gate is taken out of PAM's configuration", "in",
            "get-keys asks for a reservation too"),
    Promise("the account of get-keys is deleted", "out", "sshd cannot run it as nobody else"),
)  # fmt: skip

NETWORK = (
    Promise("it is cut while a release is on its way", "in",
            "the policy is on the node; the release takes effect when the network is back"),
)  # fmt: skip

# Everything on the node has ended with it: there are no sessions that could stay.
REBOOT = (
    Promise("the policy on it is valid", "in", "the gates need neither network nor agent"),
    Promise("the policy on it has expired", "out", "the server was away for days"),
)

CLOCK = (
    Promise("it is an hour slow", "in", "the agent goes by the server's clock"),
    Promise("it is an hour fast", "in", "the agent goes by the server's clock"),
)

# By the heading over the table in docs/failures.md.
TABLES = {
    "The booking server": SERVER,
    "The network": NETWORK,
    "The agent": AGENT,
    "What the agent keeps on the disk": FILES,
    "The two gates": GATES,
    "The node is started anew, before its network and its agent are up": REBOOT,
    "The node's clock": CLOCK,
}
