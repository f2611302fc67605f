"""Sensor by sensor the same as ipmitool and ipmi_exporter read on the same BMC."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import count, product
from pathlib import Path

import pytest

from sentinel_exporters.ipmi.states import judge
from tests.exporters.bmc import Bmc, Sensor
from tests.exporters.ipmi_lab import exporting, probe
from tests.exporters.ipmi_peers import (
    fetch_series,
    ipmi_exporter,
    ipmitool_events,
    ipmitool_sensors,
    ipmitool_states,
)
from tests.exporters.running import Series, values

CELSIUS, VOLTS, AMPERES, WATTS, RPM = 1, 4, 5, 6, 18
UNSIGNED, ONES_COMPLEMENT, TWOS_COMPLEMENT, PERCENT = 0, 0x40, 0x80, 1
(LN, LOG10, LOG2, E_POWER, POWER_OF_10, POWER_OF_2, ROOT, CUBE_ROOT) = (
    1,
    2,
    3,
    4,
    5,
    6,
    10,
    11,
)
POWERS = (E_POWER, POWER_OF_10, POWER_OF_2)
SENSOR_SPECIFIC = 0x6F

# FreeIPMI shows a formula without a result as this; ipmitool says "nan".
_NOT_A_NUMBER = -9.315605757223324e18


def formulas() -> Iterator[Sensor]:
    """Every linearization and data format, over factors and readings of all kinds."""
    number = count()
    for linearization, data_format, raw in product(
        range(12), (UNSIGNED, ONES_COMPLEMENT, TWOS_COMPLEMENT), (0, 1, 10, 130, 255)
    ):
        at = next(number)
        is_power = linearization in POWERS  # of large numbers they are too large
        yield Sensor(
            f"{linearization}-{data_format:x}-{raw}", 1, raw=raw, unit=CELSIUS,
            unit_flags=data_format, linearization=linearization,
            m=(1, -1)[at % 2] if is_power else (1, -3, 7, 511, -512)[at % 5],
            b=0 if is_power else (0, -7, 100, 511)[at % 4],
            b_exp=0 if is_power else (0, -1, 1, 2)[at % 4],
            r_exp=-1 if is_power else (0, -2, -3, 1)[at // 3 % 4],
        )  # fmt: skip


def units() -> Iterator[Sensor]:
    """Each family, and each unit that has none."""
    for name, kind, unit in (
        ("temp", 1, CELSIUS), ("volts", 2, VOLTS), ("amps", 3, AMPERES), ("fan", 4, RPM),
        ("watts", 0x0B, WATTS),
    ):  # fmt: skip
        yield Sensor(name, kind, raw=57, unit=unit, m=6, r_exp=-2)
        yield Sensor(f"{name} {PERCENT}%", kind, raw=57, unit=unit, unit_flags=PERCENT)
        yield Sensor(f"{name} negative", kind, raw=0xFB, unit=unit, unit_flags=TWOS_COMPLEMENT)
        yield Sensor(f"{name} per s", kind, raw=57, unit=unit, unit_flags=3 << 3)
        yield Sensor(f"{name} hours", kind, raw=57, unit=unit, unit_flags=4, unit_modifier=24)
        yield Sensor(f"{name} compact", kind, raw=57, unit=unit, record="compact")
    for kind in (1, 4, 0x0A, 0x0B, 0xC0):
        yield Sensor(f"duty {kind:x}", kind, raw=37, unit_flags=PERCENT)
        for unit in (0, 2, 3, 7, 17, 19, 20, 70, 92):
            yield Sensor(f"{kind:x} in {unit}", kind, raw=57, unit=unit)


def limits() -> Iterator[Sensor]:
    """Each limit passed in either direction, and limits that are only partly there."""
    several = (
        (30, 20, 10, 70, 80, 90),
        (None, 20, None, None, 80, None),
        (30, None, None, 70, None, None),
    )
    for number, thresholds in enumerate(several):
        for raw in (5, 10, 15, 20, 25, 30, 31, 50, 69, 70, 75, 80, 85, 90, 95):
            for kind, unit in ((1, CELSIUS), (4, RPM)):
                name = f"{number} {raw} {unit}"
                yield Sensor(name, kind, raw=raw, unit=unit, thresholds=thresholds)


def discrete() -> Iterator[Sensor]:
    """What servers have: supplies, processors, drives, memory and more, in several states."""
    kinds = (0x05, 0x07, 0x08, 0x09, 0x0C, 0x0D, 0x0F, 0x10, 0x12, 0x13, 0x14, 0x1B, 0x1E, 0x1F,
             0x21, 0x22, 0x23, 0x25, 0x28, 0x29, 0x2A, 0x2B, 0x2C, 0x11, 0x1D, 0x20, 0x24, 0x27,
             0xC1)  # fmt: skip
    for kind in kinds:
        for bits in ((), (0,), (1,), (0, 1), (2,), (0, 3)):
            name = f"{kind:x} {'.'.join(map(str, bits)) or 'none'}"
            yield Sensor(name, kind, SENSOR_SPECIFIC, bits=bits, record="compact")
    for event_type, kind in (
        (0x03, 8),
        (0x05, 1),
        (0x07, 4),
        (0x08, 0x0D),
        (0x0A, 4),
        (0x0B, 8),
    ):
        for bit in (0, 1, 2):
            yield Sensor(
                f"{event_type:x} {bit}", kind, event_type, bits=(bit,), record="compact"
            )


def hidden() -> Iterator[Sensor]:
    """Sensors that neither shows, among some that both do."""
    yield Sensor("shown", 1, raw=30, unit=CELSIUS)
    yield Sensor("gone", 1, raw=30, unit=CELSIUS, is_present=False)
    yield Sensor("not scanned", 1, raw=30, unit=CELSIUS, is_scanned=False)
    yield Sensor("gone drive", 0x0D, SENSOR_SPECIFIC, record="compact", is_present=False)
    yield Sensor("idle drive", 0x0D, SENSOR_SPECIFIC, record="compact", is_scanned=False)
    yield Sensor("events", 8, SENSOR_SPECIFIC, record="event-only")
    yield Sensor("satellite", 1, raw=30, unit=CELSIUS, owner=0x22)
    yield Sensor("other channel", 1, raw=30, unit=CELSIUS, owner=0xC0)
    yield Sensor("software", 8, SENSOR_SPECIFIC, record="compact", owner=0x41, bits=(0,))
    yield Sensor("shared", 8, SENSOR_SPECIFIC, record="compact", share_count=3, bits=(0,))
    yield Sensor("shown drive", 0x0D, SENSOR_SPECIFIC, record="compact", bits=(0,))


def read(folder: Path, bmc: Bmc) -> Series:
    with exporting(folder, {"default": {"collectors": ["ipmi"]}}) as exporter:
        return probe(exporter, bmc)


def sensors_of(series: Series) -> Series:
    """Leave out what is not of a sensor, and NaN, which is absent here."""
    return {
        at: value
        for at, value in series.items()
        if "id" in dict(at[1]) and not math.isnan(value)
    }


def numbers() -> Iterator[Sensor]:
    """The sensors with a number that is read by a plain formula."""
    yield from units()
    yield from limits()


@pytest.mark.parametrize("sensors", [numbers, discrete])
def test_every_sensors_series_are_those_of_ipmi_exporter(
    tmp_path: Path, sensors: Callable[[], Iterator[Sensor]]
) -> None:
    bmc = Bmc(tmp_path, list(sensors())).start()
    try:
        with ipmi_exporter(bmc, tmp_path, collectors=["ipmi"]) as url:
            theirs = sensors_of(fetch_series(url))
        ours = sensors_of(read(tmp_path, bmc))
    finally:
        bmc.stop()

    assert theirs
    # FreeIPMI cuts values to two decimals.
    assert ours == pytest.approx(theirs, abs=0.0101)


def test_limits_that_are_passed_are_those_that_ipmitool_shows(tmp_path: Path) -> None:
    bmc = Bmc(tmp_path, list(limits())).start()
    try:
        ipmitool = ipmitool_states(bmc)
        series = read(tmp_path, bmc)
    finally:
        bmc.stop()

    ours = {
        **values(series, "ipmi_temperature_state", "name"),
        **values(series, "ipmi_fan_speed_state", "name"),
    }
    # FreeIPMI, and so ipmi_exporter, calls a sensor nominal that has passed no other limit than
    # the non-critical one.
    grave = {"ok": 0, "nc": 0, "cr": 2, "nr": 2}
    assert set(ipmitool.values()) == set(grave)
    assert ours == {name: grave[state] for name, state in ipmitool.items()}


def test_discrete_sensors_are_in_the_states_that_ipmitool_shows(tmp_path: Path) -> None:
    sensors = {sensor.name: sensor for sensor in discrete()}
    bmc = Bmc(tmp_path, list(sensors.values())).start()
    try:
        events = ipmitool_events(bmc)
        ours = values(read(tmp_path, bmc), "ipmi_sensor_state", "name")
    finally:
        bmc.stop()

    assert events == {
        name: sum(1 << bit for bit in sensor.bits) for name, sensor in sensors.items()
    }
    for name, state in ours.items():
        sensor = sensors[name]
        assert state == judge(sensor.sensor_type, sensor.event_type, events[name]), name
    # Of the others nobody says what is bad.
    for name in events.keys() - ours.keys():
        assert judge(sensors[name].sensor_type, sensors[name].event_type, 1) is None, name


def test_sensors_that_read_nothing_or_are_of_others_are_left_out_by_both(
    tmp_path: Path,
) -> None:
    bmc = Bmc(tmp_path, list(hidden())).start()
    try:
        with ipmi_exporter(bmc, tmp_path, collectors=["ipmi"]) as url:
            theirs = sensors_of(fetch_series(url))
        ours = sensors_of(read(tmp_path, bmc))
    finally:
        bmc.stop()

    assert ours == pytest.approx(theirs, abs=0.0101)
    names = {dict(labels)["name"] for _, labels in ours}
    assert names == {"shown", "shared", "shown drive"}


def test_every_formula_reads_as_ipmitool_and_ipmi_exporter_read_it(tmp_path: Path) -> None:
    sensors = list(formulas())
    bmc = Bmc(tmp_path, sensors).start()
    try:
        ipmitool = ipmitool_sensors(bmc)
        with ipmi_exporter(bmc, tmp_path, collectors=["ipmi"]) as url:
            theirs = values(fetch_series(url), "ipmi_temperature_celsius", "name")
        ours = values(read(tmp_path, bmc), "ipmi_temperature_celsius", "name")
    finally:
        bmc.stop()

    assert len(ours) > 140
    results = {name: value for name, value in ipmitool.items() if math.isfinite(value)}
    assert {name: results[name] for name in results if name in ours} == pytest.approx(
        {name: ours[name] for name in results if name in ours}, rel=1e-6, abs=0.00051
    )
    # What the one has no result for, the other has none for either.
    assert results.keys() <= ours.keys()
    assert not {name for name, value in ipmitool.items() if math.isnan(value)} & ours.keys()
    # FreeIPMI takes cube roots wrongly, and shows something for the logarithm of nothing.
    comparable = {
        name: value
        for name, value in theirs.items()
        if not name.startswith(f"{CUBE_ROOT}-")
        and value != _NOT_A_NUMBER
        and math.isfinite(value)
    }
    assert len(comparable) > 130
    assert {name: ours[name] for name in comparable} == pytest.approx(
        comparable, rel=1e-6, abs=0.0101
    )
