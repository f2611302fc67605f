"""The token that the agent speaks with, and its exchange for a new one from time to time.

It says nothing else to the server.

A new token is on the disk before it is used, with the one before it, and the server takes both
until the new one is used: whenever the agent is killed, it can speak afterwards. The one before
is kept: the server knows it, and not the new one, after an older backup was restored.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import replace
from pathlib import Path

from ..config import Config
from ..errors import StateError
from ..service.tasks import BACKOFF_MAX_S, Step, jitter
from ..sessions.plan import utc
from .client import BookingClient
from .enrolment import try_to_write
from .registration import Registration, store_registration

log = logging.getLogger(__name__)

DAY_S = 24 * 3600.0
# How often it is looked whether the token is due.
LOOK_S = 3600.0


class HeldToken:
    """The node's token, shared by the agent's threads; an exchanged one is kept in its file."""

    def __init__(self, state_dir: Path, registration: Registration) -> None:
        self._state_dir = state_dir
        self._registration = registration
        self._lock = threading.Lock()

    def current(self) -> str:
        """Return the token to use now."""
        return self._registration.token

    def since_s(self) -> float:
        """Return when it was given, in seconds since 1970."""
        held = self._registration
        return (held.token_since or held.registered_at).timestamp()

    def alternative(self, refused: str) -> str | None:
        """Return the token to try when `refused` was: the other one of the two last."""
        held = self._registration
        other = held.token if held.token != refused else held.previous_token
        return other or None

    def exchange(self, token: str) -> None:
        """Keep a new token, and use it from now on. Raises StateError and uses the old one."""
        with self._lock:
            held = self._registration
            self._keep(
                replace(
                    held,
                    token=token,
                    token_since=utc(time.time()),
                    previous_token=held.token,
                )
            )

    def prefer(self, token: str) -> None:
        """Use this one of the two last; also when it cannot be written down."""
        with self._lock:
            held = self._registration
            if token != held.previous_token or token == held.token:
                return
            # Its age stays unknown: it is exchanged soon.
            turned = replace(
                held,
                token=token,
                token_since=utc(0),
                previous_token=held.token,
            )
            self._registration = turned
            log.warning("token taken back node=%s", held.node)
            try:
                self._keep(turned)
            except StateError as error:
                log.error("token not written reason=%s", error)

    def _keep(self, registration: Registration) -> None:
        store_registration(self._state_dir, registration)
        self._registration = registration


class TokenTask:
    """Exchanges the token every `token_days` days."""

    name = "token"
    retry_max_s = BACKOFF_MAX_S

    def __init__(self, config: Config, client: BookingClient, held: HeldToken) -> None:
        self._config = config
        self._client = client
        self._held = held

    def step(self) -> Step:
        """Exchange it if it is due. Raises ServerError, StateError."""
        # A time that lies ahead is another clock's, and says nothing.
        age_s = abs(time.time() - self._held.since_s())
        if self._config.token_days == 0 or age_s < self._config.token_days * DAY_S:
            return Step(jitter(LOOK_S))
        # A token that cannot be kept is not asked for.
        try_to_write(self._config.state_dir)
        self._held.exchange(self._client.issue_token())
        log.info("token exchanged")
        return Step(jitter(LOOK_S))
