"""ServerSentinel's Prometheus exporters."""

__version__ = "0.1.0"
