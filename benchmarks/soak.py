"""An hour of faults: what a running exporter says meanwhile, and what it leaks. Measures alone.

Simulated BMCs sit behind links of their own and are scraped all the time by a real exporter
process, while faults of all kinds befall them, in an order by chance: see
tests/exporters/bmc_faults.py. Each page must be right or say what is missing, and why; each BMC
must be read again when its fault is over; and the exporter's memory, descriptors and threads
and the BMCs' open sessions must stay what they were.

    script/bench soak [--minutes 60] [--cycles N] [--bmcs 8] [--seed N]

Exit status 1: a wrong page, a BMC that was not read again, or a leak.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.exporters.bmc_site import Site
from tests.exporters.ipmi_peers import count_sessions
from tests.exporters.soak import Pace, Record, Soak, Vitals, watching
from tests.lab.wait import wait_for

# As long as Prometheus usually waits, and all that a login with every fifth packet lost needs.
PACE = Pace(limit_s=20.0, dead_limit_s=10.0, back_s=3.0, rest_s=3.0)
LOOK_EVERY_S, COUNT_SESSIONS_EVERY_S = 5.0, 3.0
ROWS = 12
# What the BMCs forget by themselves after 30 s is forgotten after this time.
FORGOTTEN_S = 45.0

# After the first quarter. Freed memory goes back to the system in lumps.
MAX_GROWTH_KIB = 2048
# Those of the scrapes that run, and of questions to silent BMCs.
MAX_MORE_THREADS_PER_BMC, MAX_MORE_FILES_PER_BMC = 3, 5
# One is kept, one may be left by each of the faults of the last half minute.
MAX_SESSIONS = 10


def main(arguments: Sequence[str]) -> int:
    """Run and print; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--cycles", type=int, default=0, help="end after so many faults")
    parser.add_argument("--bmcs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**6)
    options = parser.parse_args(arguments)
    # The BMCs and the exporter end with it, whatever ends it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sys.stdout.write(f"seed {options.seed}\n")
    with tempfile.TemporaryDirectory(prefix="bench-soak-") as name:
        problems = list(
            soak(Path(name), options.bmcs, options.seed, options.minutes * 60, options.cycles)
        )
    for problem in problems:
        sys.stdout.write(f"\nFAILED: {problem}\n")
    return int(bool(problems))


def soak(folder: Path, bmcs: int, seed: int, seconds: float, cycles: int) -> Iterator[str]:
    """Run for `seconds`, or until there were so many `cycles` if not 0; yield what is wrong."""
    with watching(folder, bmcs, seed) as (exporter, sites):
        run = Soak(exporter, sites, PACE, seed)
        run.read_all()
        before = wait_for("one thread for all", lambda: run.look_if(threads=3))
        end_at = time.monotonic() + seconds
        with counting(sites) as sessions:
            run.run(
                lambda record: (
                    time.monotonic() >= end_at or 0 < cycles <= record.cycles.total()
                ),
                LOOK_EVERY_S,
            )
        time.sleep(FORGOTTEN_S)
        run.read_all()
        after = settle(run, before)
        open_after = [count_sessions(site.bmc) for site in sites]
        print_record(run.record, sessions)
        yield from run.record.problems
        yield from judge_vitals(run.record, before, after, bmcs)
        if not sessions:
            yield "no BMC ever said how many sessions it had"
        elif max(sessions) > MAX_SESSIONS:
            yield f"a BMC had {max(sessions)} sessions"
        if open_after != [1] * bmcs:
            yield f"one session for each BMC was to be kept: {open_after}"
        exporter.process.terminate()
        exporter.process.wait(20)
        if any(left := [count_sessions(site.bmc) for site in sites]):
            yield f"the exporter left sessions open: {left}"


@contextlib.contextmanager
def counting(sites: Sequence[Site]) -> Iterator[list[int]]:
    """Count the sessions of one BMC after the other until the block ends."""
    counts: list[int] = []
    is_over = threading.Event()

    def count() -> None:
        for site in itertools.cycle(sites):
            if is_over.wait(COUNT_SESSIONS_EVERY_S):
                return
            with contextlib.suppress(OSError):  # it is not there at present
                counts.append(count_sessions(site.bmc))

    thread = threading.Thread(target=count, name="sessions")
    thread.start()
    try:
        yield counts
    finally:
        is_over.set()
        thread.join()


def settle(run: Soak, before: Vitals) -> Vitals:
    """Return what the exporter occupies when its last requests are over."""
    deadline = time.monotonic() + 10
    while not (found := run.look_if(before.threads, before.files)):
        if time.monotonic() > deadline:
            return run.look()
        time.sleep(0.5)
    return found


def judge_vitals(record: Record, before: Vitals, after: Vitals, bmcs: int) -> Iterator[str]:
    """Yield what has become more."""
    if after.files != before.files or after.threads != before.threads:
        yield f"descriptors or threads were left: {before}, then {after}"
    if record.growth_kib > MAX_GROWTH_KIB:
        yield f"the memory grew by {record.growth_kib:.0f} KiB after the first quarter"
    most_files = max(one.files for one in record.vitals)
    if most_files > before.files + MAX_MORE_FILES_PER_BMC * bmcs:
        yield f"{most_files} descriptors at once"
    most_threads = max(one.threads for one in record.vitals)
    if most_threads > before.threads + MAX_MORE_THREADS_PER_BMC * bmcs:
        yield f"{most_threads} threads at once"


def print_record(record: Record, sessions: Sequence[int]) -> None:
    """Print what happened, and the exporter over time, as Markdown tables."""
    pages, back = record.pages, record.back_s
    sys.stdout.write(
        f"\n{record.cycles.total()} faults, {pages.total()} pages: {pages[True]} complete,"
        f" {pages[False]} with `ipmi_up 0` and a reason, {len(record.problems)} wrong. Read"
        f" again {statistics.median(back):.2f} s after a fault at the median, {max(back):.2f} s"
        f" at most. A BMC had {max(sessions, default=0)} sessions at most.\n\n"
        "| fault | times |\n|---|---|\n"
    )
    for name, times in sorted(record.cycles.items()):
        sys.stdout.write(f"| {name} | {times} |\n")
    sys.stdout.write("\n| minutes | memory MiB | descriptors | threads |\n|---|---|---|---|\n")
    step = max(1, len(record.vitals) // ROWS)
    for first, following in itertools.pairwise([*range(0, len(record.vitals), step), None]):
        part = record.vitals[first:following]
        memory_mib = statistics.median(one.rss_kib for one in part) / 1024
        sys.stdout.write(
            f"| {part[0].at_s / 60:.1f} | {memory_mib:.1f}"
            f" | {statistics.median(v.files for v in part):.0f}"
            f" | {statistics.median(v.threads for v in part):.0f} |\n"
        )
    sys.stdout.write(f"\nMemory after the first quarter: {record.growth_kib:+.0f} KiB.\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
