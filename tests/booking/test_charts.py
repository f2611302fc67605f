"""A node's charts: what is asked of Prometheus, and what is made of its answer."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from apiflask import APIFlask

from sentinel_booking.app import create_app
from sentinel_booking.config import Config
from sentinel_booking.domain.charts import (
    CHARTS,
    MAX_MINUTES,
    MAX_POINTS,
    MIN_MINUTES,
    Window,
    chart_query,
    chart_window,
    escape_label_value,
    on_grid,
    series_label,
    sort_key,
)
from sentinel_booking.models import Role
from tests.booking.lab import add_node
from tests.booking.people import Person, add_person
from tests.booking.programs import free_port


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """One kind of database is enough: charts only look up a name there."""
    return f"sqlite:///{tmp_path / 'booking.db'}"


class Answering(http.server.ThreadingHTTPServer):
    """A Prometheus that says what the test wants; the real one is in test_servers.py.

    Without a body it answers with four_points() of what was asked.
    """

    def __init__(self, status: int, body: bytes | None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status, self.body = status, body
        self.asked: list[dict[str, str]] = []


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server = self.server
        assert isinstance(server, Answering)
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        server.asked.append({name: values[0] for name, values in parse_qs(text).items()})
        body = server.body if server.body is not None else four_points(server.asked[-1])
        self.send_response(server.status)
        self.send_header("Location", "http://127.0.0.1:9/elsewhere")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""


@contextmanager
def prometheus(body: object = None) -> Iterator[Answering]:
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    server = Answering(200, data)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def matrix(*series: object) -> dict[str, object]:
    return {"status": "success", "data": {"resultType": "matrix", "result": list(series)}}


def four_points(asked: dict[str, str]) -> bytes:
    """A number at the first and the last time but one, and no number beside them."""
    start, end, step = (int(asked[name]) for name in ("start", "end", "step"))
    points = [[start, "0.5"], [start + step, "NaN"], [end - step, "2"], [end, "+Inf"]]
    return json.dumps(matrix({"metric": {"node": "gpu1"}, "values": points})).encode()


def reader(config: Config, app: APIFlask, url: str) -> Person:
    """Somebody who looks at charts of a server that uses this Prometheus."""
    add_node(app, "gpu1")
    other = create_app(config.model_copy(update={"prometheus_url": url}))
    return add_person(other, "rita", Role.READONLY)


def test_values_lie_on_the_times_and_gaps_are_null(app: APIFlask, config: Config) -> None:
    with prometheus() as server:
        rita = reader(config, app, f"http://127.0.0.1:{server.server_port}/")
        chart = rita.call("GET", "/api/nodes/gpu1/charts/cpu-load?minutes=5").get_json()
    assert (chart["chart"], chart["unit"]) == ("cpu-load", "load")
    assert chart["times"][0] == int(server.asked[0]["start"])
    assert chart["times"][-1] == int(server.asked[0]["end"])
    (series,) = chart["series"]
    assert series["label"] == "load 1m"
    gap = [None] * (len(chart["times"]) - 3)
    assert series["values"] == [0.5, *gap, 2, None]


def test_devices_come_in_the_order_people_count(app: APIFlask, config: Config) -> None:
    series = [
        {"metric": {"vendor": "nvidia", "index": index, "uuid": f"GPU-{index}"}, "values": []}
        for index in ("10", "9", "0")
    ]
    with prometheus(matrix(*series)) as server:
        rita = reader(config, app, f"http://127.0.0.1:{server.server_port}")
        chart = rita.call("GET", "/api/nodes/gpu1/charts/accelerator-power").get_json()
        assert [line["label"] for line in chart["series"]] == [
            "nvidia 0",
            "nvidia 9",
            "nvidia 10",
        ]
        assert 'accelerator_power_watts{node="gpu1"}' in server.asked[0]["query"]


def test_a_prometheus_that_fails_is_unavailable(app: APIFlask, config: Config) -> None:
    not_matrix = {"status": "success", "data": {"resultType": "matrix", "result": [1]}}
    bad_value = matrix({"metric": {}, "values": [["x", "1"]]})
    answers: list[tuple[object, int]] = [
        ({"status": "error"}, 422),
        (b"", 500),
        (b"", 302),
        (b"<html>", 200),
        ([], 200),
        ({"data": None}, 200),
        (not_matrix, 200),
        (bad_value, 200),
    ]
    with prometheus(b"") as server:
        rita = reader(config, app, f"http://127.0.0.1:{server.server_port}")
        for body, status in answers:
            server.body = body if isinstance(body, bytes) else json.dumps(body).encode()
            server.status = status
            answer = rita.call("GET", "/api/nodes/gpu1/charts/memory")
            assert answer.status_code == 503, body
            assert answer.mimetype == "application/problem+json"


def test_no_prometheus_is_unavailable(app: APIFlask, config: Config) -> None:
    rita = reader(config, app, f"http://127.0.0.1:{free_port()}")
    assert rita.call("GET", "/api/nodes/gpu1/charts/memory").status_code == 503
    unset = Person(app, rita.name, rita.id, rita.access_token, rita.refresh_token)
    assert unset.call("GET", "/api/nodes/gpu1/charts/memory").status_code == 503


def test_what_is_no_chart_is_refused(app: APIFlask, config: Config) -> None:
    with prometheus(matrix()) as server:
        rita = reader(config, app, f"http://127.0.0.1:{server.server_port}")
        for path, status in (
            ("gpu1/charts/up", 404),
            ("gpu9/charts/memory", 404),
            ('gpu1"}/charts/memory', 404),
            ("gpu1/charts/memory?minutes=4", 422),
            ("gpu1/charts/memory?minutes=43201", 422),
            ("gpu1/charts/memory?minutes=x", 422),
            ("gpu1/charts/memory?query=up", 422),
        ):
            assert rita.call("GET", f"/api/nodes/{path}").status_code == status, path
        assert server.asked == []
        assert app.test_client().get("/api/nodes/gpu1/charts/memory").status_code == 401


def test_a_window_is_aligned_and_bounded() -> None:
    for minutes in (MIN_MINUTES, 60, 61, 1440, MAX_MINUTES):
        window = chart_window(1_700_000_123.4, minutes)
        assert len(window.times) <= MAX_POINTS + 1
        assert window.end % window.step_s == window.start % window.step_s == 0
        assert 0 <= 1_700_000_123 - window.end < window.step_s
        assert minutes * 60 - window.step_s < window.end - window.start <= minutes * 60


def test_the_window_stands_still_within_a_step() -> None:
    first = chart_window(1_700_000_100, 60)
    assert chart_window(1_700_000_100 + first.step_s - 1, 60) == first


def test_every_query_names_its_node_and_leaves_no_blank() -> None:
    window = Window(0, 600, 15)
    for name, chart in CHARTS.items():
        query = chart_query(chart, "gpu1", window)
        assert 'node="gpu1"' in query, name
        assert "{node}" not in query, name
        assert "{node," not in query, name
        assert "{window}" not in query, name


def test_a_label_value_cannot_end_its_quotes() -> None:
    assert escape_label_value('a"b\\c\nd') == 'a\\"b\\\\c\\nd'


def test_a_series_is_called_by_its_labels() -> None:
    assert series_label(CHARTS["network"], {"device": "eth0", "way": "in"}) == "eth0 in"
    assert series_label(CHARTS["ssh-sessions"], {"user": "alice"}) == "alice"


def test_strange_indexes_are_sorted_too() -> None:
    labels: list[dict[str, str]] = [{"index": "²"}, {}, {"index": "x"}, {"index": "2"}]
    assert len(sorted(labels, key=sort_key)) == 4


def test_points_off_the_grid_are_left_out() -> None:
    assert on_grid(Window(0, 30, 15), [(0.0, 1.0), (7.0, 2.0), (30.0, float("nan"))]) == [
        1.0,
        None,
        None,
    ]
