"""What the agent costs with many sessions open: time per round, and processor time at rest.

It measures and prints a table; it changes nothing outside its own node. Everything in the node
is real: the connections come from this side, each with a terminal, a shell and a program, which
is four processes there.

    script/bench sessions [--connections 500] [--seconds 60]        as root

Exit status 1: a round takes too long, or the agent takes too much of a core.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from sentinel_agent.server.registration import Registration, store_registration
from sentinel_agent.sessions.plan import utc
from tests.agent.booking_server import TOKEN, BookingServer, make_grant
from tests.lab.connections import Connections
from tests.lab.node import Node, why_not
from tests.lab.wait import wait_for

ROUND_MAX_MS = 100.0
CORE_MAX_PERCENT = 2.0
USERS = 50
# As on a lab's node with a week of bookings ahead.
OTHER_GRANTS = 100
METRICS_PORT = 9642


@dataclass(frozen=True)
class Measured:
    """The agent at rest: its rounds, and its processor time as a share of one core."""

    processes: int
    rounds_ms: list[float]
    core_percent: float


def main(arguments: Sequence[str]) -> int:
    """Measure and print; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=500, help="SSH connections; 500")
    parser.add_argument("--seconds", type=float, default=60, help="how long to measure; 60")
    told = parser.parse_args(arguments)
    reason = why_not()
    if reason is not None:
        sys.stderr.write(f"{reason}\n")
        return 2
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        node = stack.enter_context(Node("bench", folder))
        server = stack.enter_context(BookingServer(node.host_address))
        key = prepare(node, server)
        rows = {0: measure(node, told.seconds)}
        users = [f"user{number}" for number in range(USERS)]
        connections = Connections(node, key, users)
        stack.callback(connections.end)
        connections.open_terminals(told.connections)
        rows[told.connections] = measure(node, told.seconds)
        counted = sample(node, "sentinel_agent_connections")
        if counted != told.connections:
            sys.stderr.write(f"the agent counts {counted:.0f} connections\n")
            return 1
    print_table(rows)
    full = rows[told.connections]
    sys.stdout.write(
        f"\nA round may take {ROUND_MAX_MS:.0f} ms, and the agent {CORE_MAX_PERCENT:.0f}% of a "
        "core.\n"
    )
    is_slow = statistics.median(full.rounds_ms) >= ROUND_MAX_MS
    return int(is_slow or full.core_percent >= CORE_MAX_PERCENT)


def prepare(node: Node, server: BookingServer) -> Path:
    """Make the users with a reservation each; start sshd and the agent as they usually are."""
    node.install_lock()
    key = node.make_key("user")
    users = [f"user{number}" for number in range(USERS)]
    node.run(["sh", "-c", 'for user; do useradd -m -s /bin/bash "$user"; done', "sh", *users])
    later = [
        make_grant(users[number % USERS], key, start_s=3600 * (number + 2),
                   end_s=3600 * (number + 3), reservation=USERS + number + 1)
        for number in range(OTHER_GRANTS)
    ]  # fmt: skip
    now = [make_grant(user, key, reservation=n + 1) for n, user in enumerate(users)]
    server.grant(*now, *later)
    node.start_sshd()
    node.write("/etc/sentinel/inventory.json", '{"devices": [], "problems": []}')
    node.write_agent_config(
        server.url,
        metrics_listen=f"{node.address}:{METRICS_PORT}",
        inventory_command=["cat", "/etc/sentinel/inventory.json"],
    )
    registration = Registration("gpu-01", TOKEN, server.url, utc(time.time()))
    store_registration(node.root / "var/lib/sentinel", registration)
    node.start_agent()
    wait_for("the policy is in the cache", (node.root / "var/lib/sentinel/access").exists)
    return key


def measure(node: Node, seconds: float) -> Measured:
    """Watch the agent for so many seconds while nothing happens."""
    assert node.agent is not None
    # What follows a change (another look, a warning, a heartbeat) is over by then.
    time.sleep(20)
    # nsenter's only child is the agent.
    children = Path(f"/proc/{node.agent.pid}/task/{node.agent.pid}/children").read_text()
    pid = int(children.split()[0])
    processes = len(node.run(["ps", "-e", "-o", "pid="]).stdout.split())
    began, before = time.monotonic(), cpu_s(pid)
    rounds_ms: list[float] = []
    while time.monotonic() - began < seconds:
        time.sleep(4)
        rounds_ms.append(sample(node, "sentinel_agent_round_duration_seconds") * 1000)
    took_s = time.monotonic() - began
    return Measured(processes, rounds_ms, (cpu_s(pid) - before) / took_s * 100)


def cpu_s(pid: int) -> float:
    """Return the processor time of the process and of its children that have ended."""
    # proc_pid_stat(5): utime, stime, cutime and cstime are the fields 14 to 17.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15]) / os.sysconf("SC_CLK_TCK")


def sample(node: Node, name: str) -> float:
    """Return the value of a series of the agent's that has no labels."""
    with urllib.request.urlopen(f"http://{node.address}:{METRICS_PORT}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


def print_table(rows: dict[int, Measured]) -> None:
    """Print a Markdown table."""
    sys.stdout.write(
        "| connections | processes | rounds seen | median ms | greatest ms | % of a core |\n"
        "|---|---|---|---|---|---|\n"
    )
    for connections, row in rows.items():
        sys.stdout.write(
            f"| {connections} | {row.processes} | {len(row.rounds_ms)} "
            f"| {statistics.median(row.rounds_ms):.0f} | {max(row.rounds_ms):.0f} "
            f"| {row.core_percent:.2f} |\n"
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
