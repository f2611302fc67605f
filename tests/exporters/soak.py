"""Let faults happen to simulated BMCs while an exporter reads them. Prints nothing."""

from __future__ import annotations

import contextlib
import http.client
import random
import re
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.exporters.bmc_faults import FAULTS, Fault
from tests.exporters.bmc_site import COLLECTORS, Page, Site
from tests.exporters.ipmi_lab import exporting
from tests.exporters.links import Links
from tests.exporters.running import Exporter

_CLIENT_TIMEOUT_S = 60.0
_TOLD = re.compile(
    r"INFO probe (failed|recovered) probe=ipmi target=(\S+) module=(\S+)(?: reason=(.*))?"
)
# What is read about the end of a memory curve and its beginning: the medians of these parts.
_SETTLED, _PART = 0.25, 0.2


@dataclass(frozen=True)
class Pace:
    """How much time there is."""

    # For a scrape as Prometheus would say it, and for one of a BMC that cannot answer.
    limit_s: float
    dead_limit_s: float
    # Within this time after the end of a fault the BMC must be read again.
    back_s: float
    # A site rests for up to so long after each fault.
    rest_s: float = 0.0
    # Whether there is time enough for a page that is complete in spite of a fault.
    is_patient: bool = True


@dataclass(frozen=True)
class Vitals:
    """What the exporter occupied at a time, in seconds from the beginning."""

    at_s: float
    rss_kib: int
    files: int
    threads: int

    @classmethod
    def of(cls, process: int, at_s: float) -> Vitals:
        """Look at a running process."""
        proc = Path("/proc") / str(process)
        status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
        return cls(
            at_s,
            int(status["VmRSS"].split()[0]),
            len(list((proc / "fd").iterdir())),
            int(status["Threads"]),
        )


@dataclass
class Record:
    """What has happened."""

    cycles: Counter[str] = field(default_factory=Counter)
    # Pages by whether they were complete.
    pages: Counter[bool] = field(default_factory=Counter)
    back_s: list[float] = field(default_factory=list)
    vitals: list[Vitals] = field(default_factory=list)
    # Faults after which a BMC cannot know that a session was given up, by the site's target.
    lost: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    @property
    def growth_kib(self) -> float:
        """How much more memory there was at the end than when the beginning was over."""
        sizes = [one.rss_kib for one in self.vitals]
        first, part = int(len(sizes) * _SETTLED), max(1, int(len(sizes) * _PART))
        return statistics.median(sizes[-part:]) - statistics.median(sizes[first : first + part])


class Soak:
    """Faults at many sites at once, each with a chance of its own from one seed."""

    def __init__(
        self, exporter: Exporter, sites: Sequence[Site], pace: Pace, seed: int
    ) -> None:
        self.record = Record()
        self._exporter = exporter
        self._sites = sites
        self._pace = pace
        self._seed = seed
        self._lock = threading.Lock()
        self._log_read = 0
        self._reasons: dict[tuple[str, str], str] = {}
        self._began = time.monotonic()

    def look(self) -> Vitals:
        """Record what the exporter occupies."""
        vitals = Vitals.of(self._exporter.process.pid, time.monotonic() - self._began)
        self.record.vitals.append(vitals)
        return vitals

    def look_if(self, threads: int, files: int | None = None) -> Vitals | None:
        """Return what the exporter occupies when it is so much."""
        vitals = self.look()
        is_so = vitals.threads == threads and files in (None, vitals.files)
        return vitals if is_so else None

    def run(self, is_over: Callable[[Record], bool], look_every_s: float) -> None:
        """Let faults happen until `is_over`; each site ends the one that it is at."""
        stop = threading.Event()
        threads = [
            threading.Thread(target=self._go_on, args=(number, site, stop))
            for number, site in enumerate(self._sites)
        ]
        for thread in threads:
            thread.start()
        try:
            look_at = 0.0
            while not is_over(self.record) and any(one.is_alive() for one in threads):
                if time.monotonic() >= look_at:
                    look_at = time.monotonic() + look_every_s
                    self.look()
                time.sleep(min(0.1, look_every_s))
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        self.look()

    def cycle(self, site: Site, fault: Fault, chance: random.Random) -> None:
        """Let one fault happen, and read the BMC meanwhile and when it is over."""
        site.change_values(chance)
        with fault.happens(site, chance):
            if fault.is_impatient:
                self._ask_and_leave(site)
            limit_s = self._pace.dead_limit_s if fault.is_up is False else self._pace.limit_s
            for _ in range(fault.scrapes):
                self._judge(site, fault, *self._scrape(site, limit_s, fault.module))
        with self._lock:
            self.record.cycles[fault.name] += 1
            if fault.is_restart:
                self.record.lost[site.target] = 0
            self.record.lost[site.target] += fault.loses
        self._wait_until_back(site, fault.name)

    def read_all(self) -> None:
        """Read every site once, without faults; what is not right is a problem."""
        for site in self._sites:
            self._wait_until_back(site, "nothing")

    def _go_on(self, number: int, site: Site, stop: threading.Event) -> None:
        chance = random.Random(f"{self._seed}-{number}")
        deck: list[Fault] = []
        while not stop.is_set():
            if not deck:  # each kind as often as the others
                deck = chance.sample(FAULTS, len(FAULTS))
            fault = deck.pop()
            try:
                self.cycle(site, fault, chance)
            except Exception as error:  # the boundary of a site: the others go on
                self._blame(site, fault.name, repr(error))
            stop.wait(chance.uniform(0, self._pace.rest_s))

    def _judge(self, site: Site, fault: Fault, page: Page, reason: str) -> None:
        for wrong in site.find_wrong(page):
            self._blame(site, fault.name, wrong)
        with self._lock:
            self.record.pages[page.is_complete] += 1
        if not page.is_complete and not reason:
            self._blame(site, fault.name, "ipmi_up 0 without a reason in the log")
        expected = fault.is_up if self._pace.is_patient or not fault.is_up else None
        if expected is not None and page.is_complete != expected:
            self._blame(site, fault.name, f"complete: {page.is_complete}; {reason}")
        if expected is False and fault.reason not in reason:
            self._blame(site, fault.name, f"{reason!r} in place of {fault.reason!r}")

    def _wait_until_back(self, site: Site, after: str) -> None:
        began = time.monotonic()
        while True:
            page, reason = self._scrape(site, self._pace.limit_s, "default")
            took_s = time.monotonic() - began
            for wrong in site.find_wrong(page):
                self._blame(site, after, f"afterwards, {wrong}")
            with self._lock:
                self.record.pages[page.is_complete] += 1
            if page.is_complete:
                break
            if took_s > self._pace.back_s:
                self._blame(site, after, f"not read again in {took_s:.1f} s: {reason}")
                return
            time.sleep(0.05)
        with self._lock:
            self.record.back_s.append(took_s)

    def _scrape(self, site: Site, limit_s: float, module: str) -> tuple[Page, str]:
        """Return the page, and why it is not complete, as the log says."""
        connection = http.client.HTTPConnection(
            "127.0.0.1", self._exporter.port, timeout=_CLIENT_TIMEOUT_S
        )
        headers = {"X-Prometheus-Scrape-Timeout-Seconds": str(limit_s)}
        with contextlib.closing(connection):
            connection.request("GET", _path(site, module), headers=headers)
            answer = connection.getresponse()
            text = answer.read().decode()
        assert answer.status == 200, text
        return Page.parse(text), self._reason(site, module)

    def _reason(self, site: Site, module: str) -> str:
        """Return why the BMC is not read, as the log has it; it tells beginning and end."""
        with self._lock:
            with self._exporter.log.open("rb") as log:
                log.seek(self._log_read)
                text = log.read()
            # A line of another site's may be there in part.
            text = text[: text.rfind(b"\n") + 1]
            self._log_read += len(text)
            for line in text.decode().splitlines():
                told = _TOLD.match(line)
                if told is not None:
                    self._reasons[told[2], told[3]] = told[4] if told[1] == "failed" else ""
        return self._reasons.get((site.target, module), "")

    def _ask_and_leave(self, site: Site) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._exporter.port)
        with contextlib.closing(connection):
            connection.request("GET", _path(site, "default"))

    def _blame(self, site: Site, fault: str, what: str) -> None:
        with self._lock:
            at_s = time.monotonic() - self._began
            self.record.problems.append(f"{at_s:.1f} s, {site.target}, {fault}: {what}")


def _path(site: Site, module: str) -> str:
    return f"/ipmi?target={site.target}&module={module}"


@contextlib.contextmanager
def watching(
    folder: Path, bmcs: int, seed: int = 0
) -> Iterator[tuple[Exporter, Sequence[Site]]]:
    """An exporter, and BMCs that it can ask by links; `seed` is that of the links' chance."""
    (folder / "wrong").write_text("not-the-password\n")
    modules: dict[str, dict[str, object]] = {
        "default": {"collectors": COLLECTORS},
        "wrong": {"collectors": COLLECTORS, "password_file": str(folder / "wrong")},
    }
    sites: list[Site] = []
    with Links(seed) as links, exporting(folder, modules) as exporter:
        try:
            for number in range(bmcs):
                sites.append(Site(folder, links, number))
            yield exporter, sites
        finally:
            for site in sites:
                site.bmc.stop()
