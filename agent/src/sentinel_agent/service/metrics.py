"""The agent's own series. docs/metrics.md lists them; it measures nothing itself."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from .. import __version__
from ..policy.held import HeldPolicy
from .status import Status


class Watched(Protocol):
    """A task's thread, as far as it is measured."""

    @property
    def name(self) -> str:
        """The task's name."""

    @property
    def is_stuck(self) -> bool:
        """Say whether its step hangs."""


class Metrics:
    """The counters that the tasks raise, and the registry that has all series."""

    def __init__(self, held: HeldPolicy, status: Status) -> None:
        self.registry = CollectorRegistry()
        self.sessions_ended = Counter(
            "sentinel_agent_sessions_ended",
            "SSH connections ended because their user had no running reservation.",
            registry=self.registry,
        )
        self.users_ended = Counter(
            "sentinel_agent_users_ended",
            "Times that all processes of a user were ended.",
            registry=self.registry,
        )
        self.warnings = Counter(
            "sentinel_agent_warnings",
            "Warnings about the end of access that at least one terminal took.",
            registry=self.registry,
        )
        self.card_repairs = Counter(
            "sentinel_agent_card_repairs",
            "Device files of cards that were not as the agent had set them.",
            registry=self.registry,
        )
        self.card_holders_ended = Counter(
            "sentinel_agent_card_holders_ended",
            "Processes ended because they had a card open that their user had not booked.",
            registry=self.registry,
        )
        self.logins = Counter(
            "sentinel_agent_logins",
            "Answers that the two gates of a login gave.",
            ["result", "gate"],
            registry=self.registry,
        )
        # get-keys reports no keys that it gave: pam-gate knows whether they opened anything.
        for result, gate in (("granted", "pam"), ("refused", "pam"), ("refused", "keys")):
            self.logins.labels(result, gate)
        self.task_errors = Counter(
            "sentinel_agent_task_errors",
            "Times that a task of the agent failed.",
            ["task"],
            registry=self.registry,
        )
        self._gauges = _Gauges(held, status)
        self.registry.register(self._gauges)

    def watch(self, runners: Sequence[Watched]) -> None:
        """Measure these threads too."""
        self._gauges.runners = runners


class _Gauges(Collector):
    """Reads the present state at each scrape; what is not known has no sample."""

    def __init__(self, held: HeldPolicy, status: Status) -> None:
        self._held = held
        self._status = status
        self.runners: Sequence[Watched] = ()

    def collect(self) -> Iterable[Metric]:
        """Return the gauges."""
        status, policy = self._status, self._held.policy
        build = GaugeMetricFamily("sentinel_agent_build_info", "Always 1.", labels=["version"])
        build.add_metric([__version__], 1)
        yield build
        yield GaugeMetricFamily(
            "sentinel_agent_enforcing",
            "1 when sessions are ended, 0 when it is only reported what would be done.",
            value=status.mode == "enforce",
        )
        if policy is not None:
            yield GaugeMetricFamily(
                "sentinel_agent_policy_version", "Version of the policy in force.",
                value=policy.version,
            )  # fmt: skip
            yield GaugeMetricFamily(
                "sentinel_agent_policy_expires_timestamp_seconds",
                "When the policy in force stops opening sessions.",
                value=policy.expires_at.timestamp(),
            )
        if status.policy_confirmed_monotonic_s is not None:
            yield GaugeMetricFamily(
                "sentinel_agent_policy_age_seconds",
                "Since the server last said what the policy is.",
                value=time.monotonic() - status.policy_confirmed_monotonic_s,
            )
        if status.last_heartbeat_at is not None:
            yield GaugeMetricFamily(
                "sentinel_agent_last_heartbeat_timestamp_seconds",
                "When the server last took a heartbeat.",
                value=status.last_heartbeat_at,
            )
        if status.clock_skew_s is not None:
            yield GaugeMetricFamily(
                "sentinel_agent_clock_skew_seconds",
                "The server's clock less this node's.",
                value=status.clock_skew_s,
            )
        yield GaugeMetricFamily(
            "sentinel_agent_connections",
            "SSH connections of all users but the system's, with or without a terminal.",
            value=sum(status.sessions.values()),
        )
        if status.lock is not None:
            yield GaugeMetricFamily(
                "sentinel_agent_locked",
                "1 when sshd's drop-in and the PAM gate are in place, 0 when one is not.",
                value=status.lock == "locked",
            )
        if status.round_seconds is not None and status.reconciled_monotonic_s is not None:
            yield GaugeMetricFamily(
                "sentinel_agent_round_duration_seconds",
                "How long the last look at all sessions took, with what was done about it.",
                value=status.round_seconds,
            )
            yield GaugeMetricFamily(
                "sentinel_agent_round_age_seconds",
                "Since the last look at all sessions was over.",
                value=time.monotonic() - status.reconciled_monotonic_s,
            )
        yield GaugeMetricFamily(
            "sentinel_agent_handovers_waiting",
            "Reservations that have begun and wait for a former holder's processes.",
            value=status.waiting,
        )
        yield GaugeMetricFamily(
            "sentinel_agent_handovers_overdue",
            "Reservations that the limit opened while a former holder's processes still run.",
            value=status.overdue,
        )
        yield from self._collect_tasks()

    def _collect_tasks(self) -> Iterable[Metric]:
        status = self._status
        failed = GaugeMetricFamily(
            "sentinel_agent_last_error_timestamp_seconds", "When a task failed last.",
            labels=["task"],
        )  # fmt: skip
        for task, at in status.last_errors().items():
            failed.add_metric([task], at)
        yield failed
        stuck = GaugeMetricFamily(
            "sentinel_agent_task_stuck", "1 when a task hangs, else 0.", labels=["task"]
        )
        for runner in self.runners:
            stuck.add_metric([runner.name], runner.is_stuck)
        yield stuck
        problems = GaugeMetricFamily(
            "sentinel_agent_problems", "Problems that a task reports now.", labels=["task"]
        )
        for task, count in status.problem_counts().items():
            problems.add_metric([task], count)
        yield problems
