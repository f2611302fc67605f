"""The comparison with nvidia-smi: what it takes for agreement, and on a real machine."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.exporters.compare_nvidia_smi import (
    COMPUTE_APPS,
    GPU_ROWS,
    MIG_DEVICES,
    REMAP_ROWS,
    Row,
    parse_value,
)
from tests.exporters.nvml_driver import FULL, SLICE, Driver, split
from tests.exporters.running import REPOSITORY, environment

SCRIPT = REPOSITORY / "tests" / "exporters" / "compare_nvidia_smi.py"
# What nvidia-smi says of the stand-in's GPU where that is not what follows from FULL's numbers.
WORDS = {
    "persistence_mode": "Enabled",
    "pstate": "P2",
    "ecc.mode.current": "Enabled",
    "ecc.mode.pending": "Disabled",
    "retired_pages.pending": "No",
    "mig.mode.current": "Disabled",
    "mig.mode.pending": "Enabled",
    "remapped_rows.pending": "Yes",
    "remapped_rows.failure": "No",
    "clocks_event_reasons.gpu_idle": "Not Active",
    "clocks_event_reasons.sw_power_cap": "Active",
    "clocks_event_reasons.hw_slowdown": "Not Active",
}
NUMBERS = {
    "utilization.gpu": "55", "utilization.memory": "7", "utilization.encoder": "3",
    "utilization.decoder": "4", "utilization.jpeg": "5", "utilization.ofa": "6",
    "encoder.stats.sessionCount": "2", "memory.total": "81920", "memory.used": "2048",
    "memory.reserved": "1024", "temperature.gpu": "41", "temperature.memory": "47",
    "power.draw": "300.50", "enforced.power.limit": "650.00", "power.default_limit": "700.00",
    "power.min_limit": "200.00", "power.max_limit": "701.00",
    "clocks.current.graphics": "1755", "clocks.current.sm": "1980",
    "clocks.current.memory": "2619", "clocks.current.video": "1545",
    "clocks.max.graphics": "1981", "clocks.max.sm": "1982", "clocks.max.memory": "2620",
    "fan.speed": "30", "ecc.errors.corrected.volatile.total": "5",
    "ecc.errors.uncorrected.volatile.total": "0", "ecc.errors.corrected.aggregate.total": "12",
    "ecc.errors.uncorrected.aggregate.total": "1", "retired_pages.single_bit_ecc.count": "4",
    "retired_pages.double_bit.count": "2", "pcie.link.gen.current": "4",
    "pcie.link.gen.max": "5", "pcie.link.width.current": "8", "pcie.link.width.max": "16",
    "remapped_rows.correctable": "3", "remapped_rows.uncorrectable": "1",
    "remapped_rows.histogram.max": "639", "remapped_rows.histogram.high": "1",
    "remapped_rows.histogram.partial": "0", "remapped_rows.histogram.low": "0",
    "remapped_rows.histogram.none": "0",
}  # fmt: skip
# A program in nvidia-smi's manner: it answers each field from a file, and refuses others.
TOOL = """#!{python}
import sys
known = dict(line.split("=", 1) for line in open({answers!r}).read().splitlines())
option = sys.argv[1]
if option == "-L":
    print(known["-L"].replace("|", "\\n"))
elif option.startswith("--query-compute-apps"):
    print(known["apps"].replace("|", "\\n"))
else:
    fields = option.partition("=")[2].split(",")
    for field in fields:
        if field not in known:
            print(f'Field "{{field}}" is not a valid field to query.')
            sys.exit(2)
    print(", ".join(known[field] for field in fields))
"""


def run(
    folder: Path, driver: Driver, changes: dict[str, str], *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Run the comparison with a tool that answers as it should, but for the changes."""
    answers = {
        "uuid": FULL["uuid"], "gpu_uuid": FULL["uuid"], "apps": "",
        "-L": f"GPU 0: {FULL['name']} (UUID: {FULL['uuid']})", **NUMBERS, **WORDS, **changes,
    }  # fmt: skip
    tool = folder / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    (folder / "answers").write_text(
        "".join(f"{key}={value}\n" for key, value in answers.items() if value != "unknown")
    )
    tool.write_text(TOOL.format(python=sys.executable, answers=str(folder / "answers")))
    tool.chmod(0o755)
    env = environment({**driver.env, "PATH": f"{tool.parent}:/usr/bin:/bin"})
    return subprocess.run(
        [sys.executable, SCRIPT, *arguments],
        env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip


# The throttle reasons that the stand-in's GPU cannot report.
MISSING = {
    row.field: "N/A" if row.label == "sync_boost" else "Not Active"
    for row in GPU_ROWS
    if row.family == "throttle_reason" and row.field not in WORDS
}


def test_the_same_values_agree(driver: Driver, tmp_path: Path) -> None:
    driver.set(FULL)
    done = run(tmp_path, driver, MISSING, "--all")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ok ") == len(GPU_ROWS) + len(REMAP_ROWS) + 2
    assert "WRONG" not in done.stdout
    told = len(NUMBERS) + len(WORDS) + len(MISSING) - 1 + 2
    assert done.stdout.endswith(f"{told} told by nvidia-smi, 0 disagree\n")


def test_other_values_are_named_and_end_with_status_1(driver: Driver, tmp_path: Path) -> None:
    driver.set(FULL)
    others = {
        "power.max_limit": "701.5",
        "power.draw": "400",
        "memory.used": "3072",
        "pstate": "P0",
        # We have a reading and nvidia-smi has none, and the other way round.
        "fan.speed": "[N/A]",
        "clocks_event_reasons.sync_boost": "Active",
        "remapped_rows.histogram.low": "1",
        "apps": f"{FULL['uuid']}, 77",
    }
    done = run(tmp_path, driver, {**MISSING, **others})
    assert done.returncode == 1, done.stdout + done.stderr
    named = {line.split()[2] for line in done.stdout.splitlines() if line.startswith("WRONG")}
    assert named == {*others.keys() - {"apps"}, "compute-apps"}


def test_a_gpu_that_only_one_side_has_is_a_disagreement(driver: Driver, tmp_path: Path) -> None:
    driver.set(FULL)
    done = run(tmp_path, driver, {**MISSING, "uuid": "GPU-another", "gpu_uuid": "GPU-another"})
    assert done.returncode == 1, done.stdout + done.stderr
    for uuid in ("GPU-another", FULL["uuid"]):
        assert f"WRONG {uuid} power.draw " in done.stdout


def test_fields_that_its_version_has_not_are_left_out(driver: Driver, tmp_path: Path) -> None:
    driver.set(FULL)
    done = run(tmp_path, driver, {**MISSING, "utilization.jpeg": "unknown"})
    assert done.returncode == 0, done.stdout + done.stderr
    assert f" {len(GPU_ROWS) + len(REMAP_ROWS) + 1} values" in done.stdout


def test_mig_devices_are_counted(driver: Driver, tmp_path: Path) -> None:
    driver.set(split(FULL, SLICE))
    changes = {
        **MISSING,
        "mig.mode.current": "Enabled",
        "utilization.gpu": "[N/A]",
        "utilization.memory": "[N/A]",
        "-L": f"GPU 0: NVIDIA (UUID: {FULL['uuid']})|  MIG 1g.10gb Device 0: (UUID: MIG-aaaa)",
    }
    done = run(tmp_path, driver, changes)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_gpu_is_no_agreement(driver: Driver, tmp_path: Path) -> None:
    driver.set()
    done = run(tmp_path, driver, {"uuid": "unknown", "gpu_uuid": "unknown"})
    assert done.returncode == 2, done.stdout + done.stderr


def test_words_of_nvidia_smi() -> None:
    assert [parse_value(word) for word in ("[N/A]", "N/A", "[Not Supported]", "")] == [None] * 4
    assert [parse_value(word) for word in ("P8", " 12.50", "Not Active")] == [8, 12.5, 0]
    with pytest.raises(ValueError, match="maybe"):
        parse_value("maybe")


def test_every_row_is_a_series_of_the_collector() -> None:
    from sentinel_exporters.collectors.gpu import METRICS

    names = {metric.name for metric in METRICS}
    rows: list[Row] = [*GPU_ROWS, *REMAP_ROWS, COMPUTE_APPS, MIG_DEVICES]
    assert {f"accelerator_{row.family}" for row in rows} <= names


@pytest.mark.skipif(shutil.which("nvidia-smi") is None, reason="needs nvidia-smi and a GPU")
def test_the_collector_agrees_with_nvidia_smi_on_this_machine() -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT], capture_output=True, text=True, check=False, env=environment()
    )
    assert done.returncode == 0, done.stdout + done.stderr
