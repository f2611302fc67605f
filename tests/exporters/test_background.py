"""Sources that are read in the background: nobody waits, and nothing stale is shown."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from sentinel_exporters.core import CollectorSettings
from sentinel_exporters.errors import CollectorError
from sentinel_exporters.outcome import TOO_SLOW, Outcome
from sentinel_exporters.runner import Runner
from tests.exporters.toy import VALUE, Source, collect, make_runner, own
from tests.lab.wait import wait_for

AGE = "sentinel_collector_age_seconds"
OFTEN = CollectorSettings(interval_s=0.02, timeout_s=30)
ONCE = CollectorSettings(interval_s=3600, timeout_s=30)
# What it read is shown for 0.3 s, and a run may take 0.1 s.
BRIEF = CollectorSettings(interval_s=0.1, timeout_s=0.1)

Start = Callable[..., Runner]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a runner; at the test's end its sources are let go and it is stopped."""
    running: list[Runner] = []
    held: list[Source] = []

    def begin(
        *sources: Source, settings: CollectorSettings = OFTEN, is_auto: bool = False
    ) -> Runner:
        runner = make_runner(*sources, settings=settings, is_auto=is_auto)
        held.extend(sources)
        running.append(runner)
        runner.start()
        return runner

    yield begin
    for runner in running:
        runner.stop()
    for source in held:
        source.gate.set()


def read_more(source: Source, runs: int = 2) -> None:
    """Wait until as many further runs have begun, so that one has begun and ended."""
    goal = source.reads + runs
    wait_for("further runs", lambda: source.reads >= goal)


def test_it_is_read_again_and_again_though_nobody_asks(start: Start) -> None:
    source = Source("a")
    start(source)
    read_more(source, 5)


def test_a_scrape_gets_the_last_result_and_starts_no_run(start: Start) -> None:
    source = Source("a")
    runner = start(source, settings=ONCE)
    outcomes = [collect(runner)["a"] for _ in range(5)]
    assert source.reads == 1
    assert all(outcome.samples == (VALUE.sample(1, "a"),) for outcome in outcomes)
    assert all(outcome.is_success for outcome in outcomes)
    ages = [own(outcome)[AGE] for outcome in outcomes]
    assert ages == sorted(set(ages))
    assert len({outcome.last_success for outcome in outcomes}) == 1
    assert len({outcome.duration_s for outcome in outcomes}) == 1


def test_the_first_scrape_waits_for_the_first_result(start: Start) -> None:
    source = Source("a")
    source.gate.clear()
    runner = start(source, settings=ONCE)
    assert collect(runner, limit_s=0.05)["a"].problems == (TOO_SLOW,)
    source.gate.set()
    assert collect(runner)["a"].is_success


def test_before_the_start_everything_is_read_when_asked() -> None:
    source = Source("a")
    runner = make_runner(source, settings=ONCE)
    for _ in range(2):
        assert collect(runner)["a"].is_success
    assert source.reads == 2


def test_setting_the_clock_changes_neither_the_age_nor_the_rhythm(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Source("a")
    runner = start(source)
    for now in (4e9, 0.0, 4e9):
        monkeypatch.setattr(time, "time", partial(float, now))
        read_more(source)
        outcome = collect(runner)["a"]
        assert outcome.is_success
        assert outcome.last_success == now
        assert 0 <= own(outcome)[AGE] < 30


def test_a_change_of_the_source_replaces_what_was_there(start: Start) -> None:
    source = Source("a", samples=(VALUE.sample(1, "alice"), VALUE.sample(1, "bob")))
    runner = start(source)
    assert len(collect(runner)["a"].samples) == 2
    source.samples = (VALUE.sample(1, "bob"),)
    read_more(source)
    assert collect(runner)["a"].samples == (VALUE.sample(1, "bob"),)


def test_a_run_that_fails_takes_the_last_results_place(start: Start) -> None:
    source = Source("a")
    runner = start(source)
    before = collect(runner)["a"]
    source.error = CollectorError("the tool is gone")
    read_more(source)
    failed = [collect(runner)["a"] for _ in range(2)]
    assert all(outcome.samples == () for outcome in failed)
    assert all(outcome.problems == ("the tool is gone",) for outcome in failed)
    # The age still tells how long nothing has been read, and the time when it last was.
    assert own(failed[1])[AGE] > own(failed[0])[AGE]
    assert before.last_success is not None
    assert failed[0].last_success == failed[1].last_success
    assert failed[0].last_success is not None
    assert failed[0].last_success >= before.last_success
    source.error = None
    read_more(source)
    assert collect(runner)["a"].is_success


def test_a_partial_reading_is_shown_and_counts_as_failed(start: Start) -> None:
    outcome = collect(start(Source("a", problems=("card 3 is damaged",))))["a"]
    assert outcome.samples == (VALUE.sample(1, "a"),)
    assert outcome.problems == ("card 3 is damaged",)
    assert outcome.last_success is None


def hang(source: Source) -> None:
    """Hold the source, and wait until a run has begun that it holds."""
    source.gate.clear()
    wait_for("a run that hangs", lambda: source.is_held)


def test_a_run_that_hangs_fails_at_once_and_its_last_result_goes_when_it_is_old(
    start: Start,
) -> None:
    source = Source("a")
    runner = start(source, settings=BRIEF)
    wait_for("a success", lambda: collect(runner)["a"].is_success)
    hang(source)
    seen: list[Outcome] = []

    def is_gone() -> bool:
        seen.append(collect(runner)["a"])
        return not seen[-1].samples

    wait_for("the samples to go", is_gone)
    assert seen[-1].problems == (TOO_SLOW, "the last reading is older than 0.3 s")
    ages = [own(outcome)[AGE] for outcome in seen]
    assert ages == sorted(set(ages))
    assert all(age <= 0.3 for age, outcome in zip(ages, seen, strict=True) if outcome.samples)
    later = collect(runner)["a"]
    assert own(later)[AGE] > ages[-1]
    assert later.duration_s > seen[-1].duration_s
    reads = source.reads
    source.gate.set()
    wait_for("its recovery", lambda: collect(runner)["a"].is_success)
    # All the while there was one run, and not one more for each interval.
    assert source.reads > reads


def test_a_hanging_source_is_read_once_and_delays_no_other(start: Start) -> None:
    slow, good = Source("slow"), Source("good")
    slow.gate.clear()
    runner = start(slow, good, settings=BRIEF)
    read_more(good, 5)
    wait_for("a success", lambda: collect(runner)["good"].is_success)
    assert slow.reads == 1
    stuck = collect(runner)["slow"]
    assert stuck.problems == (TOO_SLOW,)
    assert AGE not in own(stuck)


def test_a_result_that_comes_late_is_shown_and_counts_as_failed(start: Start) -> None:
    source = Source("a")
    source.gate.clear()
    runner = start(source, settings=CollectorSettings(interval_s=3600, timeout_s=0.05))
    assert collect(runner)["a"].problems == (TOO_SLOW,)
    source.gate.set()
    wait_for("the samples", lambda: collect(runner)["a"].samples)
    late = collect(runner)["a"]
    assert late.problems == (TOO_SLOW,)
    assert late.last_success is None
    assert own(late)[AGE] >= 0.05


def test_in_auto_an_absent_source_has_no_series_and_joins_when_it_appears(start: Start) -> None:
    source = Source("a", is_present=False)
    runner = start(source, is_auto=True)
    assert collect(runner) == {}
    source.is_present = True
    assert wait_for("the source to join", lambda: collect(runner).get("a")).is_success
    source.is_present, source.error = False, CollectorError("gone")
    read_more(source)
    assert collect(runner)["a"].problems == ("gone",)


def test_the_failure_is_logged_once_however_often_it_repeats(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    source = Source("a", error=CollectorError("no tool"))
    runner = start(source)
    for _ in range(3):
        read_more(source)
        collect(runner)
    source.error = None
    read_more(source)
    collect(runner)
    assert [record.getMessage() for record in caplog.records] == [
        "collector failed collector=a reason=no tool",
        "collector recovered collector=a",
    ]


def test_the_end_of_the_runner_ends_its_runs(start: Start) -> None:
    source = Source("a")
    runner = start(source)
    read_more(source)
    runner.stop()
    wait_for("its thread to end", lambda: not is_reading("collector-a"))


def is_reading(name: str) -> bool:
    return name in {thread.name for thread in threading.enumerate()}
