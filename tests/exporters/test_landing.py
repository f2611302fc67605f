"""The page for people says how each collector fares, and believes no text that it is given."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from sentinel_exporters.core import CollectorSettings
from sentinel_exporters.errors import CollectorError
from sentinel_exporters.landing import write_page
from sentinel_exporters.outcome import Outcome
from sentinel_exporters.probed import Asked, LastProbe
from sentinel_exporters.runner import LastResult
from tests.exporters.toy import VALUE, Source, collect, make_runner
from tests.lab.wait import wait_for

GOOD = Outcome("gpu", (VALUE.sample(1, "a"),), 0.02, (), 1_700_000_000, 3.0)


def page(
    *results: LastResult, probes: tuple[str, ...] = (), targets: Sequence[LastProbe] = ()
) -> str:
    return write_page("1.2", "node7", results, probes, targets).decode()


def cells(*results: LastResult) -> list[list[str]]:
    return rows(page(*results))


def rows(text: str) -> list[list[str]]:
    """Return the text of each row's cells."""
    found = re.findall(r"<tr[^>]*>(.*?)</tr>", text, re.DOTALL)[1:]
    return [
        [re.sub("<.*?>", "", cell) for cell in re.findall(r"<td.*?</td>", row)] for row in found
    ]


def test_a_success_has_its_series_duration_age_and_time() -> None:
    # The outcome is the one of a scrape two seconds ago.
    assert cells(LastResult("gpu", 0, GOOD, 2.0)) == [
        ["gpu", "ok", "1", "20 ms", "5.0 s", "2023-11-14 22:13:20 UTC", "at each scrape"]
    ]


def test_a_failure_has_its_reason() -> None:
    failed = Outcome("npu", (), 9.0, ("no answer", "<b>&"), None, None)
    rows = cells(LastResult("npu", 15, failed, 0))
    assert rows[0] == ["npu", "failed", "0", "9.0 s", "", "never", "every 15 s"]
    assert rows[1] == ["no answer; &lt;b&gt;&amp;"]


def test_what_has_not_run_and_what_is_not_there_is_said_so() -> None:
    absent = replace(GOOD, is_absent=True)
    rows = cells(LastResult("gpu", 0, None, 0), LastResult("npu", 0, absent, 0))
    assert [row[1] for row in rows] == ["not read yet", "not on this machine"]


def test_a_page_has_a_form_for_each_probe_and_no_empty_table() -> None:
    text = page(probes=("ipmi",))
    assert '<form action="ipmi">' in text
    assert "<table>" not in text


def test_a_target_has_its_result_and_the_reason_if_it_failed() -> None:
    failed = LastProbe(Asked("ipmi", "10.0.0.1", "default"), "no answer <b>", 0, 5.0, 61.0)
    good = LastProbe(Asked("ipmi", "[::1]", "few"), "", 42, 0.2, 3.0)
    text = page(probes=("ipmi",), targets=[failed, good])
    assert rows(text) == [
        ["ipmi", "10.0.0.1", "default", "failed", "0", "5.0 s", "61.0 s ago"],
        ["no answer &lt;b&gt;"],
        ["ipmi", "[::1]", "few", "ok", "42", "200 ms", "3.0 s ago"],
    ]
    assert "2 in the last hour, 1 failed</p>" in text


def test_of_a_crowd_of_targets_the_first_are_shown() -> None:
    targets = [LastProbe(Asked("ipmi", f"h{at}", "x"), "", 1, 0.2) for at in range(1500)]
    text = page(targets=targets)
    assert len(rows(text)) == 1000
    assert "1500 in the last hour, 0 failed; 500 more are not shown" in text


def test_looking_at_it_reads_no_source() -> None:
    source = Source("a")
    runner = make_runner(source)
    assert [(one.collector, one.outcome) for one in runner.last_results()] == [("a", None)]
    assert source.reads == 0
    collect(runner)
    (shown,) = runner.last_results()
    assert shown.outcome is not None
    assert shown.outcome.is_success
    assert source.reads == 1


def test_an_absent_source_is_shown_though_it_has_no_series() -> None:
    runner = make_runner(Source("a", is_present=False), is_auto=True)
    assert collect(runner) == {}
    (shown,) = runner.last_results()
    assert shown.outcome is not None
    assert shown.outcome.is_absent


def test_what_is_read_in_the_background_is_shown_as_it_is_now() -> None:
    source = Source("a")
    source.gate.clear()
    settings = CollectorSettings(interval_s=0.02, timeout_s=30)
    runner = make_runner(source, settings=settings)
    runner.start()
    try:
        assert runner.last_results()[0].outcome is None
        source.gate.set()
        wait_for("a result", lambda: runner.last_results()[0].outcome)
        source.error = CollectorError("gone")
        wait_for(
            "the failure, though nobody scrapes",
            lambda: (one := runner.last_results()[0].outcome) and one.problems == ("gone",),
        )
    finally:
        runner.stop()
