"""What agents report of their devices and targets: slots, the policy, and bad reports."""

from __future__ import annotations

import threading
from typing import Any

from apiflask import APIFlask
from sqlalchemy import select

from sentinel_booking.models import Device, write
from tests.booking.lab import add_agent, ascend, nvidia, policy_version, what_agents_change

NODE_TARGET = {"job": "node", "port": 9100}


def slots(answer: Any) -> dict[str, int]:
    assert answer.status_code == 200, answer.text
    return {device["uuid"]: device["slot"] for device in answer.get_json()["devices"]}


def test_a_slot_is_never_given_twice(app: APIFlask) -> None:
    agent = add_agent(app)
    assert slots(agent.report([nvidia(0, "a"), nvidia(1, "b")])) == {"a": 0, "b": 1}
    assert slots(agent.report([nvidia(0, "b")])) == {"b": 1}
    assert slots(agent.report([nvidia(0, "b"), nvidia(1, "c")])) == {"b": 1, "c": 2}
    assert slots(agent.report([nvidia(0, "a"), nvidia(1, "c")])) == {"a": 0, "c": 2}


def test_what_is_not_listed_is_absent_and_kept(app: APIFlask) -> None:
    agent = add_agent(app)
    agent.report([nvidia(0), ascend(0)])
    agent.report([])
    with app.app_context(), write() as session:
        assert session.scalars(select(Device.is_present)).all() == [False, False]


def test_the_answer_repeats_the_report_with_slots(app: APIFlask) -> None:
    report = [ascend(1), nvidia(0, memory_bytes=None, minor=None)]
    answer = add_agent(app).report(report)
    assert answer.get_json()["devices"] == [
        {**device, "slot": slot} for slot, device in enumerate(report)
    ]


def test_the_policy_changes_only_with_what_it_says(app: APIFlask) -> None:
    agent = add_agent(app)
    steps: list[tuple[list[dict[str, object]], int]] = [
        ([nvidia(0)], 1),
        ([nvidia(0)], 0),
        ([nvidia(0, model="renamed", memory_bytes=1, bus_id="x")], 0),
        ([nvidia(0, minor=3)], 1),
        ([nvidia(0, index=4)], 1),
        ([], 1),
        ([], 0),
        ([nvidia(0)], 1),
    ]
    for report, more in steps:
        before = policy_version(app)
        assert agent.report(report).status_code == 200
        assert policy_version(app) == before + more, report


def test_the_same_report_again_leaves_no_trace(app: APIFlask) -> None:
    agent = add_agent(app)
    agent.report([nvidia(0)], [NODE_TARGET])
    before = what_agents_change(app)
    agent.report([nvidia(0)], [NODE_TARGET])
    assert what_agents_change(app) == before


def test_two_reports_at_once_give_each_device_one_slot(app: APIFlask) -> None:
    agent = add_agent(app)
    barrier = threading.Barrier(4)
    statuses: list[int] = []

    def ask() -> None:
        barrier.wait()
        statuses.append(agent.report([nvidia(number) for number in range(8)]).status_code)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with app.app_context(), write() as session:
        found = session.scalars(select(Device.slot).order_by(Device.slot)).all()
    assert statuses == [200] * 4
    assert found == list(range(8))


def test_cards_that_change_places_keep_their_slots(app: APIFlask) -> None:
    agent = add_agent(app)
    agent.report([nvidia(0, "a"), nvidia(1, "b")])
    assert slots(agent.report([nvidia(0, "b"), nvidia(1, "a")])) == {"a": 0, "b": 1}


BAD_DEVICES: list[list[Any]] = [
    [nvidia(0), nvidia(0)],
    [nvidia(0, "a"), nvidia(0, "b")],
    [nvidia(0, "a"), nvidia(1, "b", minor=0)],
    [nvidia(0, "a,b")],
    [nvidia(0, "")],
    [nvidia(0, "x" * 97)],
    [nvidia(-1)],
    [nvidia(0, index="0")],
    [nvidia(0, index=True)],
    [nvidia(0, index=2**31)],
    [nvidia(0, minor=-1)],
    [nvidia(0, vendor="amd")],
    [nvidia(0, memory_bytes=-1)],
    [nvidia(0, memory_bytes=2**63)],
    [nvidia(0, memory_bytes=1.5)],
    [nvidia(0, model="x" * 101)],
    [nvidia(0, model="a\x00b")],
    [nvidia(0, slot=0)],
    [{"uuid": "a"}],
    ["a"],
    [nvidia(number) for number in range(257)],
]


def test_a_report_that_cannot_be_changes_nothing(app: APIFlask) -> None:
    agent = add_agent(app)
    agent.report([nvidia(5)], [NODE_TARGET])
    before = what_agents_change(app)
    for devices in BAD_DEVICES:
        answer = agent.report(devices, [NODE_TARGET])
        assert answer.status_code == 422, devices
        assert answer.get_json()["errors"]
    assert what_agents_change(app) == before


BAD_TARGETS: list[list[Any]] = [
    [NODE_TARGET, NODE_TARGET],
    [{"job": "ipmi", "port": 623}],
    [{"job": "Node", "port": 9100}],
    [{"job": "", "port": 9100}],
    [{"job": "../x", "port": 9100}],
    [{"job": "node", "port": 0}],
    [{"job": "node", "port": 65536}],
    [{"job": "node", "port": "9100"}],
    [{"job": "node", "port": 9100, "host": "elsewhere"}],
    [{"job": "node"}],
]


def test_a_target_that_cannot_be_changes_nothing(app: APIFlask) -> None:
    agent = add_agent(app)
    agent.report([nvidia(5)], [NODE_TARGET])
    before = what_agents_change(app)
    for targets in BAD_TARGETS:
        assert agent.report([], targets).status_code == 422, targets
    assert what_agents_change(app) == before
