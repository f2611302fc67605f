"""Service discovery: what Prometheus is told to scrape."""

from __future__ import annotations

from pathlib import Path

import pytest
from apiflask import APIFlask
from werkzeug.test import TestResponse

from sentinel_booking.domain.targets import is_host, is_job, is_node_name, join_host_port
from sentinel_booking.models import db
from tests.booking.lab import SCRAPE, WEBHOOK, add_agent, add_node, nvidia


def ask(app: APIFlask, job: str, headers: dict[str, str] = SCRAPE) -> TestResponse:
    return app.test_client().get(f"/sd/{job}", headers=headers)


def test_a_target_has_the_nodes_labels_as_text(app: APIFlask) -> None:
    agent = add_agent(app, cluster="room-2", tags=["a", "b"])
    agent.report([], [{"job": "node", "port": 9100}, {"job": "sentinel", "port": 9641}])
    answer = ask(app, "sentinel")
    assert answer.mimetype == "application/json"
    assert answer.get_json() == [
        {
            "targets": ["10.0.0.7:9641"],
            "labels": {"node": "gpu1", "cluster": "room-2", "tags": ",a,b,"},
        }
    ]


def test_what_a_node_does_not_have_is_left_out(app: APIFlask) -> None:
    add_agent(app).report([], [{"job": "node", "port": 9100}])
    assert ask(app, "node").get_json()[0]["labels"] == {"node": "gpu1"}


def test_a_target_comes_and_goes_with_the_agents_report(app: APIFlask) -> None:
    agent = add_agent(app)
    for targets, found in (
        ([{"job": "node", "port": 9100}], ["10.0.0.7:9100"]),
        ([{"job": "node", "port": 9101}], ["10.0.0.7:9101"]),
        ([], []),
    ):
        agent.report([nvidia(0)], targets)
        groups = ask(app, "node").get_json()
        assert [target for group in groups for target in group["targets"]] == found


def test_a_bmc_is_a_target_before_its_node_has_an_agent(app: APIFlask) -> None:
    add_node(app, "gpu2", bmc_address="10.9.0.2")
    add_node(app, "gpu1", bmc_address="bmc-1.lab")
    add_node(app, "gpu3")
    assert ask(app, "ipmi").get_json() == [
        {"targets": ["bmc-1.lab"], "labels": {"node": "gpu1"}},
        {"targets": ["10.9.0.2"], "labels": {"node": "gpu2"}},
    ]


def test_a_job_that_nobody_has_is_empty_and_an_impossible_one_is_not_found(
    app: APIFlask,
) -> None:
    assert ask(app, "dcgm").get_json() == []
    for job in ("Node", "a b", "a.b", "-a", "x" * 64, "%00"):
        assert ask(app, job).status_code in (400, 404), job


def test_only_the_scrape_token_opens_it(app: APIFlask) -> None:
    agent = add_agent(app)
    refused: list[dict[str, str]] = [{}, WEBHOOK, agent.headers]
    for headers in refused:
        answer = ask(app, "node", headers)
        assert answer.status_code == 401
        assert answer.mimetype == "application/problem+json"
    # Prometheus without `type: Bearer` sends the bare token.
    bare = {"Authorization": SCRAPE["Authorization"].removeprefix("Bearer ")}
    assert ask(app, "node", bare).status_code == 401


def test_a_database_that_fails_is_no_empty_list(app: APIFlask) -> None:
    add_agent(app).report([], [{"job": "node", "port": 9100}])
    with app.app_context(), db.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE nodes RENAME TO gone")
    answer = ask(app, "node")
    assert answer.status_code == 503
    assert answer.mimetype == "application/problem+json"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_database_that_is_gone_is_no_empty_list(app: APIFlask, tmp_path: Path) -> None:
    with app.app_context():
        db.engine.dispose()
    for file in tmp_path.glob("booking.db*"):
        file.unlink()
    (tmp_path / "booking.db").write_bytes(b"this is no database" * 100)
    assert ask(app, "node").status_code == 503


def test_hosts_are_names_and_addresses_and_nothing_else() -> None:
    good = ["10.0.0.7", "fd00::7", "gpu1", "gpu-1.lab.example", "1node", "a_b"]
    bad = ["", "10.0.0.300", "a b", "a/b", "a:1", "[::1]", "fe80::1%eth0", "-a", "a..b", "é"]
    assert [host for host in good if not is_host(host)] == []
    assert [host for host in bad if is_host(host)] == []
    assert not is_host("a" * 64)
    assert not is_host(".".join(["a" * 60] * 5))


def test_names_end_where_they_end() -> None:
    assert is_node_name("gpu1")
    assert not is_node_name("gpu1\n")
    assert not is_job("node\n")
    assert not is_host("gpu1\n")


def test_an_ipv6_address_gets_brackets() -> None:
    assert join_host_port("fd00::7", 9100) == "[fd00::7]:9100"
    assert join_host_port("gpu1", 9100) == "gpu1:9100"
