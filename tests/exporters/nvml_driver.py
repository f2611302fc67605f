"""A stand-in for NVIDIA's driver: builds tests/fakes/nvml.c and says what it shall answer."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.exporters.running import FAKES, Series, parse_series, run_exporter

# A GPU that tells everything, and one that tells hardly anything (a MIG parent, a vGPU).
FULL = {
    "name": "NVIDIA H100 80GB HBM3",
    "uuid": "GPU-11111111-aaaa",
    "minor": "3",
    "pci": "0:C1:0",
    "memory_total": str(80 * 2**30),
    "memory_used": str(3 * 2**30),
    "memory_v2_used": str(2 * 2**30),
    "utilization": "55",
    "utilization_memory": "7",
    "temperature": "41",
    "power": "300500",
    "power_limit": "700000",
    "energy": "123456789",
    "clock_graphics": "1755",
    "clock_sm": "1980",
    "clock_memory": "2619",
    "clock_video": "1545",
    "fan": "30",
    "pstate": "2",
    "ecc_corrected": "12",
    "ecc_uncorrected": "1",
    "remap_failed": "0",
    "compute": "",
}
BARE = {"name": "NVIDIA A2", "uuid": "GPU-22222222-bbbb", "minor": "0", "pci": "1:2:0"}


def build(folder: Path, version: str) -> Path:
    """Compile the stand-in under the name that the binding loads."""
    target = folder / "libnvidia-ml.so.1"
    subprocess.run(
        ["gcc", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC",
         "-Wl,-soname,libnvidia-ml.so.1", f'-DLIBRARY_VERSION="{version}"',
         "-o", target, FAKES / "nvml.c"],
        check=True,
    )  # fmt: skip
    return target


class Driver:
    """What the stand-in says; changes count at once."""

    def __init__(self, scenario: Path, library: Path) -> None:
        self._scenario = scenario
        self.library = library
        self.machine: dict[str, str] = {"driver": "550.54"}
        self.gpus: list[dict[str, str]] = []

    @property
    def env(self) -> dict[str, str]:
        return {"FAKE_NVML": str(self._scenario), "LD_LIBRARY_PATH": str(self.library)}

    def set(self, *gpus: dict[str, str], **machine: str) -> None:
        """Say what there is from now on."""
        self.gpus, self.machine = list(gpus), {**self.machine, **machine}
        lines = [f"{key} {value}" for key, value in self.machine.items()]
        lines.append(f"count {len(gpus)}")
        for index, gpu in enumerate(gpus):
            lines += [f"gpu.{index}.{key} {value}" for key, value in gpu.items()]
        fresh = self._scenario.with_suffix(".new")
        fresh.write_text("\n".join(lines) + "\n")
        fresh.rename(self._scenario)

    def check(self) -> tuple[Series, str]:
        """Run the collector once; returns the series and the log."""
        done = run_exporter("check", "--collectors", "gpu", env=self.env)
        return parse_series(done.stdout), done.stderr
