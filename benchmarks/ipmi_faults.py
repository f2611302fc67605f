"""How long BMCs take to read on a bad network, and to be known as dead and as back.

It measures beside Debian's ipmi_exporter and changes nothing. Both ask the same simulated BMCs,
of 40 sensors and 5 ms an answer, by links of their own that lose packets of both directions;
ours keeps its sessions, and ipmi_exporter its cache of SDR records, from a scrape before.

    script/bench ipmi_faults

Exit status 1: a limit was passed, or a scrape of ours failed on a network that loses packets.
"""

from __future__ import annotations

import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.ipmi import DELAY_S, OURS, PEER, Exporter, exporting, fetch_all, is_complete
from tests.exporters.bmc import Bmc
from tests.exporters.bmc_fleet import PORT, running
from tests.exporters.links import CLEAR, CUT, Link, Links, Weather

BMCS = 8
SEED = 5
LOSSES = (1, 5, 20)
CUT_OFF = "cut off"
# The last words of rows that have a limit.
SAID, READ = "said after", "read after"
# Ours are quick: more of them say more of the median.
SWEEPS = {OURS: 5, PEER: 1}

LOSS_5_MAX_S = 1.3
# Five seconds of silence, and the page.
DEAD_MAX_S = 5.3
BACK_MAX_S = 3.0
_ASK_AGAIN_S = 0.1
_GIVE_UP_S = 40.0


@dataclass
class Row:
    """One fault and one exporter: how long each of the BMCs took, and what failed."""

    fault: str
    name: str
    took_s: list[float]
    failed: int = 0

    @property
    def median_s(self) -> float:
        return statistics.median(self.took_s)


@dataclass
class Site:
    """A BMC and the way to it."""

    bmc: Bmc
    link: Link

    @property
    def target(self) -> str:
        """What `?target=` takes."""
        return f"127.0.0.1:{self.link.port}"


def main() -> int:
    """Measure and print; return the exit status."""
    # The BMCs and the exporters end with it, whatever ends it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    rows: list[Row] = []
    with (
        tempfile.TemporaryDirectory(prefix="bench-ipmi-faults-") as name,
        running(Path(name), BMCS, DELAY_S, port=PORT + 9) as bmcs,
        Links(SEED) as links,
    ):
        sites = [Site(bmc, links.add((bmc.host, bmc.port))) for bmc in bmcs]
        for kind in (OURS, PEER):
            with exporting(kind, Path(name)) as exporter:
                sweep(exporter, sites)
                rows += measure_losses(exporter, sites)
                rows += measure_death(exporter, sites)
    order = [row.fault for row in rows]
    rows.sort(key=lambda row: order.index(row.fault))
    print_rows(rows)
    problems = list(judge(rows))
    for problem in problems:
        sys.stdout.write(f"\nFAILED: {problem}\n")
    return int(bool(problems))


def sweep(exporter: Exporter, sites: Sequence[Site]) -> tuple[list[float], int]:
    """Ask for all at once; returns how long each took, and how many were not complete."""
    pages, took_s = fetch_all(exporter.port, [site.target for site in sites])
    return list(took_s.values()), sum(not is_complete(page) for page in pages.values())


def name_loss(percent: int) -> str:
    """Return what the row of a network that loses so much is called."""
    return f"{percent}% of packets lost"


def measure_losses(exporter: Exporter, sites: Sequence[Site]) -> Iterator[Row]:
    """Sweep while the links lose packets."""
    for percent in (0, *LOSSES):
        row = Row(name_loss(percent), exporter.name, [])
        for site in sites:
            site.link.weather = Weather(lost=percent / 100)
        for _ in range(SWEEPS[exporter.name]):
            took_s, failed = sweep(exporter, sites)
            row.took_s += took_s
            row.failed += failed
        yield row
    for site in sites:
        site.link.weather = CLEAR
    sweep(exporter, sites)


def measure_death(exporter: Exporter, sites: Sequence[Site]) -> Iterator[Row]:
    """Let the BMCs be cut off, hang and restart: time until that is said, and until it is over.

    What is to fail is no failure; what is read in spite of it is one.
    """

    def set_weather(weather: Weather) -> Callable[[], None]:
        def do() -> None:
            for site in sites:
                site.link.weather = weather

        return do

    def restart() -> None:
        for site in sites:
            site.bmc.stop()
        for site in sites:
            site.bmc.launch()
        for site in sites:
            site.bmc.wait_until_ready()

    def each(act: Callable[[Bmc], None]) -> Callable[[], None]:
        def do() -> None:
            for site in sites:
                act(site.bmc)

        return do

    faults = (
        (CUT_OFF, set_weather(CUT), set_weather(CLEAR)),
        ("hangs", each(Bmc.pause), each(Bmc.resume)),
    )
    for fault, begin, end in faults:
        begin()
        took_s, failed = sweep(exporter, sites)
        yield Row(f"{fault}: {SAID}", exporter.name, took_s, len(sites) - failed)
        if fault == CUT_OFF:  # a hanging one is alike, and the peer takes its time
            took_s, failed = sweep(exporter, sites)
            yield Row(f"{fault}: said again after", exporter.name, took_s, len(sites) - failed)
        end()
        yield time_return(f"{fault}, then back: {READ}", exporter, sites)
    restart()
    yield time_return(f"restarted between two scrapes: {READ}", exporter, sites)


def time_return(fault: str, exporter: Exporter, sites: Sequence[Site]) -> Row:
    """Scrape again and again until each BMC is read."""
    row = Row(fault, exporter.name, [])
    began = time.perf_counter()
    waiting = list(sites)
    while waiting and time.perf_counter() - began < _GIVE_UP_S:
        at_s = time.perf_counter() - began
        pages, took_s = fetch_all(exporter.port, [site.target for site in waiting])
        back = [site for site in waiting if is_complete(pages[site.target])]
        row.took_s += [at_s + took_s[site.target] for site in back]
        waiting = [site for site in waiting if site not in back]
        time.sleep(_ASK_AGAIN_S if waiting else 0)
    row.failed = len(waiting)
    row.took_s += [_GIVE_UP_S] * len(waiting)
    return row


def judge(rows: Sequence[Row]) -> Iterator[str]:
    """Yield what is not as it must be, of ours."""
    for row in rows:
        if row.name != OURS:
            continue
        if row.failed:
            yield f"{row.fault}: {row.failed} of {len(row.took_s)} failed"
        if row.fault == name_loss(5) and row.median_s >= LOSS_5_MAX_S:
            yield f"{row.fault}: {row.median_s:.2f} s, {LOSS_5_MAX_S} s or more"
        if row.fault.endswith(f": {SAID}") and max(row.took_s) > DEAD_MAX_S:
            yield f"{row.fault}: {max(row.took_s):.2f} s, more than {DEAD_MAX_S} s"
        if row.fault.endswith(f": {READ}") and max(row.took_s) > BACK_MAX_S:
            yield f"{row.fault}: {max(row.took_s):.2f} s, more than {BACK_MAX_S} s"


def print_rows(rows: Sequence[Row]) -> None:
    """Print a Markdown table; the ratio is that of the peer's median to ours."""
    sys.stdout.write(
        f"\n{BMCS} BMCs at once.\n\n"
        "| | exporter | scrapes | median s | greatest s | failed | times as fast |\n"
        "|---|---|---|---|---|---|---|\n"
    )
    for row in rows:
        peer = next(one for one in rows if one.fault == row.fault and one.name == PEER)
        sys.stdout.write(
            f"| {row.fault} | {row.name} | {len(row.took_s)} | {row.median_s:.2f} "
            f"| {max(row.took_s):.2f} | {row.failed} | {peer.median_s / row.median_s:.1f} |\n"
        )


if __name__ == "__main__":
    sys.exit(main())
