"""What the ssh collector costs with many connections open, and what it gets right, beside utmp.

It measures and prints a table; it changes nothing outside its own node. Everything in the node
is real: the connections come from this side, a fifth each with a terminal, with a command, with
sftp, with nothing in it, and with a terminal and a command in one.

    script/bench ssh [--connections 500] [--processes 10000]        as root

Exit status 1: a count takes too long, or the collector gets a session wrong.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.lab.connections import Connections
from tests.lab.node import SSHD_CONFIG, Node, why_not
from tests.lab.wait import wait_for

COUNT_MAX_MS = 100.0
USERS = 50
ROUNDS = 21
# As the exporter does it for each scrape; logins are counted elsewhere, between the scrapes.
COUNT = """\
import json, sys, time
from sentinel_exporters.collectors import ssh
settings = ssh.Settings(login_log="none")
took_ms = []
for _ in range(int(sys.argv[1])):
    began = time.perf_counter()
    scrape = ssh.parse(ssh.read(settings))
    took_ms.append((time.perf_counter() - began) * 1000)
sessions = [[*one.labels, one.value] for one in scrape.samples if one.metric is ssh.SESSIONS]
json.dump({"took_ms": took_ms, "sessions": sessions}, sys.stdout)
"""
# The same for a command; one that takes seconds is run less often.
COMMAND = """\
import json, subprocess, sys, time
took_ms, first = [], time.monotonic()
while len(took_ms) < int(sys.argv[1]) and (time.monotonic() - first < 6 or not took_ms):
    began = time.perf_counter()
    text = subprocess.run(sys.argv[2:], capture_output=True, text=True).stdout
    took_ms.append((time.perf_counter() - began) * 1000)
json.dump([text, took_ms], sys.stdout)
"""
# A process that makes so many, and ends with its standard input.
CROWD = """\
import os, signal, sys
pids = []
for _ in range(int(sys.argv[1])):
    pid = os.fork()
    if pid == 0:
        signal.pause()
    pids.append(pid)
print("there", flush=True)
signal.pause()
"""

Sessions = Counter[tuple[str, str]]


@dataclass(frozen=True)
class Count:
    """How one way of counting did: its times, and the sessions that it found."""

    took_ms: Sequence[float]
    sessions: Mapping[tuple[str, str], int]

    def right(self, truth: Sessions) -> int:
        """How many of the sessions are told of, with their user and type."""
        return sum(min(n, truth[key]) for key, n in self.sessions.items())

    def invented(self, truth: Sessions) -> int:
        """How many are told of that are not there, or are of another user or type."""
        return sum(max(0, n - truth[key]) for key, n in self.sessions.items())

    @property
    def median_ms(self) -> float:
        """The time of the usual count."""
        return statistics.median(self.took_ms)


def main(arguments: Sequence[str]) -> int:
    """Measure and print; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=500, help="SSH connections; 500")
    parser.add_argument("--processes", type=int, default=10_000, help="at last; 10000")
    told = parser.parse_args(arguments)
    reason = why_not()
    if reason is not None:
        sys.stderr.write(f"{reason}\n")
        return 2
    is_good = True
    sys.stdout.write(
        "| connections | sessions | processes | counted by | median ms | greatest ms | ratio "
        "| right | invented |\n|---|---|---|---|---|---|---|---|---|\n"
    )
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="b")))
        node = stack.enter_context(Node("bench", folder))
        connections = Connections(node, prepare(node), [f"user{n}" for n in range(USERS)])
        stack.callback(connections.end)
        for wanted in (told.connections // 10, told.connections):
            connections.open_mixed(wanted - connected(connections), folder)
            is_good &= compare(node, connections.sessions, wanted)
        crowd = told.processes - len(processes(node))
        if crowd > 0:
            fill(node, crowd)
            # `w` looks at every process for every terminal: it would take minutes.
            compare(node, connections.sessions, told.connections, leave_out="`w -h` (utmp)")
    sys.stdout.write(
        f"\nThe collector may take {COUNT_MAX_MS:.0f} ms with {told.connections} connections, "
        "and every session must be right. With more processes there is no limit.\n"
    )
    return 0 if is_good else 1


def prepare(node: Node) -> Path:
    """Make the users, utmp, and an sshd that takes logins as fast as they come."""
    key = node.make_key("user")
    public = key.with_suffix(".pub").read_text()
    users = [f"user{number}" for number in range(USERS)]
    node.run(["sh", "-c", 'for user; do useradd -m -s /bin/bash "$user"; done', "sh", *users])
    node.write("/etc/ssh/lab_keys", public)
    node.write("/run/utmp", "")
    config = SSHD_CONFIG.replace(".ssh/authorized_keys", "/etc/ssh/lab_keys")
    node.start_sshd(f"MaxStartups 100\n{config}")
    return key


def connected(connections: Connections) -> int:
    """Return how many connections there are: a fifth has two sessions."""
    return sum(connections.sessions.values()) * 5 // 6


def fill(node: Node, count: int) -> None:
    """Start so many further processes."""
    node.popen([sys.executable, "-c", CROWD, str(count)], log="crowd")
    wait_for("all are there", lambda: "there" in node.log("crowd"), 120)


def processes(node: Node) -> list[str]:
    """Return the pids of the node's processes."""
    return [path.name for path in (node.root / "proc").iterdir() if path.name.isdecimal()]


def compare(node: Node, truth: Sessions, count: int, leave_out: str = "") -> bool:
    """Count in each way, print the rows, and say whether the collector holds its limits."""
    ways: dict[str, Callable[[], Count]] = {
        "the ssh collector": lambda: by_collector(node),
        "`who` (utmp)": lambda: by_command(node, ["who"]),
        "`w -h` (utmp)": lambda: by_command(node, ["w", "-h"]),
        "`ps`, by titles": lambda: by_titles(node),
    }
    found = {name: way() for name, way in ways.items() if name != leave_out}
    ours = found["the ssh collector"]
    total, running = sum(truth.values()), len(processes(node))
    for name, one in found.items():
        right = one.right(truth)
        sys.stdout.write(
            f"| {count} | {total} | {running} | {name} | {one.median_ms:.1f} "
            f"| {max(one.took_ms):.1f} | {one.median_ms / ours.median_ms:.2f} "
            f"| {right} ({right / total:.0%}) | {one.invented(truth)} |\n"
        )
    sys.stdout.flush()
    is_right = ours.right(truth) == total and ours.invented(truth) == 0
    return is_right and ours.median_ms < COUNT_MAX_MS


def by_collector(node: Node) -> Count:
    """Count as the exporter does, again and again in one process."""
    answer = json.loads(node.run([sys.executable, "-c", COUNT, str(ROUNDS)]).stdout)
    sessions = {(user, kind): int(n) for user, kind, n in answer["sessions"]}
    return Count(answer["took_ms"], sessions)


def by_command(node: Node, argv: Sequence[str]) -> Count:
    """Count the lines of a command that reads utmp: the user's name is the first word."""
    text, took_ms = run(node, argv)
    return Count(took_ms, Counter((line.split()[0], "pty") for line in text.splitlines()))


def by_titles(node: Node) -> Count:
    """Count what calls itself `sshd: alice@pts/0`, as many a script does."""
    text, took_ms = run(node, ["ps", "-eo", "args="])
    sessions: Sessions = Counter()
    for line in text.splitlines():
        user, at, where = line.removeprefix("sshd: ").partition("@")
        if line.startswith("sshd: ") and at:
            sessions[user, "exec" if where == "notty" else "pty"] += 1
    return Count(took_ms, sessions)


def run(node: Node, argv: Sequence[str]) -> tuple[str, list[float]]:
    """Run a command again and again in the node; return its output and its times.

    Measured in the node, so that the way into it is not part of the time.
    """
    text = node.run([sys.executable, "-c", COMMAND, str(ROUNDS), *argv]).stdout
    output, took_ms = json.loads(text)
    return output, took_ms


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
