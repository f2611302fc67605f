"""The verdict on each event of each kind of sensor, beside FreeIPMI's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sentinel_exporters.ipmi.names import name_sensor_type
from sentinel_exporters.ipmi.readings import Reading
from sentinel_exporters.ipmi.session import Session
from tests.exporters.bmc import Bmc, Sensor
from tests.exporters.bmc_sessions import LOGIN, at, read_all, soon
from tests.exporters.ipmi_peers import ipmimonitoring

_SENSOR_TYPES = range(0x01, 0x2E)
_SENSOR_SPECIFIC = 0x6F
# FreeIPMI 1.6 stops with an error at 0Dh and above.
_GENERIC_EVENT_TYPES = range(0x02, 0x0D)
_WORDS = {"Nominal": 0, "Warning": 1, "Critical": 2, None: None}


def discrete(sensor_type: int, event_type: int, *bits: int) -> Sensor:
    """A sensor on which these events are asserted; its name says which."""
    asserted = ".".join(map(str, bits))
    name = f"{sensor_type:x}-{event_type:x}-{asserted}"
    return Sensor(name, sensor_type, event_type, bits=bits, record="compact")


def specific() -> Iterator[Sensor]:
    """Each event of each sensor type of table 42-3."""
    for sensor_type in _SENSOR_TYPES:
        yield discrete(sensor_type, _SENSOR_SPECIFIC)
        for bit in range(15):
            yield discrete(sensor_type, _SENSOR_SPECIFIC, bit)


def generic() -> Iterator[Sensor]:
    """Each event type of table 42-2 with each sensor type."""
    for sensor_type in _SENSOR_TYPES:
        for event_type in _GENERIC_EVENT_TYPES:
            yield discrete(sensor_type, event_type, 0)
            yield discrete(sensor_type, event_type, 1)
    for sensor_type in (0x04, 0x08, 0x0C):
        for event_type in _GENERIC_EVENT_TYPES:
            for bit in range(2, 15):
                yield discrete(sensor_type, event_type, bit)


def thresholds() -> Iterator[Sensor]:
    """Each limit passed; the simulator asserts the lesser ones with the greater."""
    limits = (30, 20, 10, 70, 80, 90)
    for raw in (5, 10, 15, 20, 25, 30, 50, 70, 75, 80, 85, 90, 95):
        yield Sensor(f"at {raw}", 1, raw=raw, unit=1, thresholds=limits)


def several() -> Iterator[Sensor]:
    """Several events at once: the gravest counts."""
    yield discrete(0x08, _SENSOR_SPECIFIC, 0, 7)
    yield discrete(0x08, _SENSOR_SPECIFIC, 0, 1, 7)
    yield discrete(0x0C, _SENSOR_SPECIFIC, 6, 8)
    yield discrete(0x04, 0x07, 1, 2)
    yield discrete(0x04, 0x0B, 0, 2)
    yield discrete(0xC3, _SENSOR_SPECIFIC, 0)
    yield discrete(0x01, 0x70, 0)


@pytest.mark.parametrize("sensors", [specific, generic, thresholds, several])
def test_freeipmi_comes_to_the_same_verdict(tmp_path: Path, sensors: object) -> None:
    assert callable(sensors)
    every = list(sensors())
    compared = 0
    # Sensors have numbers of one byte.
    for start in range(0, len(every), 250):
        bmc = Bmc(tmp_path, every[start : start + 250]).start()
        try:
            theirs = {one.id: one for one in ipmimonitoring(bmc)}
            ours = {one.record.id: one for one in read_everything(bmc)}
        finally:
            bmc.stop()
        assert {
            number: (one.name, one.type, _WORDS[one.state]) for number, one in theirs.items()
        } == {
            number: (one.record.name, name_sensor_type(one.record.sensor_type), one.state)
            for number, one in ours.items()
        }
        compared += len(ours)
    assert compared == len(every)


def read_everything(bmc: Bmc) -> list[Reading]:
    session = Session(at(bmc), LOGIN, soon(20))
    try:
        return read_all(session)
    finally:
        session.close()
