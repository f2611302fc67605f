"""What can be known of Ascend chips, whatever source tells it. Reads nothing.

None is a reading that the source does not give; it never becomes zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Protocol

from ..accelerator import DeviceProcess


@dataclass(frozen=True)
class Usage:
    """So much of a total; bytes or pages."""

    used: int
    total: int


@dataclass(frozen=True)
class Board:
    """What the chip is, in the maker's words; "" where not told."""

    chip_type: str
    chip_name: str
    chip_version: str
    vdie_id: str


@dataclass(frozen=True)
class Ecc:
    """Memory errors of one kind of memory.

    `recent` since the driver was loaded, `lifetime` in the chip's life, `pages` out of use;
    each single-bit (corrected) and double-bit (not corrected).
    """

    recent: tuple[int, int] | None = None
    lifetime: tuple[int, int] | None = None
    pages: tuple[int, int] | None = None


@dataclass(frozen=True)
class Template:
    """What a vNPU of this template has."""

    aicores: int
    memory_bytes: int


@dataclass(frozen=True)
class Vnpu:
    """A share of a chip. `container` is the start of the container's id, "" for none."""

    vnpu_id: int
    group: str
    container: str
    is_used: bool | None
    template: str


@dataclass(frozen=True)
class Seen:
    """A process when the source told it: whose it was, and when it began.

    `owner` None: not known. `started` is in clock ticks since the boot; None: it was not there.
    """

    owner: str | None
    started: int | None


@dataclass(frozen=True)
class Details:
    """What is asked of a chip besides the table of all chips, and less often.

    `engines` are utilisations in percent by name: aicpu, ctrlcpu, vector, cube, overall and
    the parts of the image and video unit. `has_utilization` is False where the source says
    that it has none for this chip, as for one that is split into vNPUs. `power_watts` of a
    card that has only one reading for two chips is that of the first. `seen` are the processes
    by their number, as they were when they were told.
    """

    engines: Mapping[str, float] | None = None
    has_utilization: bool | None = None
    hbm_percent: float | None = None
    bandwidth_percent: float | None = None
    aicore_hertz: float | None = None
    aicores: int | None = None
    power_watts: float | None = None
    memory_celsius: float | None = None
    voltage_volts: float | None = None
    hbm_ecc: Ecc | None = None
    ddr_ecc: Ecc | None = None
    error_codes: tuple[str, ...] | None = None
    vnpus: tuple[Vnpu, ...] | None = None
    templates: Mapping[str, Template] | None = None
    free_aicores: int | None = None
    network: str | None = None
    network_transmitted_bytes_per_s: float | None = None
    network_received_bytes_per_s: float | None = None
    board: Board | None = None
    processes: tuple[DeviceProcess, ...] | None = None
    seen: Mapping[int, Seen] | None = None


def merge_details(parts: Iterable[Details]) -> Details:
    """Return what the parts tell together; of two that tell the same, the first counts."""
    merged = Details()
    for part in parts:
        told = {
            one.name: getattr(part, one.name)
            for one in fields(part)
            if getattr(merged, one.name) is None and getattr(part, one.name) is not None
        }
        merged = replace(merged, **told)
    return merged


@dataclass(frozen=True)
class Chip:
    """One chip, of which a card may have two.

    `logic_id` is the driver's count of the chips. `physical_id` is the N of /dev/davinciN (by
    Huawei's pages on Ascend Docker Runtime), and what hccn_tool and Huawei's exporter go by;
    None where it is not known.
    `processes` None: it is not known whether there are any; each number is in it once.
    `has_damaged_hbm`: the chip has one, and what the source says of it cannot be.
    """

    uuid: str
    logic_id: int
    physical_id: int | None
    npu_id: int
    chip_id: int
    name: str
    health: str
    bus_id: str | None = None
    power_watts: float | None = None
    temperature_celsius: float | None = None
    aicore_percent: float | None = None
    ddr: Usage | None = None  # bytes
    hbm: Usage | None = None  # bytes
    hugepages: Usage | None = None  # pages
    processes: tuple[DeviceProcess, ...] | None = None
    details: Details = field(default_factory=Details)
    has_damaged_hbm: bool = False

    @property
    def model(self) -> str:
        """The product's name."""
        return self.name if self.name.startswith("Ascend") else f"Ascend {self.name}"

    @property
    def memory(self) -> Usage | None:
        """The memory that programs compute in: HBM where the chip has it, else DDR."""
        return None if self.has_damaged_hbm else self.hbm or self.ddr


@dataclass(frozen=True)
class Reading:
    """All chips of the machine.

    `has_logic_ids` False: the source has logic ids and does not tell them now, and those of the
    chips are a guess. `problems` say what could not be read.
    """

    tool: str
    tool_version: str
    driver_version: str
    chips: tuple[Chip, ...]
    owners: Mapping[int, str] = field(default_factory=dict)
    has_logic_ids: bool = True
    problems: tuple[str, ...] = ()


# Stands for a process whose number is not told; the kernel's own, so that nobody owns it.
NO_PID = 0


class Source(Protocol):
    """Something that tells of the chips. It keeps what it may between reads."""

    def read(self, *, with_details: bool) -> Reading:
        """Return what there is now; raises CollectorError when there is nothing usable."""
        ...
