"""ServerSentinel's booking server: reservations, SSH-key policy, Prometheus targets."""

__version__ = "0.1.0"
