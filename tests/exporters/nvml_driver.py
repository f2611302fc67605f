"""A stand-in for NVIDIA's driver: builds tests/fakes/nvml/ and says what it shall answer."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.exporters.running import (
    FAKES,
    Exporter,
    Series,
    label_sets,
    parse_series,
    run_exporter,
    values,
)

# A GPU that tells everything, in NVML's units and numbers, and one that tells hardly anything.
FULL = {
    "name": "NVIDIA H100 80GB HBM3",
    "uuid": "GPU-11111111-aaaa",
    "minor": "3",
    "pci": "0:C1:0",
    "serial": "1650123456789",
    "vbios": "96.00.74.00.01",
    "compute_capability": "9 0",
    "persistence_mode": "1",
    "compute_mode": "0",
    "memory_total": str(80 * 2**30),
    "memory_used": str(3 * 2**30),
    "memory_v2_used": str(2 * 2**30),
    "memory_reserved": str(2**30),
    "utilization": "55",
    "utilization_memory": "7",
    "encoder": "3 1000",
    "decoder": "4 1000",
    "jpeg": "5 1000",
    "optical_flow": "6 1000",
    "encoder_stats": "2 60 900",
    "temperature": "41",
    "threshold.0": "92",
    "threshold.1": "89",
    "threshold.2": "95",
    "threshold.3": "87",
    "power": "300500",
    "power_limit": "650000",
    "power_limit_set": "660000",
    "power_limit_default": "700000",
    "power_limit_range": "200000 701000",
    "energy": "123456789",
    "clock_graphics": "1755",
    "clock_sm": "1980",
    "clock_memory": "2619",
    "clock_video": "1545",
    "clock_max_graphics": "1981",
    "clock_max_sm": "1982",
    "clock_max_memory": "2620",
    "clock_max_video": "1546",
    # The software's power cap, of what it can tell: idle, that, and the hardware's slowdown.
    "throttle_reasons": str(0x4),
    "throttle_reasons_supported": str(0x1 | 0x4 | 0x8),
    "throttled.0": "2500000000",
    "throttled.1": "0",
    "fan": "30",
    "fan_count": "2",
    "fan.0": "30",
    "fan.1": "35",
    "pstate": "2",
    "ecc_mode": "1 0",
    "ecc_corrected": "12",
    "ecc_uncorrected": "1",
    "ecc_volatile_corrected": "5",
    "ecc_volatile_uncorrected": "0",
    "ecc.0.1.2": "11",
    "ecc.0.1.7": "1",
    "remapped": "3 1 1 0",
    "remap_banks": "639 1 0 0 0",
    "retired.0": "4",
    "retired.1": "2",
    "retired_pending": "0",
    "pcie_replays": "8",
    "pcie_generation": "4",
    "pcie_width": "8",
    "pcie_generation_max": "5",
    "pcie_width_max": "16",
    "nvlink.0": "1",
    "nvlink.1": "0",
    "nvlink.2": "1",
    "nvlink.0.errors.0": "1",
    "nvlink.0.errors.2": "20",
    "nvlink.2.errors.0": "0",
    "nvlink.2.errors.2": "300",
    "mig_mode": "0 1",
    "event_types": "8",
    "fabric_state": "3",
    "compute": "",
    # Field values: memory temperature, NVLink's KiB sent and received, what is to be done.
    "field.82": "47",
    "field.138": "1000",
    "field.139": "2000",
    "field.230": "0",
    # The activity counters: percent, and MiB a second.
    "gpm": "1",
    "gpm.1": "50.5",
    "gpm.2": "40",
    "gpm.5": "12.25",
    "gpm.10": "nan",
    "gpm.20": "3",
    "gpm.21": "4",
}
# A MIG device.
SLICE = {
    "uuid": "MIG-aaaa",
    "name": "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
    "gpu_instance": "7",
    "compute_instance": "0",
    "memory_total": str(10 * 2**30),
    "memory_used": str(2**30),
}
BARE = {"name": "NVIDIA A2", "uuid": "GPU-22222222-bbbb", "minor": "0", "pci": "1:2:0"}


def build(folder: Path, version: str, *options: str) -> Path:
    """Compile the stand-in under the name that the binding loads."""
    target = folder / "libnvidia-ml.so.1"
    subprocess.run(
        ["gcc", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC",
         "-Wl,-soname,libnvidia-ml.so.1", f'-DLIBRARY_VERSION="{version}"', *options,
         "-o", target, *sorted((FAKES / "nvml").glob("*.c"))],
        check=True,
    )  # fmt: skip
    return target


def split(gpu: dict[str, str], *slices: dict[str, str]) -> dict[str, str]:
    """Return the GPU split into MIG devices; like a real one it tells no utilisation then."""
    parts = {
        f"mig.{place}.{key}": value
        for place, part in enumerate(slices)
        for key, value in part.items()
    }
    whole = {key: value for key, value in gpu.items() if not key.startswith("utilization")}
    return {**whole, "mig_mode": "1 1", "mig_device_max": "7", **parts}


class Driver:
    """What the stand-in says; changes count at once."""

    def __init__(self, scenario: Path, library: Path) -> None:
        self._scenario = scenario
        self.library = library
        self.machine: dict[str, str] = {"driver": "550.54", "cuda": "12040"}
        self.gpus: list[dict[str, str]] = []
        # What the kernel's driver lists, by name.
        self.kernel_list = scenario.with_name("kernel-list")

    @property
    def env(self) -> dict[str, str]:
        return {
            "FAKE_NVML": str(self._scenario),
            "LD_LIBRARY_PATH": str(self.library),
            "SENTINEL_EXPORTER_GPU__KERNEL_LIST": str(self.kernel_list),
        }

    @property
    def misuse(self) -> str:
        """What the real library would not have survived."""
        return self._notes("misuse")

    @property
    def init_count(self) -> int:
        """How often the library was initialised."""
        return len(self._notes("inits").splitlines())

    def _notes(self, suffix: str) -> str:
        notes = self._scenario.with_name(f"{self._scenario.name}.{suffix}")
        return notes.read_text() if notes.exists() else ""

    def list_in_kernel(self, *bus_ids: str) -> None:
        """Say which cards the kernel's driver lists from now on."""
        self.kernel_list.mkdir(exist_ok=True)
        for gone in {path.name for path in self.kernel_list.iterdir()} - set(bus_ids):
            (self.kernel_list / gone).rmdir()
        for bus_id in bus_ids:
            (self.kernel_list / bus_id).mkdir(exist_ok=True)

    def set(self, *gpus: dict[str, str], **machine: str) -> None:
        """Say what there is from now on."""
        self.gpus, self.machine = list(gpus), {**self.machine, **machine}
        lines = [f"{key} {value}" for key, value in self.machine.items()]
        if "count" not in self.machine:
            lines.append(f"count {len(gpus)}")
        for index, gpu in enumerate(gpus):
            lines += [f"gpu.{index}.{key} {value}" for key, value in gpu.items()]
        fresh = self._scenario.with_suffix(".new")
        # Bytes that are no text may be among them.
        fresh.write_text("\n".join(lines) + "\n", errors="surrogateescape")
        fresh.rename(self._scenario)

    def settings(self, **settings: str) -> dict[str, str]:
        """Return the environment with settings of the collector."""
        own = {f"SENTINEL_EXPORTER_GPU__{key.upper()}": one for key, one in settings.items()}
        return {**self.env, **own}

    def check(self, **settings: str) -> tuple[Series, str]:
        """Run the collector once, with its settings; returns the series and the log."""
        done = run_exporter("check", "--collectors", "gpu", env=self.settings(**settings))
        return parse_series(done.stdout), done.stderr


class Machine:
    """An exporter that lives through many tests, on a driver that can be loaded anew."""

    def __init__(self, driver: Driver, exporter: Exporter) -> None:
        self.driver = driver
        self.exporter = exporter
        self._loads = 0
        self._log_read = 0
        # The library is opened, so that each restart finds it so and begins a new log.
        exporter.series()

    def restart(self, *gpus: dict[str, str]) -> Series:
        """Load the driver anew with these cards, and let the exporter find that out.

        Returns what it reads then.
        """
        self._loads += 1
        self.driver.set(*gpus, load=str(self._loads))
        self.exporter.series()
        self.take_log()
        return self.exporter.series()

    def take_log(self) -> str:
        """Return what was logged since the last call."""
        text = self.exporter.log.read_text()
        news, self._log_read = text[self._log_read :], len(text)
        return news


def success(series: Series) -> float:
    """Return whether the collector could read everything."""
    return values(series, "sentinel_collector_success", "collector")["gpu"]


def of(series: Series, uuid: str) -> dict[str, float]:
    """Return {family, with its own labels behind it: value} of one GPU."""
    found = {}
    for (name, labels), value in series.items():
        label = dict(labels)
        if label.pop("uuid", None) == uuid and name != "accelerator_info":
            own = [one for key, one in label.items() if key not in {"index", "vendor"}]
            found[".".join([name.removeprefix("accelerator_"), *own])] = value
    return found


def unavailable(series: Series, uuid: str) -> dict[str, str]:
    """Return {reading that one GPU does not give: why}."""
    return {
        labels["reading"]: labels["reason"]
        for labels in label_sets(series, "accelerator_reading_unavailable")
        if labels["uuid"] == uuid
    }
