"""Running collectors side by side: nobody waits for, or is hidden by, a bad one."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import cast

import pytest

from sentinel_exporters.core import CollectorSettings, Compat, Metric, Sample
from sentinel_exporters.errors import BadTarget, CollectorError
from sentinel_exporters.outcome import Outcome
from sentinel_exporters.prober import Prober, TooManyProbes
from tests.exporters.toy import LONG, SHORT, VALUE, Source, collect, make_runner, own
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
    ],
)
def test_a_failed_collector_says_why_and_hides_no_other(error: Exception, reason: str) -> None:
    outcomes = collect(make_runner(Source("bad", error=error), Source("good")))
    assert outcomes["bad"].problems == (reason,)
    assert outcomes["bad"].samples == ()
    assert own(outcomes["bad"])["sentinel_collector_success"] == 0
    assert outcomes["good"].is_success


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
    threads = [
        threading.Thread(target=lambda: found.append(collect(runner)["a"])) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    wait_for("the run to begin", lambda: source.reads)
    source.gate.set()
    for thread in threads:
        thread.join(30)
    assert [outcome.is_success for outcome in found] == [True, True]


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


def test_a_lasting_failure_is_logged_once_and_its_end_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    source = Source("a", error=CollectorError("no tool"))
    runner = make_runner(source)
    collect(runner)
    collect(runner)
    source.error = None
    collect(runner)
    collect(runner)
    assert [record.getMessage() for record in caplog.records] == [
        "collector failed collector=a reason=no tool",
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


def make_prober(source: Source, max_probes: int = 8, timeout_s: float = 30) -> Prober:
    source.is_probe = True
    settings = {source.name: CollectorSettings(timeout_s=timeout_s)}
    return Prober([source.collector()], settings, max_probes)


def in_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_a_probe_reads_the_target_that_was_asked_for() -> None:
    outcome = make_prober(Source("bmc")).probe("bmc", "10.0.0.1", "default")
    assert outcome.samples == (VALUE.sample(1, "10.0.0.1"),)


def test_an_unknown_target_is_refused_and_not_reported_as_a_failure() -> None:
    prober = make_prober(Source("bmc", error=BadTarget("no such module")))
    with pytest.raises(BadTarget, match="no such module"):
        prober.probe("bmc", "10.0.0.1", "nonsense")


def test_a_probe_that_is_not_enabled_is_not_known() -> None:
    with pytest.raises(KeyError):
        make_prober(Source("bmc")).probe("other", "10.0.0.1", "default")


def test_a_target_that_hangs_is_asked_once_and_delays_no_other() -> None:
    source = Source("bmc")
    source.gate.clear()
    prober = make_prober(source, timeout_s=0.2)
    for _ in range(3):
        assert not prober.probe("bmc", "10.0.0.1", "default").is_success
    assert source.reads == 1
    source.gate.set()
    assert prober.probe("bmc", "10.0.0.2", "default").is_success


def test_a_target_that_is_not_read_has_the_series_that_say_so() -> None:
    source = Source("bmc")
    prober = make_prober(source, timeout_s=0.1)
    source.gate.clear()
    late = prober.probe("bmc", "10.0.0.1", "default")
    assert late.samples == (VALUE.sample(0, "10.0.0.1"),)
    source.gate.set()
    source.error = CollectorError("refused")
    refused = prober.probe("bmc", "10.0.0.2", "default")
    assert refused.samples == (VALUE.sample(0, "10.0.0.2"),)


def test_who_asks_for_a_target_writes_no_line_of_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    source = Source("bmc")
    source.gate.clear()
    prober = make_prober(source, timeout_s=0.1)
    with caplog.at_level(logging.INFO):
        prober.probe("bmc", "x\nERROR forged\x1b[31m \u2028y" + "z" * 5000, "m o\rd")
    source.gate.set()
    (line,) = caplog.messages
    assert "target=x?ERROR?forged?[31m??yz" in line
    assert "module=m?o?d " in line
    assert len(line) < 500


def test_a_target_that_fails_is_logged_when_that_begins_changes_and_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    source = Source("bmc")
    prober = make_prober(source)
    with caplog.at_level(logging.INFO):
        for reason in ("", "silent for 5 s", "silent for 35.5 s", "refused: 3", "refused: 4",
                       "", ""):  # fmt: skip
            source.error = CollectorError(reason) if reason else None
            prober.probe("bmc", "10.0.0.1", "default")
    where = "probe=bmc target=10.0.0.1 module=default"
    assert caplog.messages == [
        f"probe failed {where} reason=silent for 5 s",
        f"probe failed {where} reason=refused: 3",
        f"probe failed {where} reason=refused: 4",
        f"probe recovered {where}",
    ]


def test_the_targets_that_hang_are_bounded() -> None:
    source = Source("bmc")
    source.gate.clear()
    prober = make_prober(source, max_probes=2, timeout_s=0.1)
    for host in ("10.0.0.1", "10.0.0.2"):
        prober.probe("bmc", host, "default")
    with pytest.raises(TooManyProbes):
        prober.probe("bmc", "10.0.0.3", "default")
    source.gate.set()
    wait_for("a place to be free", lambda: _is_free(prober))


def _is_free(prober: Prober) -> bool:
    try:
        return prober.probe("bmc", "10.0.0.3", "default").is_success
    except TooManyProbes:
        return False


def test_two_scrapes_of_one_target_share_one_run() -> None:
    source = Source("bmc")
    source.gate.clear()
    prober = make_prober(source)
    found: list[bool] = []
    threads = [
        in_thread(lambda: found.append(prober.probe("bmc", "10.0.0.1", "x").is_success))
        for _ in range(2)
    ]
    wait_for("the run to begin", lambda: source.reads)
    source.gate.set()
    for thread in threads:
        thread.join(30)
    assert found == [True, True]
