"""Probing many targets side by side: one that hangs or fails is its own asker's affair."""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest

from sentinel_exporters.core import CollectorSettings, Sample, Target
from sentinel_exporters.errors import BadTarget, CollectorError
from sentinel_exporters.outcome import Outcome
from sentinel_exporters.probed import Asked, Probed
from sentinel_exporters.prober import Prober, TooManyProbes
from tests.exporters.toy import (
    VALUE,
    Source,
    in_thread,
    is_waiting,
    make_prober,
    refuse_threads,
)
from tests.lab.wait import wait_for


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
    wait_for("both to wait for it", lambda: all(map(is_waiting, threads)))
    source.gate.set()
    for thread in threads:
        thread.join(30)
    assert found == [True, True]
    assert source.reads == 1


@dataclass
class Hasty(Source):
    """A source that fails whoever has less than ten seconds for it."""

    def answer(self, target: Target | None) -> str:
        assert target is not None
        if target.timeout_s < 10:
            raise CollectorError("no time")
        return target.address


@pytest.mark.parametrize(
    ("first_s", "second_s", "is_second_read", "reads"),
    [(5, 60, True, 2), (5, 5, False, 1), (60, 5, True, 1)],
)
def test_who_has_more_time_asks_again_where_the_other_had_too_little(
    first_s: float, second_s: float, is_second_read: bool, reads: int
) -> None:
    source = Hasty("bmc")
    source.gate.clear()
    prober = make_prober(source)
    found: dict[str, Outcome] = {}

    def ask(who: str, limit_s: float) -> None:
        found[who] = prober.probe("bmc", "10.0.0.1", "x", limit_s)

    first = in_thread(lambda: ask("first", first_s))
    wait_for("the first to be asked for", lambda: source.is_held)
    second = in_thread(lambda: ask("second", second_s))
    wait_for("the second to wait for it", lambda: is_waiting(second))
    source.gate.set()
    for one in (first, second):
        one.join(30)
    assert found["first"].is_success == (first_s >= 10)
    assert found["second"].is_success == is_second_read
    assert source.reads == reads


def test_who_joins_late_has_all_of_its_own_time() -> None:
    source = Source("bmc")
    source.gate.clear()
    prober = make_prober(source, timeout_s=60)
    assert not prober.probe("bmc", "10.0.0.1", "x", limit_s=0.3).is_success
    began = time.monotonic()
    assert not prober.probe("bmc", "10.0.0.1", "x", limit_s=0.3).is_success
    assert time.monotonic() - began >= 0.3
    source.gate.set()


def test_a_target_for_which_there_is_no_thread_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_threads(monkeypatch, "collector-bmc")
    outcome = make_prober(Source("bmc")).probe("bmc", "10.0.0.1", "x")
    assert outcome.problems == ("can't start new thread",)
    assert outcome.samples == (VALUE.sample(0, "10.0.0.1"),)


def begin(prober: Prober, limit_s: float = 30) -> list[Callable[[], Outcome]]:
    """Begin to probe, and return the list in which the result will be."""
    results: list[Callable[[], Outcome]] = []
    assert prober.begin("bmc", "10.0.0.1", "x", limit_s, results.append)
    return results


def test_a_probe_that_begins_without_waiting_ends_as_others_do() -> None:
    source = Source("bmc", begins=True)
    prober = make_prober(source)
    for error, samples in (
        (None, (VALUE.sample(1, "10.0.0.1"),)),
        (CollectorError("refused"), (VALUE.sample(0, "10.0.0.1"),)),
    ):
        source.error = error
        results = begin(prober)
        assert results == []
        source.begun.pop()()
        (result,) = results
        assert result().samples == samples
        assert result().is_success == (error is None)
    source.error = BadTarget("no such module")
    results = begin(prober)
    source.begun.pop()()
    with pytest.raises(BadTarget, match="no such module"):
        results[0]()


def test_a_probe_that_cannot_begin_is_left_to_a_thread() -> None:
    source = Source("bmc", begins=True, begin_error=ValueError("bug"))
    prober = make_prober(source)
    assert not prober.begin("bmc", "10.0.0.1", "x", 30, lambda _result: None)
    # And is not taken for one that is under way.
    assert prober.probe("bmc", "10.0.0.1", "x", limit_s=30).is_success
    assert not make_prober(Source("bmc")).begin("bmc", "a", "x", 30, lambda _result: None)


def test_a_target_that_is_being_probed_does_not_begin_again() -> None:
    source = Source("bmc", begins=True)
    prober = make_prober(source, max_probes=2)
    begin(prober)
    assert not prober.begin("bmc", "10.0.0.1", "x", 30, lambda _result: None)
    assert prober.begin("bmc", "10.0.0.2", "x", 30, lambda _result: None)
    # There is no room for a third.
    assert not prober.begin("bmc", "10.0.0.3", "x", 30, lambda _result: None)
    # Who needs a thread waits for the one that has begun.
    found: list[bool] = []
    thread = in_thread(
        lambda: found.append(prober.probe("bmc", "10.0.0.1", "x", 30).is_success)
    )
    wait_for("it to be waited for", lambda: is_waiting(thread))
    source.begun[0]()
    thread.join(30)
    assert found == [True]
    assert source.reads == 0


def test_what_is_said_of_an_unread_target_may_fail_too() -> None:
    def unread(_settings: CollectorSettings, _target: Target) -> Sequence[Sample]:
        raise KeyError("module")

    source = Source("bmc", error=CollectorError("refused"))
    prober = make_prober(source, unread=unread)
    outcome = prober.probe("bmc", "10.0.0.1", "x")
    assert outcome.problems == ("refused", "KeyError: 'module'")
    assert outcome.samples == ()


def test_it_is_remembered_how_the_targets_fared() -> None:
    source = Source("bmc")
    prober = make_prober(source)
    assert prober.last_results() == []
    for address in ("10.0.0.2", "10.0.0.1"):
        prober.probe("bmc", address, "x")
    source.error = CollectorError("refused")
    prober.probe("bmc", "10.0.0.3", "x")
    source.error = BadTarget("no such module")
    with pytest.raises(BadTarget):
        prober.probe("bmc", "10.0.0.4", "x")
    results = prober.last_results()
    # Those that fail first; one that is no target is none here either.
    assert [one.asked.address for one in results] == ["10.0.0.3", "10.0.0.1", "10.0.0.2"]
    assert [one.reason for one in results] == ["refused", "", ""]
    assert [one.series for one in results] == [0, 1, 1]


def test_a_targets_last_success_outlives_a_failure_and_is_its_own() -> None:
    source = Source("bmc")
    prober = make_prober(source)
    before = prober.probe("bmc", "10.0.0.1", "default").last_success
    assert before is not None
    assert 0 <= time.time() - before < 60
    source.error = CollectorError("dead")
    assert prober.probe("bmc", "10.0.0.1", "default").last_success == before
    assert prober.probe("bmc", "10.0.0.2", "default").last_success is None
    source.error = None
    after = prober.probe("bmc", "10.0.0.1", "default").last_success
    assert after is not None
    assert after > before


def test_what_is_no_longer_asked_is_no_longer_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    prober = make_prober(Source("bmc"))
    prober.probe("bmc", "10.0.0.1", "x")
    later = time.monotonic() + 3601
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert prober.last_results() == []


def test_of_a_crowd_of_targets_the_last_are_remembered() -> None:
    probed = Probed()
    for at in range(5000):
        probed.note(Asked("bmc", f"host{at}", "x"), Outcome("bmc"))
    addresses = {one.asked.address for one in probed.recent()}
    assert addresses == {f"host{at}" for at in range(5000 - 4096, 5000)}


def test_what_a_probe_found_is_not_kept() -> None:
    prober = make_prober(Source("bmc"))
    found = weakref.ref(prober.probe("bmc", "10.0.0.1", "x").samples[0])
    # The run's thread may be about to end.
    wait_for("it to be gone", lambda: found() is None)
