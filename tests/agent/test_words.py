"""What people read on their terminals."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from sentinel_agent.sessions.plan import Close, Warn
from sentinel_agent.sessions.words import words_for

NOW = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)


@pytest.fixture(autouse=True)
def shanghai(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A node in China."""
    monkeypatch.setenv("TZ", "Asia/Shanghai")
    yield
    monkeypatch.undo()
    time.tzset()


def test_a_warning_says_when_in_the_nodes_time_zone_and_in_both_languages() -> None:
    ends = NOW + timedelta(minutes=15)
    english, chinese = words_for(Warn("alice", 1001, ends, 15, 15), NOW)
    assert "ends at 18:15 (UTC+08:00), in 15 min" in english
    assert "18:15 (UTC+08:00)" in chinese
    assert "15 分钟" in chinese
    assert english.isascii()


def test_an_end_on_another_day_has_its_date() -> None:
    ends = NOW + timedelta(hours=12)
    english, _ = words_for(Warn("alice", 1001, ends, 720, 1440), NOW)
    assert "ends at 2026-11-22 06:00 (UTC+08:00)" in english


def test_the_last_word_says_how_long_there_is() -> None:
    english, chinese = words_for(Close("alice", 1001, 299.5), NOW)
    assert "no running reservation" in english
    assert "in 300 s" in english
    assert "300 秒" in chinese
    english, chinese = words_for(Close("alice", 1001, 0), NOW)
    assert "has ended" in english
    assert "已结束" in chinese
