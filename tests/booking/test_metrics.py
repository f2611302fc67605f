"""Booking's own series."""

from __future__ import annotations

import re
from pathlib import Path

from apiflask import APIFlask
from prometheus_client.parser import text_string_to_metric_families

from sentinel_booking.models import Kind, Role, db
from tests.booking.lab import (
    HOUR,
    SCRAPE,
    WEBHOOK,
    add_agent,
    add_node,
    ascend,
    heartbeat,
    nvidia,
    register,
    reserve,
)
from tests.booking.people import add_user

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"

Samples = dict[str, dict[tuple[str, ...], float]]


def scrape(app: APIFlask) -> Samples:
    """Every sample by name and label values, those in order of the labels' names."""
    answer = app.test_client().get("/metrics", headers=SCRAPE)
    assert answer.status_code == 200
    found: Samples = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            values = tuple(value for _, value in sorted(sample.labels.items()))
            found.setdefault(sample.name, {})[values] = sample.value
    return found


def families(app: APIFlask) -> dict[str, set[str]]:
    """Names as they are queried, with the labels of their samples."""
    answer = app.test_client().get("/metrics", headers=SCRAPE)
    return {
        family.name + ("_total" if family.type == "counter" else ""): {
            label for sample in family.samples for label in sample.labels if label != "le"
        }
        for family in text_string_to_metric_families(answer.text)
    }


def test_each_device_of_what_runs_has_a_series(app: APIFlask) -> None:
    agent = add_agent(app)
    agent.report([nvidia(0), nvidia(1), nvidia(2)])
    alice, otto = add_user(app, "alice"), add_user(app, "otto", Role.OPERATOR)
    cards = reserve(app, alice, slots=[0, 2])
    work = reserve(app, otto, slots=[1], kind=Kind.MAINTENANCE)
    reserve(app, alice, slots=[1], starts=2 * HOUR, ends=3 * HOUR)
    found = scrape(app)
    assert found["sentinel_reservation_device"] == {
        ("gpu1", str(cards), "alice", "GPU-0"): 1,
        ("gpu1", str(cards), "alice", "GPU-2"): 1,
        ("gpu1", str(work), "otto", "GPU-1"): 1,
    }
    assert "sentinel_reservation_node" not in found
    assert found["sentinel_reservations_running"] == {(): 2}


def test_a_whole_node_has_its_series_and_one_for_each_device_there(app: APIFlask) -> None:
    agent = add_agent(app)
    agent.report([nvidia(0), nvidia(1)])
    agent.report([nvidia(1)])
    number = reserve(app, add_user(app, "alice"))
    found = scrape(app)
    assert found["sentinel_reservation_node"] == {("gpu1", str(number), "alice"): 1}
    assert found["sentinel_reservation_device"] == {("gpu1", str(number), "alice", "GPU-1"): 1}


def test_a_booked_card_that_vanishes_stays_booked(app: APIFlask) -> None:
    agent = add_agent(app)
    agent.report([nvidia(0)])
    number = reserve(app, add_user(app, "alice"), slots=[0])
    agent.report([])
    found = scrape(app)
    assert found["sentinel_reservation_device"] == {("gpu1", str(number), "alice", "GPU-0"): 1}
    assert found["sentinel_devices"] == {("gpu1", "nvidia"): 0}


def test_nodes_say_where_they_belong_and_how_they_fare(app: APIFlask) -> None:
    agent = add_agent(app, "gpu1", cluster="room-2", mode="enforce")
    agent.report([nvidia(0), ascend(0), ascend(1)])
    agent.call("POST", "/heartbeat", json=heartbeat(lock="locked", unclean=["bob"]))
    add_agent(app, "away", is_monitored=False)
    add_node(app, "new")
    found = scrape(app)
    assert found["sentinel_node_info"] == {
        ("10.0.0.7", "room-2", "enforce", "gpu1"): 1,
        ("10.0.0.7", "", "observe", "away"): 1,
        ("", "", "observe", "new"): 1,
    }
    assert found["sentinel_node_monitored"] == {("gpu1",): 1}
    assert found["sentinel_devices"] == {("gpu1", "nvidia"): 1, ("gpu1", "ascend"): 2}
    assert found["sentinel_node_locked"] == {("gpu1",): 1}
    assert found["sentinel_node_unclean_holders"] == {("gpu1",): 1}
    assert found["sentinel_node_token_cloned"] == {("gpu1",): 0, ("away",): 0}
    for name in ("sentinel_node_heartbeat_age_seconds", "sentinel_node_clock_skew_seconds"):
        assert set(found[name]) == {("gpu1",)}
        assert abs(found[name]["gpu1",]) < 60


def test_a_lock_that_is_not_whole_is_none_and_one_that_is_not_told_has_no_series(
    app: APIFlask,
) -> None:
    agent = add_agent(app)
    for said, expected in (("partial", 0), ("open", 0), ("locked", 1)):
        agent.call("POST", "/heartbeat", json=heartbeat(lock=said, unclean=[]))
        found = scrape(app)
        assert found["sentinel_node_locked"] == {("gpu1",): expected}
        assert found["sentinel_node_unclean_holders"] == {("gpu1",): 0}
    agent.call("POST", "/heartbeat", json=heartbeat())
    found = scrape(app)
    assert "sentinel_node_locked" not in found
    assert "sentinel_node_unclean_holders" not in found


def test_a_copied_disk_has_a_series_until_the_node_registers_anew(app: APIFlask) -> None:
    agent = add_agent(app)
    for boot_id in ("a", "b", "a"):
        agent.call("POST", "/heartbeat", json=heartbeat(boot_id=boot_id))
    assert scrape(app)["sentinel_node_token_cloned"] == {("gpu1",): 1}
    register(app)
    assert scrape(app)["sentinel_node_token_cloned"] == {("gpu1",): 0}


def test_every_role_is_counted_also_when_nobody_has_it(app: APIFlask) -> None:
    add_user(app, "alice")
    assert scrape(app)["sentinel_users"] == {
        ("admin",): 0,
        ("operator",): 0,
        ("user",): 1,
        ("readonly",): 0,
    }


def test_requests_are_counted_by_rule_and_never_by_address(app: APIFlask) -> None:
    client = app.test_client()

    def count(*labels: str) -> float:
        return scrape(app)["sentinel_http_requests_total"].get(labels, 0)

    before = count("nodes.get_node", "GET", "401"), count("none", "GET", "404")
    for number in range(3):
        client.get(f"/api/nodes/secret-{number}")
        client.get(f"/nowhere/secret-{number}")
    client.open("/api/nodes/secret-9", method="BREW")
    assert count("nodes.get_node", "GET", "401") == before[0] + 3
    assert count("none", "GET", "404") == before[1] + 3
    text = client.get("/metrics", headers=SCRAPE).text
    assert "secret-" not in text
    assert "BREW" not in text


def test_without_a_database_the_process_still_answers(app: APIFlask) -> None:
    add_agent(app)
    app.test_client().get("/healthz")
    with app.app_context(), db.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE nodes RENAME TO gone")
    found = scrape(app)
    assert found["sentinel_database_up"] == {(): 0}
    assert found["sentinel_http_requests_total"]["health.healthz", "GET", "200"] > 0
    assert "sentinel_booking_build_info" in found
    of_database = ("sentinel_node", "sentinel_users", "sentinel_reserv", "sentinel_dev")
    assert [name for name in found if name.startswith(of_database)] == []


def test_only_the_scrape_token_opens_it(app: APIFlask) -> None:
    refused: list[dict[str, str]] = [{}, WEBHOOK]
    for headers in refused:
        assert app.test_client().get("/metrics", headers=headers).status_code == 401


def test_every_series_is_documented_with_its_labels(app: APIFlask) -> None:
    agent = add_agent(app)
    agent.report([nvidia(0)])
    agent.call("POST", "/heartbeat", json=heartbeat(lock="locked", unclean=[]))
    reserve(app, add_user(app, "alice"))
    section = DOCS.read_text().partition("\n## Booking\n")[2].partition("\n## ")[0]
    documented = {
        name: set(labels.split(",")) - {""}
        for name, labels in re.findall(r"(?m)^\| `(\w+)(?:\{([\w,]*)\})?` ", section)
    }
    assert documented == families(app)
