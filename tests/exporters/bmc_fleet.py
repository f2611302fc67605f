"""Many simulated BMCs of servers with eight GPUs, whose readings move. Knows no client."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tests.exporters.bmc import Bmc, Sensor

PORT = 6230
_STEP_S = 2.0

_C, _V, _A, _W, _RPM = 1, 4, 5, 6, 18
_HOT = (None, None, None, 85, 95, 100)
_SLOW = (7, 5, 3, None, None, None)
_MUCH = (None, None, None, 200, 210, 220)


def _temperature(name: str, raw: int) -> Sensor:
    return Sensor(name, 1, raw=raw, unit=_C, thresholds=_HOT)


def _voltage(name: str, raw: int, m: int) -> Sensor:
    limits = (raw - 20, raw - 25, raw - 30, raw + 20, raw + 25, raw + 30)
    return Sensor(name, 2, raw=raw, unit=_V, m=m, r_exp=-2, thresholds=limits)


def _power(name: str, raw: int, m: int) -> Sensor:
    return Sensor(name, 0x0B, raw=raw, unit=_W, m=m, thresholds=_MUCH)


def _current(name: str, raw: int) -> Sensor:
    return Sensor(name, 3, raw=raw, unit=_A, r_exp=-1, thresholds=_MUCH)


def _discrete(name: str, sensor_type: int, *bits: int) -> Sensor:
    return Sensor(name, sensor_type, 0x6F, bits=bits, record="compact")


FORTY = (
    _temperature("Inlet Temp", 24), _temperature("Exhaust Temp", 38),
    _temperature("CPU1 Temp", 55), _temperature("CPU2 Temp", 53), _temperature("PCH Temp", 47),
    _temperature("VRM1 Temp", 50), _temperature("DIMM A1 Temp", 41),
    _temperature("DIMM B1 Temp", 42),
    *(_temperature(f"GPU{number} Temp", 60 + number) for number in range(8)),
    *(Sensor(f"FAN{number}", 4, raw=60, unit=_RPM, m=100, thresholds=_SLOW)
      for number in range(1, 9)),
    _voltage("12V", 201, 6), _voltage("5VCC", 167, 3), _voltage("3.3VCC", 165, 2),
    _voltage("VBAT", 150, 2), _voltage("CPU1 VCORE", 180, 1), _voltage("CPU2 VCORE", 178, 1),
    _power("PSU1 Power", 120, 16), _power("PSU2 Power", 118, 16),
    _power("Total Power", 119, 32),
    _current("PSU1 Current", 90), _current("PSU2 Current", 88),
    _discrete("PSU1 Status", 8, 0), _discrete("PSU2 Status", 8, 0),
    _discrete("CPU1 Status", 7, 7), _discrete("Chassis Intru", 5),
    _discrete("Drive 0", 0x0D, 0),
)  # fmt: skip


def address(number: int) -> str:
    """Return the loopback address of a BMC of the fleet."""
    return f"127.1.{number // 250}.{number % 250 + 1}"


@contextlib.contextmanager
def running(folder: Path, count: int, delay_s: float, port: int = PORT) -> Iterator[list[Bmc]]:
    """Run `count` BMCs that take `delay_s` for each answer, until the block ends."""
    values = folder / f"values-{port}"
    values.mkdir()
    sensors = [
        replace(sensor, source=values / str(number)) if sensor.event_type == 1 else sensor
        for number, sensor in enumerate(FORTY)
    ]
    _move(sensors, 0)
    bmcs = [
        Bmc(folder, sensors, host=address(number), port=port, delay_s=delay_s,
            guid=f"{0x5A1E0000C0DE40008000000000000000 + number:032x}")
        for number in range(count)
    ]  # fmt: skip
    is_over = threading.Event()

    def keep_moving() -> None:
        while not is_over.wait(_STEP_S):
            _move(sensors, time.monotonic())

    mover = threading.Thread(target=keep_moving, name="bmc-values")
    try:
        for bmc in bmcs:
            bmc.launch()
        for bmc in bmcs:
            bmc.wait_until_ready()
        mover.start()
        yield bmcs
    finally:
        is_over.set()
        for bmc in bmcs:
            bmc.stop()
        if mover.is_alive():
            mover.join()


def _move(sensors: list[Sensor], now_s: float) -> None:
    """Write where each reading is now: within 5 of its middle, with a period of minutes."""
    for number, sensor in enumerate(sensors):
        if sensor.source is not None:
            raw = round(sensor.raw + 5 * math.sin(now_s / 37 + number))
            new = sensor.source.with_suffix(".new")
            new.write_text(f"{raw}\n")
            new.replace(sensor.source)
