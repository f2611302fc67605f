"""How long a login takes: with plain authorized_keys, with get-keys, and with both gates.

It measures and prints a table; it changes nothing outside its own nodes. The three nodes are
alike but for the lock, and each round logs in to all of them, in an order by chance, so that
whatever else the machine does meanwhile hits all three.

    script/bench login [--rounds 60]        as root; see tests/lab/node.py for what a node needs

Exit status 1: get-keys adds more than it may.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.agent.booking_server import make_grant, make_policy
from tests.lab.node import Node, why_not

PLAIN, GET_KEYS, BOTH = "authorized_keys", "get-keys", "get-keys and pam-gate"
ADDED_MAX_MS = 40.0
WARM_UP_ROUNDS = 3
# As on a lab's node with a week of bookings ahead.
OTHER_GRANTS = 100


def main(arguments: Sequence[str]) -> int:
    """Measure and print; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60, help="logins of each kind; 60")
    rounds: int = parser.parse_args(arguments).rounds
    reason = why_not()
    if reason is not None:
        sys.stderr.write(f"{reason}\n")
        return 2
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        nodes = {
            kind: stack.enter_context(Node(f"bench-{number}", Path(folder)))
            for number, kind in enumerate((PLAIN, GET_KEYS, BOTH))
        }
        logins = {kind: prepare(node, kind) for kind, node in nodes.items()}
        took_ms = measure(logins, rounds)
    medians = {kind: statistics.median(times) for kind, times in took_ms.items()}
    print_table(took_ms, medians)
    added_ms = medians[GET_KEYS] - medians[PLAIN]
    sys.stdout.write(f"\nget-keys adds {added_ms:.0f} ms; it may add {ADDED_MAX_MS:.0f} ms.\n")
    return int(added_ms >= ADDED_MAX_MS)


def prepare(node: Node, kind: str) -> list[str]:
    """Make the node ready and return the command of one login."""
    key = node.make_key("alice")
    node.add_user("alice")
    public = key.with_suffix(".pub").read_text()
    if kind == PLAIN:
        node.run(["install", "-d", "-o", "alice", "-m", "0700", "/home/alice/.ssh"])
        node.write("/home/alice/.ssh/authorized_keys", public, mode=0o600, owner="alice")
    else:
        pam = node.root / "etc/pam.d/sshd"
        without_gate = pam.read_text()
        node.install_lock()
        if kind == GET_KEYS:
            pam.write_text(without_gate)
        others = [
            make_grant(f"user{number}", *[f"ssh-ed25519 {'A' * 68}"] * 2, start_s=3600 * number,
                       end_s=3600 * (number + 2), reservation=number + 2)
            for number in range(OTHER_GRANTS)
        ]  # fmt: skip
        node.write_policy(make_policy(make_grant("alice", key), *others))
        (node.root / "run/sentinel").mkdir()
    node.start_sshd()
    return [*node.ssh_argv("alice", key), "true"]


def measure(logins: dict[str, list[str]], rounds: int) -> dict[str, list[float]]:
    """Return the milliseconds of each login, by kind."""
    took_ms: dict[str, list[float]] = {kind: [] for kind in logins}
    for number in range(WARM_UP_ROUNDS + rounds):
        for kind in random.sample(list(logins), len(logins)):
            started = time.perf_counter()
            subprocess.run(logins[kind], stdin=subprocess.DEVNULL, check=True)
            if number >= WARM_UP_ROUNDS:
                took_ms[kind].append((time.perf_counter() - started) * 1000)
    return took_ms


def print_table(took_ms: dict[str, list[float]], medians: dict[str, float]) -> None:
    """Print a Markdown table: medians, the middle half, and how they compare."""
    sys.stdout.write(
        "| login with | logins | median ms | middle half ms | added ms | ratio |\n"
        "|---|---|---|---|---|---|\n"
    )
    for kind, times in took_ms.items():
        low, _, high = statistics.quantiles(times, n=4)
        added, ratio = medians[kind] - medians[PLAIN], medians[kind] / medians[PLAIN]
        sys.stdout.write(
            f"| {kind} | {len(times)} | {medians[kind]:.0f} | {low:.0f}–{high:.0f} "
            f"| {added:+.0f} | {ratio:.2f} |\n"
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
