"""How the demo's readings move: pure functions of time. Serves and stores nothing."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

from script.demo_lab.lab import Model


@dataclass(frozen=True)
class DeviceReading:
    """One device at one moment."""

    utilization_ratio: float
    memory_used_bytes: int
    temperature_celsius: float
    power_watts: float


def wander(seed: str, at_s: float, period_s: float) -> float:
    """A smooth number in [0, 1] that differs by seed and never quite repeats."""
    phase = zlib.crc32(seed.encode()) % 6283 / 1000
    slow = math.sin(at_s * 2 * math.pi / period_s + phase)
    quick = math.sin(at_s * 2 * math.pi / (period_s * 0.137) + phase * 3.1)
    return 0.5 + 0.35 * slow + 0.15 * quick


def read_device(uuid: str, model: Model, at_s: float, eagerness: float | None) -> DeviceReading:
    """The reading of a device used with `eagerness`, or of a free one (None)."""
    if eagerness is None:
        use, memory = 0.0, 0.004
    else:
        use = min(1.0, eagerness * (0.72 + 0.45 * wander(uuid, at_s, 900)))
        memory = 0.08 + eagerness * (0.55 + 0.25 * wander(uuid + "m", at_s, 5400))
    room = 31 + 4 * wander(uuid + "r", at_s, 7200)
    return DeviceReading(
        utilization_ratio=round(use, 4),
        memory_used_bytes=int(memory * model.memory_bytes),
        temperature_celsius=round(room + 44 * use, 1),
        power_watts=round(model.idle_watts + (model.full_watts - model.idle_watts) * use, 1),
    )
