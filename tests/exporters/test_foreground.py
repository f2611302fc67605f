"""Reading a source when it is asked for: who is slow delays nobody, and says how old it is."""

from __future__ import annotations

import time

import pytest

from sentinel_exporters import foreground
from sentinel_exporters.outcome import TOO_SLOW
from sentinel_exporters.runner import Runner
from tests.exporters.toy import LONG, SHORT, VALUE, Source, collect, make_runner, own
from tests.lab.wait import wait_for

# Far more than a page that waits for nobody takes, and far less than LONG.
SOON_S = 15


def show(source: Source, value: float) -> None:
    source.samples = (VALUE.sample(value, source.name),)


def test_a_source_that_is_slow_shows_its_last_result_and_its_age_at_once() -> None:
    source, good = Source("slow"), Source("good")
    runner = make_runner(source, good)
    show(source, 1)
    show(good, 1)
    collect(runner)
    source.gate.clear()
    show(good, 2)
    began = time.monotonic()
    outcomes = collect(runner, limit_s=60)
    assert time.monotonic() - began < SOON_S
    assert outcomes["slow"].samples == (VALUE.sample(1, "slow"),)
    assert own(outcomes["slow"])["sentinel_collector_age_seconds"] >= foreground.PATIENCE_S
    assert outcomes["good"].samples == (VALUE.sample(2, "good"),)
    source.gate.set()


def test_what_a_slow_run_found_is_shown_by_the_next_scrape() -> None:
    source = Source("slow")
    runner = make_runner(source)
    show(source, 1)
    collect(runner)
    source.gate.clear()
    collect(runner)
    show(source, 2)
    source.gate.set()
    wait_for("it has ended", lambda: not source.is_held)
    source.gate.clear()
    wait_for(
        "the result is there",
        lambda: collect(runner)["slow"].samples == (VALUE.sample(2, "slow"),),
    )
    assert source.reads == 3
    source.gate.set()


def test_who_hangs_for_longer_than_its_limit_has_failed_whatever_it_said_before() -> None:
    source = Source("slow")
    runner = make_runner(source, settings=SHORT)
    collect(runner)
    source.gate.clear()
    outcome = collect(runner)["slow"]
    assert outcome.problems == (TOO_SLOW,)
    assert outcome.samples == ()
    source.gate.set()


def test_a_result_that_is_old_is_not_shown_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreground, "KEEP_S", 0)
    source = Source("slow")
    runner = make_runner(source)
    collect(runner)
    source.gate.clear()
    assert collect(runner, limit_s=0.7)["slow"].problems == (TOO_SLOW,)
    source.gate.set()


def test_each_source_has_its_own_limit() -> None:
    short, long = Source("short"), Source("long")
    runner = Runner(
        [short.collector(), long.collector()], {"short": SHORT, "long": LONG}, is_auto=False
    )
    short.gate.clear()
    outcomes = collect(runner, limit_s=60)
    assert outcomes["short"].problems == (TOO_SLOW,)
    assert outcomes["long"].is_success
    assert short.is_held
    short.gate.set()
