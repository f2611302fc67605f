"""A stand-in for NVIDIA's driver: builds tests/fakes/nvml/ and says what it shall answer."""

from __future__ import annotations

import subprocess
import tomllib
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

FIXTURES = Path(__file__).parent / "fixtures" / "gpu"


def load(name: str) -> dict[str, str]:
    """Return what a device of the fixtures tells, by the stand-in's names."""
    return tomllib.loads((FIXTURES / f"{name}.toml").read_text())


FULL, SLICE, BARE = load("h100"), load("h100-1g.10gb"), load("a2")


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
