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


class InstallError(AgentError):
    """The node was not installed, or not taken down; what was done so far stays recorded."""


class LockError(AgentError):
    """sshd was not brought to where it should be, and is as it was before.

    `step` names what failed, in the order of docs/architecture.md; `reason` says how.
    """

    def __init__(self, step: str, reason: str) -> None:
        super().__init__(f"{step}: {reason}")
        self.step = step
        self.reason = reason


class TaskDied(AgentError):
    """A thread of the agent's is gone, and only a new start brings it back."""


class InventoryError(AgentError):
    """The inventory command did not say what devices the node has."""


class PolicyRefused(AgentError):
    """A policy as a whole is unusable; the one held before stays in force."""


class ServerError(AgentError):
    """The booking server did not do what was asked.

    `is_permanent`: the same request will fail again until somebody changes something.
    `retry_after_s`: how long the server asked us to stay away, 0 when it did not say.
    `is_refused_token`: the token that was sent is unknown there, or was revoked.
    """

    def __init__(
        self,
        text: str,
        *,
        is_permanent: bool,
        retry_after_s: float = 0,
        is_refused_token: bool = False,
    ) -> None:
        super().__init__(text)
        self.is_permanent = is_permanent
        self.retry_after_s = retry_after_s
        self.is_refused_token = is_refused_token
