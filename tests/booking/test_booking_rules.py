"""What may be asked of a booking, without a database."""

from __future__ import annotations

import datetime as dt

import pytest

from sentinel_booking.domain.booking_rules import (
    MAX_DEVICES,
    START_TOLERANCE,
    Limits,
    State,
    choice_problems,
    interval_problems,
    new_end_problems,
    purpose_problems,
    settle_start,
    state_at,
)
from sentinel_booking.domain.conflicts import Interval
from sentinel_booking.errors import FieldProblem

NOW = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
LIMITS = Limits(max_length=dt.timedelta(hours=24), max_advance=dt.timedelta(days=30))
MINUTE = dt.timedelta(minutes=1)
HOUR = dt.timedelta(hours=1)
TICK = dt.timedelta(microseconds=1)


def fields(problems: list[FieldProblem]) -> list[str]:
    return [problem.field for problem in problems]


@pytest.mark.parametrize(
    ("starts", "ends", "refused"),
    [
        (NOW, NOW + MINUTE, []),
        (NOW, NOW + 24 * HOUR, []),
        (NOW + 30 * 24 * HOUR, NOW + 30 * 24 * HOUR + MINUTE, []),
        (NOW, NOW + MINUTE - TICK, ["ends"]),
        (NOW, NOW, ["ends"]),
        (NOW + HOUR, NOW, ["ends"]),
        (NOW, NOW + 24 * HOUR + TICK, ["ends"]),
        (NOW - TICK, NOW + HOUR, ["starts"]),
        (NOW - HOUR, NOW - 2 * HOUR, ["starts", "ends"]),
        (NOW + 30 * 24 * HOUR + TICK, NOW + 31 * 24 * HOUR, ["starts"]),
        (NOW.replace(year=1999), NOW.replace(year=2200), ["starts", "ends"]),
    ],
)
def test_the_times_of_a_reservation_have_bounds(
    starts: dt.datetime, ends: dt.datetime, refused: list[str]
) -> None:
    assert fields(interval_problems(Interval(starts, ends), NOW, LIMITS)) == refused


def test_times_at_the_end_of_the_calendar_are_refused_without_overflow() -> None:
    far_east, far_west = (dt.timezone(dt.timedelta(hours=hours)) for hours in (14, -12))
    interval = Interval(
        dt.datetime.min.replace(tzinfo=far_east), dt.datetime.max.replace(tzinfo=far_west)
    )
    assert fields(interval_problems(interval, NOW, LIMITS)) == ["starts", "ends"]
    assert fields(new_end_problems(interval, NOW, LIMITS)) == ["ends"]


def test_without_limits_only_what_always_holds_is_judged() -> None:
    away = Interval(NOW + 400 * 24 * HOUR, NOW + 900 * 24 * HOUR)
    assert interval_problems(away, NOW, None) == []
    assert fields(interval_problems(Interval(NOW - HOUR, NOW), NOW, None)) == ["starts"]


@pytest.mark.parametrize(
    ("ends", "refused"),
    [
        (NOW + TICK, []),
        (NOW, ["ends"]),
        (NOW - MINUTE, ["ends"]),
        (NOW + 22 * HOUR, []),
        (NOW + 22 * HOUR + TICK, ["ends"]),
    ],
)
def test_a_new_end_lies_ahead_and_within_the_greatest_length(
    ends: dt.datetime, refused: list[str]
) -> None:
    # It began two hours ago, and a reservation lasts a day at most.
    interval = Interval(NOW - 2 * HOUR, ends)
    assert fields(new_end_problems(interval, NOW, LIMITS)) == refused


def test_a_start_that_has_just_gone_by_becomes_now() -> None:
    assert settle_start(None, NOW) == NOW
    assert settle_start(NOW - START_TOLERANCE, NOW) == NOW
    assert settle_start(NOW + TICK, NOW) == NOW + TICK
    long_ago = NOW - START_TOLERANCE - TICK
    assert settle_start(long_ago, NOW) == long_ago


@pytest.mark.parametrize(
    ("uuids", "whole_node", "refused"),
    [
        (["a", "b"], False, []),
        ([], True, []),
        ([], False, ["devices"]),
        (["a"], True, ["devices"]),
        (["a", "b", "a", "a"], False, ["devices.2", "devices.3"]),
        (["x"] * (MAX_DEVICES + 1), False, ["devices"]),
    ],
)
def test_devices_or_the_whole_node_are_named_once(
    uuids: list[str], whole_node: bool, refused: list[str]
) -> None:
    assert fields(choice_problems(uuids, whole_node=whole_node)) == refused


@pytest.mark.parametrize("purpose", ["", "train a model", "训练模型 🚀", "x" * 500])
def test_a_purpose_is_any_line_of_text(purpose: str) -> None:
    assert purpose_problems(purpose) == []


@pytest.mark.parametrize("purpose", ["x" * 501, "two\nlines", "nul\x00", "\x1b[2J", "\ud800"])
def test_a_purpose_holds_no_control_characters(purpose: str) -> None:
    assert fields(purpose_problems(purpose)) == ["purpose"]


def test_a_state_includes_the_start_and_excludes_the_end() -> None:
    interval = Interval(NOW, NOW + HOUR)
    states = [
        state_at(time, interval, is_cancelled=False)
        for time in (NOW - TICK, NOW, NOW + HOUR - TICK, NOW + HOUR)
    ]
    assert states == [State.COMING, State.RUNNING, State.RUNNING, State.PAST]
    assert state_at(NOW - HOUR, interval, is_cancelled=True) == State.PAST


def test_what_ended_in_the_moment_it_began_is_past() -> None:
    assert state_at(NOW, Interval(NOW, NOW), is_cancelled=False) == State.PAST
