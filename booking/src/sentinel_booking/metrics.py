"""The series that booking exposes: its requests, and what services/gauges.py reads.

A series of the database is never made up: while the database fails, they are absent.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Iterator

from flask import Flask, Response, g, request, request_finished, request_started
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError

from . import __version__
from .models import db
from .services.gauges import Gauges, read_gauges

log = logging.getLogger(__name__)

# When a series began is of no use to anybody here, and doubles their number.
disable_created_metrics()  # type: ignore[no-untyped-call]

# Each process counts its own requests; in a server of several processes the sums come from
# the files in PROMETHEUS_MULTIPROC_DIR (see gunicorn_hooks.py).
_OWN = CollectorRegistry()
_REQUESTS = Counter(
    "sentinel_http_requests",
    "HTTP requests served.",
    ["method", "endpoint", "status"],
    registry=_OWN,
)
_DURATION = Histogram(
    "sentinel_http_request_duration_seconds",
    "Time to serve an HTTP request; a policy request includes its wait.",
    ["method", "endpoint"],
    registry=_OWN,
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
POLICY_WAITING = Gauge(
    "sentinel_policy_requests_waiting",
    "Policy requests that wait for a change.",
    registry=_OWN,
    multiprocess_mode="livesum",
)
POLICY_WAITS_REFUSED = Counter(
    "sentinel_policy_waits_refused",
    "Policy requests that were not let to wait, because max_policy_waiters did.",
    registry=_OWN,
)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def init_metrics(app: Flask) -> None:
    """Count every request, also those that a guard refuses."""
    request_started.connect(_on_start, app)
    request_finished.connect(_on_finish, app)


def expose(accept: str) -> tuple[bytes, str]:
    """Return all series in the format that `accept` asks for, and its content type.

    Needs an application context. While the database fails its series are left out and
    sentinel_database_up is 0.
    """
    registry = CollectorRegistry()
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    else:
        registry.register(_Ready(_OWN.collect()))
    registry.register(_Ready(_own_families()))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _Ready(Collector):
    """Families that were collected before anything is written."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        return self._families


def _on_start(_: Flask) -> None:
    g.sentinel_started = time.perf_counter()


def _on_finish(_: Flask, response: Response) -> None:
    # The rule's name and a known method: what a caller makes up must not become a series.
    method = request.method if request.method in _METHODS else "other"
    endpoint = request.endpoint or "none"
    _REQUESTS.labels(method, endpoint, str(response.status_code)).inc()
    started: float | None = g.get("sentinel_started")
    if started is not None:
        _DURATION.labels(method, endpoint).observe(time.perf_counter() - started)


def _own_families() -> Iterator[Metric]:
    yield _family(
        "sentinel_booking_build_info", "Version of booking.", ["version"], [((__version__,), 1)]
    )
    try:
        gauges = read_gauges()
    except SQLAlchemyError as error:
        db.session.rollback()
        log.error("gauges cannot be read error=%s", type(error).__name__)
        yield _family("sentinel_database_up", "Whether the database answers.", [], [((), 0)])
        return
    yield _family("sentinel_database_up", "Whether the database answers.", [], [((), 1)])
    yield from _database_families(gauges)


def _database_families(gauges: Gauges) -> Iterator[Metric]:
    yield _family(
        "sentinel_reservation_device",
        "1 for each device of a reservation that runs now.",
        ["node", "uuid", "user", "reservation"],
        [
            ((held.node, held.uuid, held.user, str(held.reservation)), 1)
            for held in gauges.held_devices
        ],
    )
    yield _family(
        "sentinel_reservation_node",
        "1 for each whole-node reservation that runs now.",
        ["node", "user", "reservation"],
        [((held.node, held.user, str(held.reservation)), 1) for held in gauges.held_nodes],
    )
    yield _family(
        "sentinel_node_monitored",
        "1 for each registered node that is missed when it is silent.",
        ["node"],
        [((node.name,), 1) for node in gauges.nodes if node.is_monitored],
    )
    yield _family(
        "sentinel_node_info",
        "Where a node belongs; mode is what operators have set.",
        ["node", "cluster", "mode", "address"],
        [((node.name, node.cluster, node.mode, node.address), 1) for node in gauges.nodes],
    )
    yield _family(
        "sentinel_node_heartbeat_age_seconds",
        "Time since the agent's last heartbeat.",
        ["node"],
        [
            ((node.name,), node.heartbeat_age_s)
            for node in gauges.nodes
            if node.heartbeat_age_s is not None
        ],
    )
    yield _family(
        "sentinel_node_clock_skew_seconds",
        "How far the server's clock was ahead of the node's at the last heartbeat.",
        ["node"],
        [
            ((node.name,), node.clock_skew_s)
            for node in gauges.nodes
            if node.clock_skew_s is not None
        ],
    )
    yield _family(
        "sentinel_node_locked",
        "Whether sshd's drop-in and the PAM gate are in place on the node.",
        ["node"],
        [((node.name,), node.is_locked) for node in gauges.nodes if node.is_locked is not None],
    )
    yield _family(
        "sentinel_node_unclean_holders",
        "Former holders whose processes outlived the limit of a handover.",
        ["node"],
        [
            ((node.name,), node.unclean_holders)
            for node in gauges.nodes
            if node.unclean_holders is not None
        ],
    )
    yield _family(
        "sentinel_node_token_cloned",
        "Whether two machines use the node's token.",
        ["node"],
        [((node.name,), node.is_cloned) for node in gauges.nodes if node.is_cloned is not None],
    )
    yield _family(
        "sentinel_devices",
        "Devices that the node reports.",
        ["node", "vendor"],
        list(gauges.devices.items()),
    )
    yield _family(
        "sentinel_users",
        "Active users.",
        ["role"],
        [((role,), count) for role, count in gauges.users.items()],
    )
    yield _family(
        "sentinel_reservations_running",
        "Reservations that run now.",
        [],
        [((), gauges.reservations_running)],
    )


def _family(
    name: str,
    documentation: str,
    labels: list[str],
    samples: Iterable[tuple[tuple[str, ...], float]],
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, documentation, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family
