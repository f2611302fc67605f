"""What can go wrong in the agent, as exceptions. It handles nothing."""

from __future__ import annotations


class AgentError(Exception):
    """Base of everything that the agent raises on purpose; its text is for the operator."""


class ConfigError(AgentError):
    """The settings are unusable; the text has one problem on each line."""


class NotRegistered(AgentError):
    """The node has no token for the booking server yet."""


class StateError(AgentError):
    """A file of the agent's own cannot be read or written."""


class InventoryError(AgentError):
    """The inventory command did not say what devices the node has."""


class PolicyRefused(AgentError):
    """A policy as a whole is unusable; the one held before stays in force."""


class ServerError(AgentError):
    """The booking server did not do what was asked.

    `is_permanent`: the same request will fail again until somebody changes something.
    `retry_after_s`: how long the server asked us to stay away, 0 when it did not say.
    """

    def __init__(self, text: str, *, is_permanent: bool, retry_after_s: float = 0) -> None:
        super().__init__(text)
        self.is_permanent = is_permanent
        self.retry_after_s = retry_after_s
