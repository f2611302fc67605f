"""What the agent does over and over, one class each: ask, report, list, enforce.

A task does one step and says when the next is due; daemon.py runs them.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Protocol

from .. import __version__
from ..config import Config
from ..errors import StateError
from ..policy.clock import Intake
from ..policy.held import HeldPolicy
from ..policy.model import decode, format_time
from ..server.client import BookingClient
from ..server.inventory import is_shrunken, read_inventory
from ..sessions.doors import Doorkeeper
from ..sessions.enforcement import Enforcement
from .status import Status

log = logging.getLogger(__name__)

# A server that lets nobody wait, and does not say so, must not be asked without end; where one
# booking follows another, the second must not wait for that.
POLICY_PAUSE_MIN_S = 1.0
POLICY_CHANGED_PAUSE_S = 0.1
INVENTORY_RESEND_S = 900.0
# As booking's HeartbeatIn.
SESSIONS_MAX = 1000
UNCLEAN_MAX = 100
SKEW_PROBLEM_S = 30.0
CLOCK_LOOK_S = 1.0
BACKOFF_MAX_S = 60.0
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Step:
    """A step that worked: when the next is due, and what it found wrong."""

    pause_s: float
    problems: tuple[str, ...] = ()


class Task(Protocol):
    """Something done over and over; `retry_max_s` bounds the pause after failures."""

    name: str
    retry_max_s: float

    def step(self) -> Step:
        """Do it once. Whatever it raises is logged, reported and tried again."""


class PolicyTask:
    """Waits for a new policy and puts it in force."""

    name = "policy"
    retry_max_s = BACKOFF_MAX_S

    def __init__(
        self,
        config: Config,
        client: BookingClient,
        keeper: Doorkeeper | Intake,
        status: Status,
        enforce_now: Callable[[], None],
    ) -> None:
        self._config = config
        self._client = client
        self._keeper = keeper
        self._status = status
        self._enforce_now = enforce_now
        self._etag = ""
        self._version: int | None = None
        self._problems: tuple[str, ...] = ()

    def step(self) -> Step:
        """Ask once. Raises ServerError, PolicyRefused."""
        asked = time.monotonic()
        wait_s = self._config.policy_wait_s
        answer = self._client.get_policy(self._etag, wait_s if self._etag else 0)
        took_s = time.monotonic() - asked
        pause_min_s = POLICY_PAUSE_MIN_S
        if answer.is_new:
            policy, problems = decode(answer.document)
            if policy.version != self._version:
                pause_min_s = POLICY_CHANGED_PAUSE_S
            self._version = policy.version
            try:
                self._keeper.take(policy)
            except StateError as error:
                # It holds for open sessions, and the enforcing task writes it again.
                log.error("policy not written version=%d reason=%s", policy.version, error)
            self._enforce_now()
            self._etag = answer.etag
            self._problems = tuple(problems)
        self._status.policy_confirmed_monotonic_s = time.monotonic()
        pause_s = max(answer.retry_after_s, pause_min_s - took_s, 0.0)
        return Step(jitter(pause_s), self._problems)


class HeartbeatTask:
    """Tells the server that the node lives, and what is wrong with it."""

    name = "heartbeat"

    def __init__(
        self, config: Config, client: BookingClient, held: HeldPolicy, status: Status
    ) -> None:
        self.retry_max_s = config.heartbeat_s
        self._config = config
        self._client = client
        self._held = held
        self._status = status

    def step(self) -> Step:
        """Report once. Raises ServerError."""
        policy = self._held.policy
        sent_at, sent_s = time.time(), time.monotonic()
        server_time = self._client.heartbeat(
            {
                "agent_version": __version__,
                "sent_at": format_time(datetime.fromtimestamp(sent_at, UTC)),
                "boot_id": BOOT_ID.read_text().strip(),
                "mode": self._status.mode,
                "policy_version": policy.version if policy else None,
                "sessions": dict(islice(self._status.sessions.items(), SESSIONS_MAX)),
                "problems": self._status.problems(),
                "unclean": list(self._status.unclean[:UNCLEAN_MAX]),
            }
            | ({"lock": self._status.lock} if self._status.lock else {})
        )
        round_trip_s = time.monotonic() - sent_s
        self._status.clock.hear(server_time.timestamp(), round_trip_s)
        received_at = time.time()
        self._status.last_heartbeat_at = received_at
        skew_s = server_time.timestamp() + round_trip_s / 2 - received_at
        self._status.clock_skew_s = skew_s
        problems: tuple[str, ...] = ()
        if abs(skew_s) > SKEW_PROBLEM_S:
            problems = (f"the clock is {-skew_s:+.0f} s off the server's",)
        return Step(jitter(self._config.heartbeat_s), problems)


class ClockTask:
    """Looks whether this node's clock or the server's was set."""

    name = "clock"
    retry_max_s = BACKOFF_MAX_S

    def __init__(self, intake: Intake, enforce_now: Callable[[], None]) -> None:
        self._intake = intake
        self._enforce_now = enforce_now

    def step(self) -> Step:
        """Look once. Raises PolicyRefused, StateError."""
        try:
            if self._intake.follow():
                self._enforce_now()
        except StateError:
            self._enforce_now()
            raise
        return Step(CLOCK_LOOK_S)


class InventoryTask:
    """Tells the server which devices and targets the node has."""

    name = "inventory"

    def __init__(self, config: Config, client: BookingClient) -> None:
        self.retry_max_s = max(BACKOFF_MAX_S, config.inventory_s)
        self._config = config
        self._client = client
        self._sent: object = None
        self._sent_uuids: tuple[str, ...] = ()
        self._sent_monotonic_s = 0.0

    def step(self) -> Step:
        """Read once, and send what changed. Raises InventoryError, ServerError."""
        config = self._config
        found = read_inventory(config.inventory_command, config.inventory_timeout_s)
        devices = [device.model_dump() for device in found.devices]
        is_due = time.monotonic() - self._sent_monotonic_s >= INVENTORY_RESEND_S
        if is_shrunken(found, self._sent_uuids):
            log.warning("inventory not sent: devices are out of sight count=%d", len(devices))
        elif devices != self._sent or is_due:
            self._client.put_inventory(devices, config.all_targets)
            self._sent = devices
            self._sent_uuids = tuple(device.uuid for device in found.devices)
            self._sent_monotonic_s = time.monotonic()
            log.info("inventory sent devices=%d", len(devices))
        return Step(jitter(config.inventory_s), found.problems)


class EnforceTask:
    """Holds the lock for the sessions that are open."""

    name = "enforce"

    def __init__(self, config: Config, enforcement: Enforcement) -> None:
        self.retry_max_s = config.reconcile_s
        self._enforcement = enforcement

    def step(self) -> Step:
        """Do one round."""
        done = self._enforcement.step()
        return Step(done.pause_s, done.problems)


class FilesTask:
    """Writes what the gates read, and what the agent remembers of former holders."""

    name = "files"

    def __init__(self, config: Config, keeper: Doorkeeper) -> None:
        self.retry_max_s = config.reconcile_s
        self._config = config
        self._keeper = keeper

    def step(self) -> Step:
        """Write what is not on the disk yet, and anew what somebody else changed there."""
        return Step(self._config.reconcile_s, tuple(self._keeper.write()))


def jitter(seconds: float) -> float:
    """Return about so many seconds: nodes started together must not stay in step."""
    return seconds * random.uniform(0.9, 1.1)  # noqa: S311  no secret


def backoff_s(failures: int, max_s: float) -> float:
    """Return the pause after so many failures in a row; half of it is random."""
    full = min(max_s, 2.0 ** min(failures, 16))
    return full * random.uniform(0.5, 1.0)  # noqa: S311  no secret
