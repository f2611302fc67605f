"""What one read of the GPUs costs, by function of NVIDIA's library.

    script/bench gpu_read                 8 GPUs of a stand-in that answers at once
    script/bench gpu_read --driver        the GPUs of this machine

With the stand-in the time is the collector's own, the binding's, and that of the stand-in,
which looks at its file at each call; with a driver it is the driver's, mostly. Changes nothing.

Exit status 1: a read of the stand-in's 8 GPUs takes longer than it may; 2: nothing to read.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

GPUS, LINKS = 8, 18
LIMIT_MS = 25.0
# Longer than the shortest interval of the activity counters, so that each read has them.
PAUSE_S = 0.11


def main(arguments: Sequence[str]) -> int:
    """Measure and print; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--driver", action="store_true", help="this machine's own GPUs")
    parser.add_argument("--reads", type=int, default=50, help="how often to read; 50")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.driver or options.inside:
        return measure(options.reads, has_limit=options.inside)
    from tests.exporters.nvml_driver import FULL, Driver, build
    from tests.exporters.running import environment

    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder), "550.54", "-O2")
        driver = Driver(Path(folder) / "scenario", Path(folder))
        driver.set(*(make_gpu(number, FULL) for number in range(GPUS)))
        # A process of its own: the loader looks for the library's folder when it starts.
        command = [sys.executable, "-m", "benchmarks.gpu_read", "--inside"]
        done = subprocess.run(
            [*command, "--reads", str(options.reads)], env=environment(driver.env), check=False
        )
    return done.returncode


def make_gpu(number: int, full: dict[str, str]) -> dict[str, str]:
    """Return a GPU as in an eight-way server: all links up, four processes."""
    kept = {key: value for key, value in full.items() if not key.startswith("nvlink")}
    links = {f"nvlink.{link}": "1" for link in range(LINKS)}
    errors = {f"nvlink.{link}.errors.{kind}": "0" for link in range(LINKS) for kind in range(4)}
    processes = " ".join(f"{pid}:1000" for pid in range(1, 5))
    return {**kept, **links, **errors, "uuid": f"GPU-{number}", "compute": processes}


def measure(reads: int, *, has_limit: bool) -> int:
    """Read this process's library so often, print what it took, and return the status."""
    from sentinel_exporters.collectors import gpu

    settings = gpu.Settings()
    gpu.read(settings)
    read_ms, parse_ms, samples = [], [], 0
    for _ in range(reads):
        time.sleep(PAUSE_S)
        began = time.perf_counter()
        reading = gpu.read(settings)
        read_at = time.perf_counter()
        samples = len(gpu.parse(reading).samples)
        read_ms.append((read_at - began) * 1000)
        parse_ms.append((time.perf_counter() - read_at) * 1000)
    if not samples:
        sys.stderr.write("no GPU\n")
        return 2
    print_functions(lambda: gpu.read(settings), reads=min(reads, 20))
    whole = statistics.median(read_ms) + statistics.median(parse_ms)
    sys.stdout.write(
        f"\n{len(reading.gpus)} GPUs, {samples} samples:"
        f" read {statistics.median(read_ms):.2f} ms at the median ({max(read_ms):.2f} at most),"
        f" samples {statistics.median(parse_ms):.2f} ms\n"
    )
    if has_limit:
        sys.stdout.write(f"together {whole:.1f} ms; it may take {LIMIT_MS:.0f} ms\n")
    return int(has_limit and whole > LIMIT_MS)


def print_functions(read: Callable[[], object], reads: int) -> None:
    """Print what each function of the library takes in one read, the most costly first.

    The profiler's own share is in it: about a microsecond for each call.
    """
    profile = cProfile.Profile()
    for _ in range(reads):
        time.sleep(PAUSE_S)
        profile.enable()
        read()
        profile.disable()
    stats = pstats.Stats(profile).stats  # type: ignore[attr-defined]  # not in typeshed
    rows = sorted(
        (
            (cumulative / reads * 1000, calls / reads, name)
            for (file, _, name), (_, calls, _, cumulative, _) in stats.items()
            if file.endswith("pynvml.py") and name.startswith("nvml")
        ),
        reverse=True,
    )
    sys.stdout.write("| function | calls in a read | ms in a read |\n|---|---|---|\n")
    for milliseconds, calls, name in rows[:25]:
        sys.stdout.write(f"| {name} | {calls:.0f} | {milliseconds:.3f} |\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
