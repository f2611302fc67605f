"""Running collectors side by side: nobody waits for, or is hidden by, a bad one."""

from __future__ import annotations

import logging
from typing import cast

import pytest

from sentinel_exporters.core import CollectorSettings, Compat, Metric, Sample
from sentinel_exporters.errors import CollectorError
from sentinel_exporters.outcome import Outcome
from tests.exporters.toy import (
    LONG,
    SHORT,
    VALUE,
    Source,
    collect,
    in_thread,
    is_waiting,
    make_runner,
    own,
    refuse_threads,
)
from tests.lab.wait import wait_for

PEER_VALUE = Metric("TOY_VALUE", "gauge", "A peer's name for it.", ("NAME",))


def test_a_run_that_reads_everything_is_a_success() -> None:
    outcome = collect(make_runner(Source("a")))["a"]
    assert outcome.samples == (VALUE.sample(1, "a"),)
    assert own(outcome)["sentinel_collector_success"] == 1
    assert own(outcome)["sentinel_collector_last_success_timestamp_seconds"] > 1_600_000_000


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (CollectorError("the tool\nis gone"), "the tool is gone"),
        (ZeroDivisionError("bug"), "ZeroDivisionError: bug"),
        (SystemExit(3), "SystemExit: 3"),
        (CollectorError("x\x1b[31m\nERROR forged"), "x?[31m ERROR forged"),
    ],
)
def test_a_failed_collector_says_why_and_hides_no_other(
    error: BaseException, reason: str
) -> None:
    outcomes = collect(make_runner(Source("bad", error=error), Source("good")))
    assert outcomes["bad"].problems == (reason,)
    assert outcomes["bad"].samples == ()
    assert own(outcomes["bad"])["sentinel_collector_success"] == 0
    assert outcomes["good"].is_success


def test_a_collector_for_which_there_is_no_thread_fails_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refuse_threads(monkeypatch, "collector-bad")
    runner = make_runner(Source("bad"), Source("good"))
    outcomes = collect(runner)
    assert outcomes["bad"].problems == ("can't start new thread",)
    assert outcomes["good"].is_success
    monkeypatch.undo()
    assert collect(runner)["bad"].is_success


def test_a_reason_is_one_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    collect(make_runner(Source("a", problems=("card 3:\n  damaged\x1b[31m",))))
    assert caplog.messages == [
        "collector failed collector=a reason=card 3: damaged?[31m",
    ]


def test_a_collector_that_never_succeeded_has_no_last_success() -> None:
    outcome = collect(make_runner(Source("bad", error=OSError())))["bad"]
    assert "sentinel_collector_last_success_timestamp_seconds" not in own(outcome)


def test_the_last_success_outlives_a_failure() -> None:
    source = Source("a")
    runner = make_runner(source)
    before = collect(runner)["a"].last_success
    source.error = OSError()
    assert collect(runner)["a"].last_success == before


def test_a_partial_reading_goes_out_and_counts_as_failed() -> None:
    outcome = collect(make_runner(Source("a", problems=("card 3 is damaged",))))["a"]
    assert outcome.samples
    assert not outcome.is_success
    assert outcome.last_success is None


def test_a_collector_that_hangs_fails_and_the_others_answer() -> None:
    slow = Source("slow")
    slow.gate.clear()
    outcomes = collect(make_runner(slow, Source("good"), settings=SHORT))
    assert outcomes["slow"].problems == ("no answer within the time limit",)
    assert outcomes["slow"].samples == ()
    assert outcomes["good"].is_success
    slow.gate.set()


def test_the_scrapers_own_limit_goes_before_the_collectors() -> None:
    slow = Source("slow")
    slow.gate.clear()
    assert not collect(make_runner(slow, settings=LONG), limit_s=0.1)["slow"].is_success
    slow.gate.set()


def test_a_collector_that_hangs_is_not_started_again() -> None:
    slow = Source("slow")
    slow.gate.clear()
    runner = make_runner(slow, settings=SHORT)
    for _ in range(3):
        assert not collect(runner)["slow"].is_success
    assert slow.reads == 1
    slow.gate.set()
    wait_for(
        "the run to end and the next to succeed", lambda: collect(runner)["slow"].is_success
    )


def test_two_scrapes_at_once_share_one_run() -> None:
    source = Source("a")
    source.gate.clear()
    runner = make_runner(source)
    found: list[Outcome] = []
    threads = [in_thread(lambda: found.append(collect(runner)["a"])) for _ in range(2)]
    wait_for("both to wait for it", lambda: all(map(is_waiting, threads)))
    source.gate.set()
    for thread in threads:
        thread.join(30)
    assert [outcome.is_success for outcome in found] == [True, True]
    assert source.reads == 1


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        ((VALUE.sample(float("nan"), "a"),), "toy_value is nan"),
        ((VALUE.sample(float("inf"), "a"),), "toy_value is inf"),
        ((VALUE.sample(1, "a"), VALUE.sample(2, "a")), "there twice"),
        ((Metric("other", "gauge", "x").sample(1),), "other is not in METRICS"),
        # What a driver's library returns in place of a text.
        ((Sample(VALUE, (cast(str, None),), 1),), "toy_value[None]: "),
    ],
)
def test_samples_that_would_spoil_the_page_are_refused(
    samples: tuple[Sample, ...], reason: str
) -> None:
    outcome = collect(make_runner(Source("a", samples=samples)))["a"]
    assert outcome.samples == ()
    assert reason in outcome.problems[0]


def test_in_auto_an_absent_source_has_no_series_and_joins_when_it_appears() -> None:
    source = Source("a", is_present=False)
    runner = make_runner(source, is_auto=True)
    assert collect(runner) == {}
    source.is_present = True
    assert collect(runner)["a"].is_success
    # From then on its absence is a failure, and not silence.
    source.is_present, source.error = False, CollectorError("gone")
    assert collect(runner)["a"].problems == ("gone",)


def test_an_enabled_but_absent_source_is_a_failure() -> None:
    runner = make_runner(Source("a", is_present=False, error=CollectorError("no tool")))
    assert collect(runner)["a"].problems == ("no tool",)


def test_a_failure_is_logged_when_it_begins_changes_and_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    source = Source("a")
    runner = make_runner(source)
    # How long a tool was waited for is no news.
    for reason in ("", "no tool", "no tool", "no end after 2.9 s", "no end after 3 s", "", ""):
        source.error = CollectorError(reason) if reason else None
        collect(runner)
    assert caplog.messages == [
        "collector failed collector=a reason=no tool",
        "collector failed collector=a reason=no end after 2.9 s",
        "collector recovered collector=a",
    ]


def limited(count: int) -> CollectorSettings:
    return CollectorSettings(timeout_s=60, max_series=count)


def test_too_many_series_are_cut_and_the_run_counts_as_failed() -> None:
    users = tuple(VALUE.sample(1, f"user{number:03d}") for number in range(100))
    peer = Compat((PEER_VALUE,), lambda _reading: [PEER_VALUE.sample(1, "a")])
    for found in (users, tuple(reversed(users)), users[50:] + users[:50]):
        source = Source("a", samples=found, compat={"peer": peer})
        outcome = collect(make_runner(source, settings=limited(99)))["a"]
        # The same ones in whatever order they were found; what is another's goes first.
        assert outcome.samples == users[:99]
        assert outcome.problems == ("more than 99 series (max_series); not all are shown",)
        all_of_them = collect(make_runner(source, settings=limited(101)))["a"]
        assert all_of_them.is_success
        assert len(all_of_them.samples) == 101


def make_compat(*samples: Sample) -> Compat:
    return Compat((PEER_VALUE,), lambda _reading: samples)


def test_another_exporters_families_come_from_the_same_reading() -> None:
    peer = Compat((PEER_VALUE,), lambda reading: [PEER_VALUE.sample(1, f"of {reading}")])
    source = Source("a", compat={"peer": peer})
    outcome = collect(make_runner(source))["a"]
    assert outcome.samples == (VALUE.sample(1, "a"), PEER_VALUE.sample(1, "of a"))
    assert source.reads == 1


def fail(_reading: object) -> list[Sample]:
    raise KeyError("clock")


@pytest.mark.parametrize(
    ("peer", "reason"),
    [
        (Compat((PEER_VALUE,), fail), "compat peer: KeyError: 'clock'"),
        (make_compat(PEER_VALUE.sample(float("nan"), "a")), "TOY_VALUE is nan"),
        (make_compat(VALUE.sample(1, "a")), 'toy_value{name="a"} is there twice'),
        (make_compat(Metric("other", "gauge", "x").sample(1)), "other is not in METRICS"),
    ],
)
def test_another_exporters_families_that_fail_hide_neither_ours_nor_a_third_ones(
    peer: Compat, reason: str
) -> None:
    good = make_compat(PEER_VALUE.sample(1, "good"))
    outcome = collect(make_runner(Source("a", compat={"peer": peer, "good": good})))["a"]
    assert outcome.samples == (VALUE.sample(1, "a"), PEER_VALUE.sample(1, "good"))
    assert len(outcome.problems) == 1
    assert reason in outcome.problems[0]
