"""What the exporters' tests share: an exporter on a stand-in for a driver, and a BMC."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.exporters.bmc import Bmc
from tests.exporters.nvml_driver import BARE, FULL, Driver, Machine, build
from tests.exporters.running import Exporter, serving


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in for release 550, in a folder of its own."""
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    folder = tmp_path_factory.mktemp("nvml")
    build(folder, "550.54")
    return folder


@pytest.fixture
def driver(tmp_path: Path, nvml_library: Path) -> Iterator[Driver]:
    """A machine with a GPU that tells everything and one that tells hardly anything."""
    driver = Driver(tmp_path / "scenario", nvml_library)
    driver.set(FULL, BARE)
    yield driver
    assert driver.misuse == ""


@pytest.fixture
def gpu_exporter(driver: Driver, tmp_path: Path) -> Iterator[Exporter]:
    """One process that lives through what happens to its driver."""
    with serving(tmp_path / "log", "--collectors", "gpu", env=driver.env) as running:
        yield running


@pytest.fixture(scope="module")
def machine(nvml_library: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """One exporter for all tests of a module; each begins with `restart`."""
    folder = tmp_path_factory.mktemp("machine")
    driver = Driver(folder / "scenario", nvml_library)
    driver.set()
    with serving(folder / "log", "--collectors", "gpu", env=driver.env) as exporter:
        yield Machine(driver, exporter)
    assert driver.misuse == ""


@pytest.fixture
def bmc(tmp_path: Path) -> Iterator[Bmc]:
    """A BMC of the test's own."""
    bmc = Bmc(tmp_path).start()
    yield bmc
    bmc.stop()
