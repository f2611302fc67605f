"""The expected failures of the exporters. Turning them into output is for runner and cli."""

from __future__ import annotations


class ExporterError(Exception):
    """Base of all failures that an operator can understand and act on."""


class ConfigError(ExporterError):
    """The configuration cannot be used; the message names every problem, one on a line."""


class ContractError(ExporterError):
    """A collector module breaks the contract in core.py; the message says how."""


class CollectorError(ExporterError):
    """A source gave nothing usable; the message says why, without secrets.

    It is logged and shown on the landing page, and the run counts as failed.
    """


class BadTarget(CollectorError):
    """A probe was asked for a target or module that it does not know; becomes HTTP 400."""
