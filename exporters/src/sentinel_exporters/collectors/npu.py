"""Turn what a source says of Ascend NPUs into samples. Only read() runs commands."""

from __future__ import annotations

import functools
from pathlib import Path

from pydantic import Field

from ..compat.npu_exporter import NPU_EXPORTER
from ..core import CollectorSettings, Device, DeviceReport, IntervalS, Scrape, TimeoutS
from ..npu import samples
from ..npu.reading import Reading, Source
from ..npu_smi.command import is_installed
from ..npu_smi.source import DEV, NpuSmi

METRICS = samples.METRICS
COMPAT = {"npu_exporter": NPU_EXPORTER}


class Settings(CollectorSettings):
    """The section `[npu]`."""

    # npu-smi takes about a second for each eight cards, and more on a busy machine.
    timeout_s: TimeoutS = 9.0
    interval_s: IntervalS = 15.0
    # The program, with arguments if need be; no shell is involved.
    command: str = "npu-smi"
    # What needs a run of npu-smi for each card is asked so often, or not at all with 0.
    detail_interval_s: float = Field(default=60.0, ge=0, le=3600)
    # Tells of the chips' own network, and comes with the driver; "": it is not asked.
    hccn_tool: str = "/usr/local/Ascend/driver/tools/hccn_tool"


def is_present(settings: Settings) -> bool:
    """Whether npu-smi is installed."""
    return is_installed(settings.command)


def read(settings: Settings) -> Reading:
    """Return the chips with their details; raises NpuSmiError when there is no table."""
    return _keep_source(settings).read(with_details=True)


def parse(reading: Reading) -> Scrape:
    """Return the chips' samples; what is not told has none."""
    return Scrape(samples.make_samples(reading), reading.problems)


def read_devices(settings: Settings, dev: Path = DEV) -> DeviceReport:
    """Return the chips; the index is the logic id, and `minor` N is /dev/davinciN.

    Where the tool has logic ids and does not tell them now, there is no device: access is
    granted by these numbers, and a guess could open another's card. For the same reason
    `minor` is None where the physical id is not known, or does not fit the files in `dev`.
    """
    reading = _open_source(settings, dev).read(with_details=False)
    if not reading.has_logic_ids:
        return DeviceReport((), reading.problems)
    devices = [
        Device(
            vendor="ascend",
            uuid=chip.uuid,
            index=chip.logic_id,
            minor=chip.physical_id,
            model=chip.model,
            bus_id=chip.bus_id or "",
            memory_bytes=chip.memory.total if chip.memory else None,
        )
        for chip in reading.chips
    ]
    return DeviceReport(devices, reading.problems)


def _open_source(settings: Settings, dev: Path = DEV) -> Source:
    # The driver's library could be another one, with the same readings.
    return NpuSmi(
        settings.command,
        timeout_s=settings.timeout_s,
        detail_interval_s=settings.detail_interval_s,
        hccn_tool=settings.hccn_tool,
        dev=dev,
    )


# A source keeps what it asks seldom. The runner reads a collector once at a time.
_keep_source = functools.lru_cache(maxsize=1)(_open_source)
