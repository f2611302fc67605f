"""NVIDIA's device files, where the driver was told that its own tools must not make them.

nvidia-modprobe, which is setuid root and which CUDA runs in every user's name, puts back mode
0666 wherever it finds another, unless the driver was loaded with NVreg_ModifyDeviceFiles=0
(our sentinel-nvidia.conf). It makes no /dev/nvidiactl and no /dev/nvidia<minor> then
either: that is done here. It goes on to make nvidia-uvm and nvidia-uvm-tools, for which it does
not ask that setting.
This module sets no ACL and decides nothing about access.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .acl import Acl

log = logging.getLogger(__name__)

# Documentation/admin-guide/devices.txt does not have it; nvidia-modprobe-utils.c and nv.h do.
MAJOR = 195
CONTROL_MINOR = 255
CONTROL = "nvidiactl"
PARAM = re.compile(r"^(\w+): (\d+)$", re.MULTILINE | re.ASCII)
MINOR = re.compile(r"^Device Minor:\s*(\d+)\s*$", re.MULTILINE | re.ASCII)


@dataclass(frozen=True)
class Params:
    """What the loaded driver says of its device files (/proc/driver/nvidia/params)."""

    is_modifying: bool
    uid: int
    gid: int
    mode: int


def read_params(proc: Path = Path("/proc")) -> Params | None:
    """Return the driver's parameters, None when no driver is loaded. Raises OSError."""
    try:
        text = (proc / "driver/nvidia/params").read_text()
    except FileNotFoundError:
        return None
    found = {name: int(value) for name, value in PARAM.findall(text)}
    return Params(
        found.get("ModifyDeviceFiles", 1) != 0, found.get("DeviceFileUID", 0),
        found.get("DeviceFileGID", 0), found.get("DeviceFileMode", 0o666) & 0o777,
    )  # fmt: skip


def make_missing(
    params: Params, dev: Path = Path("/dev"), proc: Path = Path("/proc")
) -> Iterator[tuple[str, Acl]]:
    """Make the driver's device files that are not there; yield each card's with its usual ACL.

    The cards' are made for root alone, so that nobody gets in between; nvidiactl as the driver
    wants it. Raises OSError.
    """
    minors = list(_minors(proc))
    if minors and not os.path.lexists(dev / CONTROL):
        _make(dev / CONTROL, CONTROL_MINOR, params, params.mode)
    for minor in minors:
        name = f"nvidia{minor}"
        if not os.path.lexists(dev / name):
            _make(dev / name, minor, params, 0o600)
            yield name, Acl.of_mode(params.mode)


def _make(path: Path, minor: int, params: Params, mode: int) -> None:
    # A user's file creation mask must not say what a device's mode is.
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(MAJOR, minor))
    os.chown(path, params.uid, params.gid)
    path.chmod(mode)
    log.info("device file made path=%s minor=%d", path, minor)


def _minors(proc: Path) -> Iterator[int]:
    """Yield the minor numbers of the cards that the driver runs."""
    for path in sorted((proc / "driver/nvidia/gpus").glob("*/information")):
        with contextlib.suppress(OSError):  # the card is being taken out
            if found := MINOR.search(path.read_text()):
                yield int(found[1])
