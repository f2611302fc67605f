"""How long a scrape of a node takes: 8 GPUs, 8 NPUs, 50 SSH sessions, all collectors.

It measures and prints a table; it changes nothing outside its own node. Real are sshd, the
sessions and their processes, the exporters and the network between; the driver's library and
npu-smi are stand-ins, which answer at once: a driver's own time comes on top.

    script/bench node_scrape [--scrapes 100]        as root

Exit status 1: a scrape of sentinel-exporter takes too long, or lacks something.
"""

from __future__ import annotations

import argparse
import http.client
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.sessions import cpu_s
from tests.exporters.nvml_driver import FULL, Driver, build
from tests.exporters.running import NPU_SMI, parse_series, values
from tests.lab.connections import Connections
from tests.lab.node import Node, why_not
from tests.lab.wait import wait_for

SCRAPE_MAX_MS = 50.0
GPUS = 8
# In the tables that the stand-in for npu-smi prints.
NPUS = 8
SESSIONS = 50
USERS = 10
EXPORTER_PORT, PEER_PORT = 9641, 9100
# As Prometheus 2.42 asks.
HEADERS = {
    "Accept": "application/openmetrics-text;version=1.0.0,application/openmetrics-text;"
    "version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
    "Accept-Encoding": "gzip",
    "X-Prometheus-Scrape-Timeout-Seconds": "10",
}


@dataclass
class Program:
    """An exporter in the node, and what its scrapes took."""

    label: str
    port: int
    path: str = "/metrics"
    pid: int = 0
    took_ms: list[float] = field(default_factory=list)
    size: int = 0
    cpu_ms: float = 0.0


def main(arguments: Sequence[str]) -> int:
    """Measure and print; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scrapes", type=int, default=100, help="of each; 100")
    told = parser.parse_args(arguments)
    reason = why_not()
    if reason is not None:
        sys.stderr.write(f"{reason}\n")
        return 2
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        node = stack.enter_context(Node("bench", folder))
        stack.callback(open_sessions(node).end)
        pid = start_exporter(node)
        programs = [
            Program("sentinel-exporter", EXPORTER_PORT, pid=pid),
            Program("its answer without collecting", EXPORTER_PORT, "/healthz", pid),
            Program("node_exporter", PEER_PORT, pid=start_peer(node)),
        ]
        problems = check_page(node)
        measure(node, programs, told.scrapes)
    print_table(programs)
    sys.stdout.write(f"\nA scrape may take {SCRAPE_MAX_MS:.0f} ms.\n")
    for problem in problems:
        sys.stderr.write(f"{problem}\n")
    return int(bool(problems) or percentile_95(programs[0]) >= SCRAPE_MAX_MS)


def open_sessions(node: Node) -> Connections:
    """Start sshd, and log in so many times, each with a terminal, a shell and a program."""
    key = node.make_key("user")
    users = [f"user{number}" for number in range(USERS)]
    for user in users:
        node.add_user(user)
        public = key.with_suffix(".pub").read_text()
        node.write(f"/home/{user}/.ssh/authorized_keys", public, owner=user)
    node.start_sshd()
    connections = Connections(node, key, users)
    connections.open_terminals(SESSIONS)
    return connections


def start_exporter(node: Node) -> int:
    """Start the exporter beside the stand-ins, each GPU held by the sessions' processes."""
    folder = node.root / "var/lib/bench"
    folder.mkdir()
    build(folder, "550.54")
    driver = Driver(folder / "scenario", folder)
    pids = node.run(["pgrep", "-x", "sleep"]).stdout.split()
    share = len(pids) // GPUS
    gpus = []
    for index in range(GPUS):
        held = pids[index * share : (index + 1) * share]
        of_its_own = {
            "uuid": f"GPU-{index:08d}-aaaa",
            "minor": str(index),
            "pci": f"0:{index + 1:X}:0",
            "compute": " ".join(f"{pid}:1000" for pid in held),
        }
        gpus.append({**FULL, **of_its_own})
    driver.set(*gpus)
    inside = {name: value.replace(str(node.root), "") for name, value in driver.env.items()}
    env = {**inside, "SENTINEL_EXPORTER_NPU__COMMAND": str(NPU_SMI)}
    argv = [sys.executable, "-m", "sentinel_exporters", "--collectors", "gpu,npu,ssh"]
    return start(node, argv, "exporter", env)


def start_peer(node: Node) -> int:
    """Start Debian's node_exporter with its defaults."""
    return start(node, ["prometheus-node-exporter"], "peer", {})


def start(node: Node, argv: Sequence[str], log: str, env: Mapping[str, str]) -> int:
    """Start a program in the node and return its pid on this side."""
    process = node.popen(argv, log=log, env=env)
    wait_for(f"{log} listens", lambda: "istening" in node.log(log))
    # nsenter's only child is the program.
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return int(children.split()[0])


def scrape(node: Node, port: int, path: str, headers: Mapping[str, str]) -> bytes:
    """Ask on a connection of its own and return the body as it came."""
    with closing(http.client.HTTPConnection(node.address, port, timeout=30)) as connection:
        connection.request("GET", path, headers=dict(headers))
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{port}{path}: {answer.status} {body!r}")
        return body


def check_page(node: Node) -> list[str]:
    """Return what the page lacks: a scrape that reads little is no fast one."""
    series = parse_series(scrape(node, EXPORTER_PORT, "/metrics", {}).decode())
    sys.stdout.write(f"{len(series)} series\n\n")
    success = values(series, "sentinel_collector_success", "collector")
    cards = values(series, "accelerator_memory_total_bytes", "uuid")
    holders = values(series, "accelerator_user_processes", "user")
    sessions = values(series, "ssh_sessions", "user")
    there_and_wanted = {
        "collectors that succeed": (sum(success.values()), 3),
        "cards": (len(cards), GPUS + NPUS),
        "users with processes on cards": (len(holders), USERS),
        "sessions": (sum(sessions.values()), SESSIONS),
    }
    return [
        f"{what}: {there:.0f}, not {wanted}"
        for what, (there, wanted) in there_and_wanted.items()
        if there != wanted
    ]


def measure(node: Node, programs: Sequence[Program], scrapes: int) -> None:
    """Scrape each in turn, so that what else the machine does meets all alike."""
    for program in programs:
        # The first one loads what later ones have.
        for _ in range(3):
            scrape(node, program.port, program.path, HEADERS)
    for _ in range(scrapes):
        for program in programs:
            cpu, began = cpu_s(program.pid), time.perf_counter()
            body = scrape(node, program.port, program.path, HEADERS)
            program.took_ms.append((time.perf_counter() - began) * 1000)
            program.cpu_ms += (cpu_s(program.pid) - cpu) * 1000 / scrapes
            program.size = len(body)


def percentile_95(program: Program) -> float:
    """Return the time that 19 of 20 scrapes took at most."""
    return statistics.quantiles(program.took_ms, n=20)[-1]


def print_table(programs: Sequence[Program]) -> None:
    """Print a Markdown table; the ratio is that of the medians to node_exporter's."""
    peer = statistics.median(programs[-1].took_ms)
    sys.stdout.write(
        "| scrape of | scrapes | median ms | 95% within ms | greatest ms | CPU ms | KiB sent "
        "| ratio |\n|---|---|---|---|---|---|---|---|\n"
    )
    for program in programs:
        median = statistics.median(program.took_ms)
        sys.stdout.write(
            f"| {program.label} | {len(program.took_ms)} | {median:.1f} "
            f"| {percentile_95(program):.1f} | {max(program.took_ms):.1f} "
            f"| {program.cpu_ms:.1f} | {program.size / 1024:.1f} | {median / peer:.2f} |\n"
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
