"""What a node's agent may report of its devices and targets. No IO."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from ..errors import FieldProblem
from .targets import BMC_JOB, is_job

# "GPU-8a4b…", "npu-0000:C1:00.0", "npu-logic-3". No comma: policies join uuids by commas.
_UUID = re.compile(r"[A-Za-z0-9][A-Za-z0-9:._-]{0,95}")


@dataclass(frozen=True)
class ReportedDevice:
    """One chip as `sentinel-exporter devices` prints it; `memory_bytes` None: not known."""

    vendor: str
    uuid: str
    index: int
    minor: int | None
    model: str
    bus_id: str
    memory_bytes: int | None

    @property
    def granted_by(self) -> tuple[str, int, int | None]:
        """What a policy says of the device besides its uuid."""
        return (self.vendor, self.index, self.minor)


@dataclass(frozen=True)
class ReportedTarget:
    """A port of the node that Prometheus scrapes for this job."""

    job: str
    port: int


def check_devices(devices: Sequence[ReportedDevice]) -> list[FieldProblem]:
    """Return what is wrong: a uuid that is none, or one device listed as two.

    Two devices of a vendor with one index or minor number would open each other's
    device file, so such a report is refused as a whole.
    """
    problems = [
        FieldProblem(f"devices.{number}.uuid", "not a device's uuid")
        for number, device in enumerate(devices)
        if not _UUID.fullmatch(device.uuid)
    ]
    problems += _repeated("uuid", [device.uuid for device in devices])
    problems += _repeated("index", [(device.vendor, device.index) for device in devices])
    problems += _repeated(
        "minor",
        [None if device.minor is None else (device.vendor, device.minor) for device in devices],
    )
    return problems


def check_targets(targets: Sequence[ReportedTarget]) -> list[FieldProblem]:
    """Return what is wrong: no job's name, a job listed twice, one that is not the agent's."""
    problems = []
    counts = Counter(target.job for target in targets)
    for number, target in enumerate(targets):
        field = f"targets.{number}.job"
        if not is_job(target.job):
            problems.append(FieldProblem(field, "not a job's name"))
        elif target.job == BMC_JOB:
            problems.append(FieldProblem(field, "comes from the BMC address of the node"))
        elif counts[target.job] > 1:
            problems.append(FieldProblem(field, "listed twice"))
    return problems


def _repeated(field: str, values: Iterable[Hashable]) -> list[FieldProblem]:
    found = list(values)
    counts = Counter(value for value in found if value is not None)
    return [
        FieldProblem(f"devices.{number}.{field}", "listed twice")
        for number, value in enumerate(found)
        if counts[value] > 1
    ]
