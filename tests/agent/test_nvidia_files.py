"""NVIDIA's device files where its own tools make none, from what the driver says in /proc.

No driver is loaded here: the texts are in the form that drivers 525 to 570 print.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from sentinel_agent.cards.acl import Acl
from sentinel_agent.cards.nvidia_files import Params, make_missing, read_params
from tests.lab.node import NODE_FILES, why_not

PARAMS = """\
ResmanDebugLevel: 4294967295
RmLogonRC: 1
ModifyDeviceFiles: {modify}
DeviceFileUID: 0
DeviceFileGID: 44
DeviceFileMode: 432
InitializeSystemMemoryAllocations: 1
RegistryDwords: ""
"""
INFORMATION = """\
Model: \t\t NVIDIA H100 80GB HBM3
IRQ:   \t\t 63
GPU UUID: \t GPU-e953c3c5-dba7-029e-ce44-7b51417131df
Bus Location: \t 0000:{bus:02x}:00.0
Device Minor: \t {minor}
GPU Excluded:\t No
"""


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """The driver's part of /proc, with two cards; the first on the bus has minor number 1."""
    gpus = tmp_path / "proc/driver/nvidia/gpus"
    for bus, minor in ((1, 1), (2, 0)):
        card = gpus / f"0000:{bus:02x}:00.0"
        card.mkdir(parents=True)
        (card / "information").write_text(INFORMATION.format(bus=bus, minor=minor))
    set_params(tmp_path / "proc", modify=0)
    return tmp_path / "proc"


def set_params(proc: Path, *, modify: int) -> None:
    (proc / "driver/nvidia/params").write_text(PARAMS.format(modify=modify))


def test_what_the_driver_was_told_is_read(proc: Path) -> None:
    assert read_params(proc) == Params(False, 0, 44, 0o660)
    set_params(proc, modify=1)
    assert read_params(proc) == Params(True, 0, 44, 0o660)


def test_without_the_driver_there_is_nothing_to_do(tmp_path: Path) -> None:
    assert read_params(tmp_path) is None


@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
def test_missing_files_are_made_and_the_cards_are_closed(proc: Path, tmp_path: Path) -> None:
    params = read_params(proc)
    assert params is not None
    dev = tmp_path / "dev"
    dev.mkdir()
    os.mknod(dev / "nvidia1", stat.S_IFCHR | 0o640, os.makedev(195, 1))
    before = (dev / "nvidia1").stat()
    made = list(make_missing(params, dev, proc))
    assert made == [("nvidia0", Acl.of_mode(0o660))]
    found = {path.name: path.stat() for path in dev.iterdir()}
    assert {name: (stat.filemode(at.st_mode), at.st_rdev, at.st_uid, at.st_gid)
            for name, at in found.items() if name != "nvidia1"} == {
        "nvidiactl": ("crw-rw----", os.makedev(195, 255), 0, 44),
        "nvidia0": ("crw-------", os.makedev(195, 0), 0, 44),
    }  # fmt: skip
    assert found["nvidia1"] == before
    assert list(make_missing(params, dev, proc)) == []


@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
def test_what_is_in_the_place_of_a_card_is_left_alone(proc: Path, tmp_path: Path) -> None:
    params = read_params(proc)
    assert params is not None
    dev = tmp_path / "dev"
    dev.mkdir()
    (dev / "nvidia0").symlink_to("nowhere")
    assert [card for card, _ in make_missing(params, dev, proc)] == ["nvidia1"]
    assert (dev / "nvidia0").is_symlink()


def test_the_option_file_says_what_the_agent_looks_for() -> None:
    text = (NODE_FILES / "sentinel-nvidia.conf").read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert "options nvidia NVreg_ModifyDeviceFiles=0" in lines
    assert all(line.split()[0] in ("options", "softdep") for line in lines)
