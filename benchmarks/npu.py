"""How long a scrape of eight NPUs takes and how often npu-smi runs, beside a plain reader.

It measures and prints a table, and changes nothing. Both ask the same stand-in, of which each
answer takes about as long as the real program's: ours in the background, the plain reader as
scripts around npu-smi do, its table and four lists of each card in turn whenever it is asked.

    script/bench npu [--seconds 75]

Exit status 1: a scrape waited for npu-smi, or a chip was not told in full in the end.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.exporters.npu_machine import Machine
from tests.exporters.running import NPU_SMI, Series, label_sets, parse_series, serving

CARDS = range(8)
# What `npu-smi info` takes on a server with eight cards is of this order.
ANSWER_S = 0.3
LISTS = ("usages", "common", "memory", "ecc")
# The interval of Prometheus, at which the plain reader would run too.
INTERVAL_S = 15.0
SCRAPE_MAX_MS = 50.0
AGE = ("sentinel_collector_age_seconds", (("collector", "npu"),))
# Of the table, and of three lists of each card.
TOLD = (
    "accelerator_power_watts",
    "accelerator_engine_utilization_ratio",
    "accelerator_memory_temperature_celsius",
    "accelerator_ecc_errors_total",
)


@dataclass
class Row:
    """What one of them took, how old its data was, and npu-smi's runs a minute."""

    name: str
    took_s: list[float]
    ages_s: list[float]
    runs: float


def main(arguments: Sequence[str]) -> int:
    """Measure and print; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=75, help="of scrapes; 75")
    seconds: float = parser.parse_args(arguments).seconds
    with tempfile.TemporaryDirectory(prefix="bench-npu-") as name:
        folder = Path(name)
        machine = Machine(folder)
        machine.show_cards(CARDS)
        for card in CARDS:
            machine.copy_details(card)
        tool = folder / "slow-npu-smi"
        tool.write_text(
            f'#!/bin/sh\nsleep {ANSWER_S}\nFAKE_NPU_SMI={folder} exec {NPU_SMI} "$@"\n'
        )
        tool.chmod(0o755)
        ours, last = measure_ours(machine, tool, seconds)
        plain = measure_plain(machine, tool)
    print_rows(ours, plain)
    problems = list(judge(ours, last))
    for problem in problems:
        sys.stdout.write(f"\nFAILED: {problem}\n")
    return int(bool(problems))


def measure_ours(machine: Machine, tool: Path, seconds: float) -> tuple[Row, Series]:
    """Scrape every second; returns the last page besides."""
    env = {
        "SENTINEL_EXPORTER_NPU__COMMAND": str(tool),
        "SENTINEL_EXPORTER_NPU__HCCN_TOOL": "",
    }
    took_s, ages_s = [], []
    with serving(machine.folder / "log", "--collectors", "npu", env=env) as exporter:
        last = exporter.series()  # this one waits for a first result
        machine.asked()
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            asked = time.perf_counter()
            _, page, _ = exporter.get("/metrics")
            took_s.append(time.perf_counter() - asked)
            last = parse_series(page.decode())
            ages_s.append(last[AGE])
            time.sleep(1)
        runs = count_runs(machine)
    return Row("sentinel-exporter", took_s, ages_s, runs * 60 / seconds), last


def measure_plain(machine: Machine, tool: Path) -> Row:
    """Run the tool for the table and each card's lists, as one scrape would have to."""
    machine.asked()
    began = time.perf_counter()
    lists = [["-t", kind, "-i", str(card)] for card in CARDS for kind in LISTS]
    for arguments in [[], *lists]:
        subprocess.run([str(tool), "info", *arguments], check=True, capture_output=True)
    took_s = time.perf_counter() - began
    # What it read first is as old as the whole took.
    return Row("a plain reader", [took_s], [took_s], count_runs(machine) * 60 / INTERVAL_S)


def count_runs(machine: Machine) -> int:
    """Return how often the tool ran since the last call."""
    return len(machine.asked())


def judge(ours: Row, last: Series) -> Iterator[str]:
    """Yield what is not as it must be."""
    if statistics.median(ours.took_s) * 1000 >= SCRAPE_MAX_MS:
        yield f"a scrape takes {SCRAPE_MAX_MS:.0f} ms or more"
    for name in TOLD:
        told = {labels["index"] for labels in label_sets(last, name)}
        if told != {str(card) for card in CARDS}:
            yield f"{name} is told of the chips {sorted(told)} only"


def print_rows(ours: Row, plain: Row) -> None:
    """Print a Markdown table; the ratios are those of the plain reader to ours."""
    sys.stdout.write(
        f"\n{len(CARDS)} cards, {ANSWER_S} s for each answer of npu-smi.\n\n"
        "| asked by | scrapes | median ms | greatest ms | table at most s old"
        " | runs of npu-smi a minute | times as fast | fewer runs |\n"
        "|---|---|---|---|---|---|---|---|\n"
    )
    median_s = statistics.median(plain.took_s)
    for row in (ours, plain):
        mine_s = statistics.median(row.took_s)
        sys.stdout.write(
            f"| {row.name} | {len(row.took_s)} | {mine_s * 1000:.1f} "
            f"| {max(row.took_s) * 1000:.1f} | {max(row.ages_s):.1f} | {row.runs:.0f} "
            f"| {median_s / mine_s:.0f} "
            f"| {plain.runs / row.runs:.1f} |\n"
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
