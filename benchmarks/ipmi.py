"""How long a sweep of many BMCs takes, and its processor time, beside Debian's ipmi_exporter.

It measures and prints tables, and changes nothing: the simulated BMCs listen on loopback's
addresses 127.1.0.0/16. Both exporters have only the collector `ipmi`, ask the same BMCs in
turn, so that a machine that is slower for a while is so for both, and are asked over HTTP by a
client that opens all connections at once, as Prometheus may. Processor time is that of the
exporter and of the programs that it starts.

    script/bench ipmi [--quick]

Exit status 1: a limit was passed, or an answer lacked a sensor.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.exporters.bmc import PASSWORD, USER, Bmc
from tests.exporters.bmc_fleet import FORTY, running
from tests.exporters.running import environment
from tests.lab.ports import free_ports
from tests.lab.wait import wait_for

DELAY_S = 0.005
OURS, PEER = "sentinel-exporter", "ipmi_exporter"
# A sweep takes as long as the answers of one BMC, whatever else happens.
FLOOR_S = len(FORTY) * DELAY_S + 0.01
SIZES = (1, 10, 50, 200)

FASTER_AT_200, LESS_CPU_AT_200, FLOORS_AT_50 = 6.0, 20.0, 1.2
CACHED_MAX_MS = 5.0
# What "not slower" is held against: sweeps of the same kind differ by so much.
TOLERANCE = 1.1

# A value and a state, or a state alone.
_LINES = sum(2 if sensor.event_type == 1 else 1 for sensor in FORTY)


@dataclass
class Sweep:
    """One round of scrapes of all targets."""

    wall_s: float
    cpu_s: float
    # By target: the page, and how long it took.
    pages: Mapping[str, bytes]
    took_s: Mapping[str, float]


@dataclass
class Exporter:
    """A running exporter."""

    name: str
    port: int
    process: subprocess.Popen[bytes]

    def cpu_s(self) -> float:
        """Return the processor time of the process and of its children that have ended."""
        text = Path(f"/proc/{self.process.pid}/stat").read_text()
        ticks = text.rpartition(") ")[2].split()[11:15]
        return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")

    def sweep(self, bmcs: Sequence[Bmc]) -> Sweep:
        """Ask for all of them at once."""
        before = self.cpu_s()
        began = time.perf_counter()
        pages, took_s = fetch_all(self.port, [bmc.target for bmc in bmcs])
        wall_s = time.perf_counter() - began
        time.sleep(0.3)  # the exporters tidy up after their answers
        return Sweep(wall_s, self.cpu_s() - before, pages, took_s)


@dataclass
class Row:
    """What was measured of one exporter at one size."""

    name: str
    size: int
    cold: Sweep
    warm: list[Sweep] = field(default_factory=list)

    @property
    def wall_s(self) -> float:
        return statistics.median(sweep.wall_s for sweep in self.warm)

    @property
    def cpu_s(self) -> float:
        return statistics.median(sweep.cpu_s for sweep in self.warm)


def main(arguments: Sequence[str]) -> int:
    """Measure and print; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="10 and 50 BMCs, fewer sweeps")
    is_quick: bool = parser.parse_args(arguments).quick
    # The fleet and the exporters end with it, whatever ends it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sizes = SIZES[1:3] if is_quick else SIZES
    rounds = 1 if is_quick else 4
    problems: list[str] = []
    with tempfile.TemporaryDirectory(prefix="bench-ipmi-") as name:
        folder = Path(name)
        with running(folder, max(sizes), DELAY_S) as bmcs:
            rows = [row for size in sizes for row in measure(folder, bmcs[:size], rounds)]
            print_rows(rows)
            problems += judge_rows(rows)
            problems += measure_cached(folder, bmcs[0])
            problems += measure_dead(folder, bmcs, 2 * rounds)
    for problem in problems:
        sys.stdout.write(f"\nFAILED: {problem}\n")
    return int(bool(problems))


def measure(folder: Path, bmcs: Sequence[Bmc], rounds: int) -> list[Row]:
    """Sweep once with exporters that know nothing yet, then in turn: four of ours, one."""
    with exporting(OURS, folder) as ours, exporting(PEER, folder) as peer:
        rows = [Row(one.name, len(bmcs), one.sweep(bmcs)) for one in (ours, peer)]
        for one in (ours, peer):
            one.sweep(bmcs)
        for _ in range(rounds):
            rows[0].warm += [ours.sweep(bmcs) for _ in range(4)]
            rows[1].warm.append(peer.sweep(bmcs))
    return rows


def judge_rows(rows: Sequence[Row]) -> Iterator[str]:
    """Yield what is not as it must be."""
    for row in rows:
        for sweep in (row.cold, *row.warm):
            for target, page in sweep.pages.items():
                if not is_complete(page):
                    yield f"{row.name}: the page of {target} is not complete: {page[:300]!r}"
                    break
    for ours, peer in zip(rows[::2], rows[1::2], strict=True):
        at = f"{ours.size} BMCs"
        if ours.wall_s > peer.wall_s:
            yield f"{at}: slower than {PEER}"
        if ours.cold.wall_s > peer.cold.wall_s:
            yield f"{at}: the first sweep is slower than that of {PEER}"
        if ours.size == 50 and ours.wall_s > FLOORS_AT_50 * FLOOR_S:
            yield f"{at}: {ours.wall_s:.3f} s is more than {FLOORS_AT_50} × {FLOOR_S:.2f} s"
        if ours.size == 200:
            if peer.wall_s < FASTER_AT_200 * ours.wall_s:
                yield f"{at}: not {FASTER_AT_200:.0f} times as fast as {PEER}"
            if peer.cpu_s < LESS_CPU_AT_200 * ours.cpu_s:
                yield f"{at}: more than a {LESS_CPU_AT_200:.0f}th of {PEER}'s processor time"


def print_rows(rows: Sequence[Row]) -> None:
    """Print a Markdown table of first and warm sweeps."""
    sys.stdout.write(
        f"\nA sweep takes {FLOOR_S:.2f} s at least.\n\n"
        "| BMCs | exporter | first s | CPU s | warm s | CPU s | times as fast | less CPU |\n"
        "|---|---|---|---|---|---|---|---|\n"
    )
    for row in rows:
        peer = next(one for one in rows if one.size == row.size and one.name == PEER)
        sys.stdout.write(
            f"| {row.size} | {row.name} | {row.cold.wall_s:.2f} | {row.cold.cpu_s:.2f} "
            f"| {row.wall_s:.3f} | {row.cpu_s:.2f} | {peer.wall_s / row.wall_s:.1f} "
            f"| {peer.cpu_s / max(row.cpu_s, 0.01):.1f} |\n"
        )


def measure_cached(folder: Path, bmc: Bmc) -> Iterator[str]:
    """Time scrapes that are served again, by `max_age_s`."""
    with exporting(OURS, folder, "max_age_s = 60") as exporter:
        exporter.sweep([bmc])
        took_ms = []
        for _ in range(100):
            began = time.perf_counter()
            pages, _ = fetch_all(exporter.port, [bmc.target])
            took_ms.append((time.perf_counter() - began) * 1000)
    median_ms = statistics.median(took_ms)
    sys.stdout.write(f"\nA scrape that is served again: {median_ms:.2f} ms at the median.\n")
    if median_ms >= CACHED_MAX_MS:
        yield f"a scrape that is served again takes {CACHED_MAX_MS:.0f} ms or more"
    if b"ipmi_scrape_age_seconds" not in pages[bmc.target]:
        yield "a scrape that is served again says nothing of its age"


def measure_dead(folder: Path, bmcs: Sequence[Bmc], sweeps: int) -> Iterator[str]:
    """Let every tenth BMC hang, and time when the others are read in a sweep of all."""
    dead = bmcs[::10]
    alive = [bmc.target for bmc in bmcs if bmc not in dead]

    def read_the_others(exporter: Exporter) -> float:
        times = (exporter.sweep(bmcs).took_s for _ in range(sweeps))
        return statistics.median(max(took[at] for at in alive) for took in times)

    with exporting(OURS, folder) as exporter:
        exporter.sweep(bmcs)
        before = read_the_others(exporter)
        for bmc in dead:
            bmc.pause()
        try:
            known_s = exporter.sweep(bmcs).wall_s
            during = read_the_others(exporter)
            last = exporter.sweep(dead)
        finally:
            for bmc in dead:
                bmc.resume()
    sys.stdout.write(
        f"\n{len(dead)} of {len(bmcs)} BMCs hang: known after {known_s:.1f} s, then said within"
        f" {last.wall_s:.2f} s.\nThe others are read in {during:.3f} s, before in {before:.3f}"
        " s.\n"
    )
    if during > TOLERANCE * before:
        yield "dead BMCs make the sweep of the others slower"
    if not all(b'ipmi_up{collector="ipmi"} 0' in page for page in last.pages.values()):
        yield "a BMC that hangs is not said to"


def is_complete(page: bytes) -> bool:
    """Whether every sensor of the fleet is on it."""
    lines = [line for line in page.decode().splitlines() if '{id="' in line]
    return sum(not line.endswith(" NaN") for line in lines) == _LINES


def fetch_all(port: int, targets: Sequence[str]) -> tuple[dict[str, bytes], dict[str, float]]:
    """Scrape all targets at once; returns their pages, head and body, and when they came."""
    began = time.perf_counter()
    waiting: dict[int, tuple[str, socket.socket, list[bytes]]] = {}
    epoll = select.epoll()
    for target in targets:
        connection = socket.create_connection(("127.0.0.1", port))
        connection.sendall(
            f"GET /ipmi?target={target}&module=default HTTP/1.1\r\n"
            f"Host: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()
        )
        connection.setblocking(False)
        waiting[connection.fileno()] = target, connection, []
        epoll.register(connection.fileno(), select.EPOLLIN)
    pages: dict[str, bytes] = {}
    took_s: dict[str, float] = {}
    while waiting:
        ready = epoll.poll(60)
        if not ready:
            raise TimeoutError(f"{len(waiting)} scrapes were not answered")
        for number, _ in ready:
            target, connection, parts = waiting[number]
            part = connection.recv(1 << 16)
            parts.append(part)
            if not part:
                epoll.unregister(number)
                connection.close()
                del waiting[number]
                pages[target] = b"".join(parts)
                took_s[target] = time.perf_counter() - began
    epoll.close()
    return pages, took_s


@contextmanager
def exporting(kind: str, folder: Path, setting: str = "") -> Iterator[Exporter]:
    """Run one of the exporters, which has never seen any of the BMCs."""
    (port,) = free_ports(1)
    own = Path(tempfile.mkdtemp(dir=folder))
    log = own / "log"
    command = ours(own, port, setting) if kind == OURS else peer(own, port)
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment())
    try:

        def is_listening() -> bool:
            assert process.poll() is None, log.read_text()
            with socket.create_connection(("127.0.0.1", port)):
                return True

        wait_for(f"{kind} listens", is_listening)
        yield Exporter(kind, port, process)
    finally:
        process.terminate()
        process.wait()


def ours(folder: Path, port: int, setting: str) -> list[str]:
    """Return the command of our exporter."""
    (folder / "password").write_text(f"{PASSWORD}\n")
    config = folder / "exporter.toml"
    config.write_text(
        f'listen = "127.0.0.1:{port}"\ncollectors = ["ipmi"]\n[ipmi]\n{setting}\n'
        f'[ipmi.modules.default]\nuser = "{USER}"\ncollectors = ["ipmi"]\n'
        f'password_file = "{folder / "password"}"\n'
    )
    return [sys.executable, "-m", "sentinel_exporters", "serve", "--config", str(config)]


def peer(folder: Path, port: int) -> list[str]:
    """Return the command of Debian's exporter, with a cache of SDR records of its own."""
    module = {
        "user": USER, "pass": PASSWORD, "driver": "LAN_2_0", "privilege": "user",
        "timeout": 20000, "collectors": ["ipmi"],
        # The simulator opens sessions only without a privilege level in the request.
        "workaround_flags": ["opensesspriv"],
        "custom_args": {"ipmi": [f"--sdr-cache-directory={folder}"]},
    }  # fmt: skip
    config = folder / "peer.yml"
    config.write_text(json.dumps({"modules": {"default": module}}))  # JSON is YAML
    return ["prometheus-ipmi-exporter", "--config.file", str(config),
            "--web.listen-address", f"127.0.0.1:{port}"]  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
