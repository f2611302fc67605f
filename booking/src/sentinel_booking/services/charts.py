"""A node's charts: range data from Prometheus for a fixed list of queries. It draws nothing."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass

import requests
from sqlalchemy import select

from ..domain.charts import (
    CHARTS,
    MAX_SERIES,
    Window,
    chart_query,
    chart_window,
    on_grid,
    series_label,
    sort_key,
)
from ..errors import NotFound, Unavailable
from ..models import Node, db

log = logging.getLogger(__name__)

# Connecting, and each silence of the answer, in seconds. Prometheus is on our network.
_TIMEOUT_S = (2.0, 8.0)


@dataclass(frozen=True)
class ChartSeries:
    """One line; `values` has a value, or None, for each of the chart's times."""

    label: str
    values: list[float | None]


@dataclass(frozen=True)
class ChartData:
    """What uPlot draws: times in Unix seconds, and series of the same length.

    `unit` is "ratio" (0 to 1), "celsius", "watts", "bytes_per_second", "load" or
    "sessions".
    """

    chart: str
    unit: str
    times: list[int]
    series: list[ChartSeries]


def read_chart(prometheus_url: str, node: str, chart: str, minutes: int) -> ChartData:
    """Return the last `minutes` of one of the CHARTS. Who: anybody signed in.

    Raises NotFound for an unknown node or chart, and Unavailable when Prometheus is not
    configured or does not answer.
    """
    known = CHARTS.get(chart)
    if known is None:
        raise NotFound(f"There is no chart {chart}; there are: {', '.join(CHARTS)}.")
    found = db.session.scalar(
        select(Node.id).where(Node.name == node, Node.removed_at.is_(None))
    )
    # Prometheus may take seconds; the connection is for somebody else meanwhile.
    db.session.rollback()
    if found is None:
        raise NotFound(f"There is no node {node}.")
    if not prometheus_url:
        raise Unavailable("No Prometheus is configured (prometheus_url).")
    window = chart_window(time.time(), minutes)
    try:
        result = _decode(_ask(prometheus_url, chart_query(known, node, window), window))
    except (requests.RequestException, ValueError) as error:
        log.warning("chart failed chart=%s node=%s error=%s", chart, node, error)
        raise Unavailable("Prometheus does not answer as it should.") from error
    result.sort(key=lambda item: sort_key(item[0]))
    return ChartData(
        chart=chart,
        unit=known.unit,
        times=window.times,
        series=[
            ChartSeries(series_label(known, labels), on_grid(window, points))
            for labels, points in result[:MAX_SERIES]
        ],
    )


def _ask(prometheus_url: str, query: str, window: Window) -> object:
    with requests.Session() as http:
        # A proxy that the server's environment names is for the outside.
        http.trust_env = False
        answer = http.post(
            f"{prometheus_url.rstrip('/')}/api/v1/query_range",
            data={
                "query": query,
                "start": window.start,
                "end": window.end,
                "step": window.step_s,
                "timeout": f"{_TIMEOUT_S[1]:g}s",
            },
            timeout=_TIMEOUT_S,
            allow_redirects=False,
        )
    answer.raise_for_status()
    return json.loads(answer.content)


def _decode(document: object) -> list[tuple[dict[str, str], list[tuple[float, float]]]]:
    """Return labels and points (Unix seconds, value) of a query_range answer.

    Raises ValueError when it is not one. Prometheus writes values as text: "NaN" is one.
    """
    try:
        result = document["data"]["result"]  # type: ignore[index]  # refused just below
        return [
            (
                {str(name): str(value) for name, value in item["metric"].items()},
                [(float(at), float(value)) for at, value in item["values"]],
            )
            for item in result
        ]
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"not a matrix: {error!r}") from error
