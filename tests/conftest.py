"""Hypothesis as all tests have it. Has no fixtures: those are with the tests."""

from __future__ import annotations

from hypothesis import settings

# Its limit of time for one example is passed now and then where other tests run beside it.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")
