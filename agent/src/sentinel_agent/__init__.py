"""ServerSentinel's agent: the booking's lock on a node."""

__version__ = "0.1.0"
