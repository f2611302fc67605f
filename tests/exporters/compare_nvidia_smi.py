"""Hold the GPU collector's values against nvidia-smi's, on a machine with NVIDIA's driver.

    python tests/exporters/compare_nvidia_smi.py [--all]

It needs this repository and the packages of requirements/exporters.txt, no more. The collector
is read before and after nvidia-smi: a value that moves has to lie between its two readings,
within the tolerance of its row. Prints a table of what disagrees (`--all`: of everything) and
ends with status 1 when something does, and 2 when there was nothing to compare.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

SOURCE = Path(__file__).resolve().parents[2] / "exporters" / "src"
MIB = 2**20

# (family without accelerator_, its own label's value or ""): the value, of one GPU.
Readings = Mapping[tuple[str, str], float]
# nvidia-smi's words for "there is no such reading".
_NONE = re.compile(r"\[?(N/A|Not Supported|Insufficient Permissions|Unknown Error)\]?|")
_CLAIMS = {
    "enabled": 1.0, "active": 1.0, "yes": 1.0, "disabled": 0.0, "not active": 0.0, "no": 0.0,
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One value: nvidia-smi's field, our series, and what ours is divided by to be theirs."""

    field: str
    family: str
    label: str = ""
    unit: float = 1
    # In the field's unit; and as a share of the value.
    tolerance: float = 0
    share: float = 0


@dataclass(frozen=True)
class Finding:
    """How one value compares."""

    gpu: str
    row: Row
    theirs: float | None
    ours: tuple[float | None, float | None]

    @property
    def agrees(self) -> bool:
        """Whether theirs lies between ours, or nobody has a reading."""
        known = [value for value in self.ours if value is not None]
        if not known and self.row.family == "throttle_reason":
            # Ours has only the reasons that the GPU can report; nvidia-smi may list them all.
            return not self.theirs
        if self.theirs is None or not known:
            return self.theirs is None and len(known) < 2
        slack = self.row.tolerance + self.row.share * abs(self.theirs) + 1e-6
        return min(known) - slack <= self.theirs <= max(known) + slack


_ENGINES = {"encoder": "encoder", "decoder": "decoder", "jpeg": "jpeg", "ofa": "optical_flow"}
_REASONS = (
    "gpu_idle", "applications_clocks_setting", "sw_power_cap", "hw_slowdown", "sync_boost",
    "sw_thermal_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown",
)  # fmt: skip
# Values that no load changes are held to nvidia-smi's rounding; the others may move meanwhile.
GPU_ROWS = (
    Row("utilization.gpu", "utilization_ratio", unit=0.01, tolerance=15),
    Row("utilization.memory", "memory_busy_ratio", unit=0.01, tolerance=15),
    *(
        Row(f"utilization.{theirs}", "engine_utilization_ratio", ours, 0.01, tolerance=15)
        for theirs, ours in _ENGINES.items()
    ),
    Row("encoder.stats.sessionCount", "encoder_sessions"),
    Row("memory.total", "memory_total_bytes", unit=MIB, tolerance=1),
    Row("memory.used", "memory_used_bytes", unit=MIB, tolerance=32),
    Row("memory.reserved", "memory_reserved_bytes", unit=MIB, tolerance=2),
    Row("temperature.gpu", "temperature_celsius", tolerance=2),
    Row("temperature.memory", "memory_temperature_celsius", tolerance=2),
    Row("power.draw", "power_watts", tolerance=5, share=0.1),
    Row("enforced.power.limit", "power_limit_watts", tolerance=0.01),
    *(
        Row(f"power.{limit}_limit", f"power_limit_{limit}_watts", tolerance=0.01)
        for limit in ("default", "min", "max")
    ),
    *(
        Row(f"clocks.current.{clock}", "clock_hertz", clock, 1e6, tolerance=30, share=0.1)
        for clock in ("graphics", "sm", "memory", "video")
    ),
    *(
        Row(f"clocks.max.{clock}", "clock_max_hertz", clock, 1e6)
        for clock in ("graphics", "sm", "memory")
    ),
    Row("fan.speed", "fan_speed_ratio", unit=0.01, tolerance=5),
    Row("pstate", "performance_state"),
    Row("persistence_mode", "persistence_mode"),
    *(Row(f"clocks_event_reasons.{name}", "throttle_reason", name) for name in _REASONS),
    Row("ecc.mode.current", "ecc_enabled"),
    Row("ecc.mode.pending", "ecc_enabled_pending"),
    *(
        Row(f"ecc.errors.{kind}.{counter}.total", family, kind)
        for counter, family in (
            ("volatile", "ecc_errors_volatile_total"),
            ("aggregate", "ecc_errors_total"),
        )
        for kind in ("corrected", "uncorrected")
    ),
    Row("retired_pages.single_bit_ecc.count", "retired_pages_total", "single_bit"),
    Row("retired_pages.double_bit.count", "retired_pages_total", "double_bit"),
    Row("retired_pages.pending", "page_retirement_pending"),
    Row("pcie.link.gen.current", "pcie_link_generation"),
    Row("pcie.link.gen.max", "pcie_link_generation_max"),
    Row("pcie.link.width.current", "pcie_link_width"),
    Row("pcie.link.width.max", "pcie_link_width_max"),
    Row("mig.mode.current", "mig_enabled"),
    Row("mig.mode.pending", "mig_enabled_pending"),
)
REMAP_ROWS = (
    Row("remapped_rows.correctable", "remapped_rows_total", "corrected"),
    Row("remapped_rows.uncorrectable", "remapped_rows_total", "uncorrected"),
    Row("remapped_rows.pending", "row_remap_pending"),
    Row("remapped_rows.failure", "row_remap_failure"),
    *(
        Row(f"remapped_rows.histogram.{spare}", "row_remap_banks", spare)
        for spare in ("max", "high", "partial", "low", "none")
    ),
)
COMPUTE_APPS = Row("compute-apps", "processes")
MIG_DEVICES = Row("MIG devices", "mig_info")


def main(arguments: Sequence[str]) -> int:
    """Compare and print; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true", help="print what agrees, too")
    shows_all: bool = parser.parse_args(arguments).all
    before = read_ours()
    theirs = query("gpu", "uuid", GPU_ROWS)
    for uuid, values in query("remapped-rows", "gpu_uuid", REMAP_ROWS).items():
        theirs.setdefault(uuid, {}).update(values)
    for uuid, values in count_parts(theirs).items():
        theirs[uuid].update(values)
    after = read_ours()
    findings = list(compare(theirs, before, after))
    if not findings:
        sys.stderr.write("nothing to compare: no GPU\n")
        return 2
    print_table([one for one in findings if shows_all or not one.agrees])
    wrong = sum(not one.agrees for one in findings)
    told = sum(one.theirs is not None for one in findings)
    sys.stdout.write(
        f"{len(theirs)} GPUs, {len(findings)} values, {told} told by nvidia-smi,"
        f" {wrong} disagree\n"
    )
    return int(wrong > 0)


def read_ours() -> Mapping[str, Readings]:
    """Run the collector once; returns its values by uuid."""
    path = os.pathsep.join([str(SOURCE), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "sentinel_exporters", "check", "--collectors", "gpu"],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    sys.stderr.write(done.stderr)
    return parse_ours(done.stdout)


def parse_ours(page: str) -> Mapping[str, Readings]:
    """Return {uuid: {(family, its own label): value}}; MIG devices and processes counted."""
    found: dict[str, dict[tuple[str, str], float]] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            labels = dict(sample.labels)
            uuid = labels.pop("uuid", None)
            if uuid is None:
                continue
            own = [value for key, value in labels.items() if key not in {"index", "vendor"}]
            name = sample.name.removeprefix("accelerator_")
            values = found.setdefault(uuid, {MIG_KEY: 0})
            if name == MIG_DEVICES.family:
                values[MIG_KEY] += 1
            elif len(own) < 2:
                values[name, "".join(own)] = sample.value
    return found


MIG_KEY = (MIG_DEVICES.family, "")


def run_smi(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run nvidia-smi to its end."""
    return subprocess.run(
        ["nvidia-smi", *arguments], capture_output=True, text=True, check=False
    )


def query(
    kind: str, uuid_field: str, rows: Sequence[Row]
) -> dict[str, dict[Row, float | None]]:
    """Return nvidia-smi's values by uuid; fields that its version has not are left out."""
    rows = list(rows)
    while rows:
        fields = ",".join([uuid_field, *(row.field for row in rows)])
        done = run_smi(f"--query-{kind}={fields}", "--format=csv,noheader,nounits")
        unknown = re.search(r'Field "([^"]+)" is not a valid field', done.stdout + done.stderr)
        if unknown is None:
            return parse_theirs(done.stdout, rows) if done.returncode == 0 else {}
        kept = [row for row in rows if row.field != unknown[1]]
        if len(kept) == len(rows):
            break
        rows = kept
    return {}


def parse_theirs(text: str, rows: Sequence[Row]) -> dict[str, dict[Row, float | None]]:
    """Return {uuid: {row: value, or None for none}} of lines without header and units."""
    found = {}
    for line in csv.reader(io.StringIO(text), skipinitialspace=True):
        if len(line) == len(rows) + 1:
            found[line[0]] = {
                row: parse_value(word) for row, word in zip(rows, line[1:], strict=True)
            }
    return found


def parse_value(word: str) -> float | None:
    """Return the number that nvidia-smi's word stands for; None: there is no reading.

    Raises ValueError for a word that is not known.
    """
    word = word.strip()
    if _NONE.fullmatch(word):
        return None
    if word.lower() in _CLAIMS:
        return _CLAIMS[word.lower()]
    return float(word.removeprefix("P"))


def count_parts(uuids: Mapping[str, object]) -> dict[str, dict[Row, float | None]]:
    """Return how many MIG devices and computing processes nvidia-smi lists for each GPU."""
    counts: dict[str, dict[Row, float | None]] = {uuid: {MIG_DEVICES: 0} for uuid in uuids}
    gpu = None
    for uuid in re.findall(r"\(UUID: ([^)]+)\)", run_smi("-L").stdout):
        if uuid in counts:
            gpu = uuid
        elif gpu and uuid.startswith("MIG-"):
            counts[gpu][MIG_DEVICES] = (counts[gpu][MIG_DEVICES] or 0) + 1
    done = run_smi("--query-compute-apps=gpu_uuid,pid", "--format=csv,noheader")
    if done.returncode == 0:
        pids: dict[str, set[str]] = {uuid: set() for uuid in uuids}
        for words in csv.reader(io.StringIO(done.stdout), skipinitialspace=True):
            if len(words) == 2 and words[0] in pids:
                pids[words[0]].add(words[1])
        for uuid, found in pids.items():
            counts[uuid][COMPUTE_APPS] = len(found)
    return counts


def compare(
    theirs: Mapping[str, Mapping[Row, float | None]],
    before: Mapping[str, Readings],
    after: Mapping[str, Readings],
) -> Iterator[Finding]:
    """Yield every value; a GPU that one side has not is a finding for each of its values."""
    for uuid in sorted({*theirs, *before, *after}):
        for row in (*GPU_ROWS, *REMAP_ROWS, COMPUTE_APPS, MIG_DEVICES):
            ours = tuple(
                None if value is None else value / row.unit
                for value in (
                    side.get(uuid, {}).get((row.family, row.label)) for side in (before, after)
                )
            )
            if uuid in theirs and row not in theirs[uuid]:
                continue  # a field that this version has not
            yield Finding(uuid, row, theirs.get(uuid, {}).get(row), (ours[0], ours[1]))


def print_table(findings: Sequence[Finding]) -> None:
    """Print one line for each value."""

    def show(value: float | None) -> str:
        return "-" if value is None else f"{value:.10g}"

    for one in findings:
        sys.stdout.write(
            f"{'ok   ' if one.agrees else 'WRONG'} {one.gpu} {one.row.field:45}"
            f" nvidia-smi {show(one.theirs):>12}"
            f"   ours {show(one.ours[0]):>12} {show(one.ours[1]):>12}"
            f"   ± {one.row.tolerance:g}{f' + {one.row.share:.0%}' if one.row.share else ''}\n"
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
