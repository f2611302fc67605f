"""SDR records as BMCs have them, odd ones too, and what is kept of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from sentinel_exporters.ipmi.errors import IpmiError
from sentinel_exporters.ipmi.readings import Reading, decode_reading
from sentinel_exporters.ipmi.sdr import RecordCache
from sentinel_exporters.ipmi.session import Privilege, Session
from sentinel_exporters.ipmi_samples import sample_reading
from tests.exporters.bmc import Bmc, Command, Sensor
from tests.exporters.bmc_sessions import LOGIN, at, read_all, soon
from tests.exporters.ipmi_peers import ipmimonitoring, ipmitool_sensors

CELSIUS, VOLTS, AMPERES, WATTS, COULOMBS, RPM, HOURS, REVOLUTIONS = 1, 4, 5, 6, 8, 18, 24, 41
PERCENT, PER_SECOND, PER_MINUTE, TIMES = 1, 3 << 3, 4 << 3, 2 << 1
ONES_COMPLEMENT, TWOS_COMPLEMENT, NO_NUMBER = 0x40, 0x80, 0xC0
LN, LOG10, LOG2, E_POWER, POWER_OF_10, POWER_OF_2, INVERSE, SQUARE, CUBE, ROOT = range(1, 11)
CUBE_ROOT, NON_LINEAR = 11, 0x70

ODD = (
    Sensor("negative", 1, raw=0xFB, unit=CELSIUS, unit_flags=TWOS_COMPLEMENT),
    Sensor("ones", 1, raw=0xFB, unit=CELSIUS, unit_flags=ONES_COMPLEMENT),
    Sensor("no number", 1, raw=9, unit=CELSIUS, unit_flags=NO_NUMBER),
    Sensor("offset", 1, raw=10, unit=CELSIUS, m=-3, b=-7, b_exp=-1, r_exp=-2),
    Sensor("large", 2, raw=255, unit=VOLTS, m=511, r_exp=3),
    Sensor("logarithm", 1, raw=10, unit=CELSIUS, linearization=LN),
    Sensor("inverse", 1, raw=10, unit=CELSIUS, linearization=INVERSE),
    Sensor("square", 1, raw=12, unit=CELSIUS, linearization=SQUARE),
    Sensor("root", 1, raw=81, unit=CELSIUS, linearization=ROOT),
    Sensor("non-linear", 1, raw=10, unit=CELSIUS, linearization=NON_LINEAR),
    Sensor("duty", 4, raw=55, unit_flags=PERCENT),
    Sensor("humidity", 1, raw=55, unit_flags=PERCENT),
    Sensor("percent of C", 1, raw=5, unit=CELSIUS, unit_flags=PERCENT),
    Sensor("turns", 4, raw=5, unit=REVOLUTIONS, unit_flags=PER_MINUTE),
    Sensor("rpm/s", 4, raw=5, unit=RPM, unit_flags=PER_SECOND),
    Sensor("watt hours", 0x0B, raw=5, unit=WATTS, unit_flags=TIMES, unit_modifier=HOURS),
    Sensor("watts", 0x0B, raw=5, unit=WATTS, unit_flags=TIMES),
    Sensor("unknown unit", 1, raw=5, unit=93),
    Sensor("no unit", 1, raw=5),
    Sensor("threshold", 1, raw=9, unit=CELSIUS, record="compact"),
    Sensor("discrete", 8, 0x6F, raw=5, unit=WATTS, bits=(0,)),
    Sensor("events", 8, 0x6F, record="event-only"),
    Sensor("shared", 8, 0x6F, record="compact", share_count=3, bits=(0,)),
    Sensor("its own", 8, 0x6F, record="compact", bits=(0,)),
    Sensor("satellite", 8, 0x6F, record="compact", owner=0x22, bits=(0,)),
    Sensor("software", 8, 0x6F, record="compact", owner=0x41, bits=(0,)),
    Sensor("twice", 1, raw=9, unit=CELSIUS),
    Sensor("twice", 1, raw=10, unit=CELSIUS),
    Sensor(" spaces ", 1, raw=10, unit=CELSIUS),
    Sensor("", 1, raw=10, unit=CELSIUS),
    Sensor('quote" \\', 1, raw=10, unit=CELSIUS),
    Sensor("reserved", 0, raw=10, unit=CELSIUS),
    Sensor("oem", 0xC3, raw=10, unit=CELSIUS),
)

# FreeIPMI's unit and sensor type: where ipmi_exporter puts them.
_FAMILIES = {
    ("C", None): "ipmi_temperature_celsius",
    ("RPM", None): "ipmi_fan_speed_rpm",
    ("V", None): "ipmi_voltage_volts",
    ("A", None): "ipmi_current_amperes",
    ("W", None): "ipmi_power_watts",
    ("%", "Fan"): "ipmi_fan_speed_ratio",
}


@contextlib.contextmanager
def running(folder: Path, sensors: Sequence[Sensor], port: int = 0) -> Iterator[Bmc]:
    bmc = Bmc(folder, sensors, port=port).start()
    try:
        yield bmc
    finally:
        bmc.stop()


@contextlib.contextmanager
def session_with(bmc: Bmc, privilege: Privilege = Privilege.USER) -> Iterator[Session]:
    session = Session(at(bmc), replace(LOGIN, privilege=privilege), soon(20))
    try:
        yield session
    finally:
        session.close()


def read(folder: Path, *sensors: Sensor) -> list[Reading]:
    with running(folder, sensors) as bmc, session_with(bmc) as session:
        return read_all(session)


def test_odd_records_read_as_freeipmi_reads_them(tmp_path: Path) -> None:
    with running(tmp_path, ODD) as bmc, session_with(bmc) as session:
        theirs = ipmimonitoring(bmc)
        ipmitool = ipmitool_sensors(bmc)
        ours = read_all(session)

    assert {one.record.id: one.record.name for one in ours} == {
        one.id: one.name for one in theirs
    }
    expected = {one.id: one.value for one in theirs}
    assert {one.record.id: one.value for one in ours} == pytest.approx(expected, abs=0.0101)
    # FreeIPMI cuts to two decimals; ipmitool rounds to three, and knows no two of a name.
    names = [one.record.name for one in ours]
    exact = {
        one.record.name: one.value
        for one in ours
        if one.record.name in ipmitool and names.count(one.record.name) == 1
    }
    assert len(exact) >= 15
    assert exact == pytest.approx({name: ipmitool[name] for name in exact}, abs=0.00051)
    for one, other in zip(ours, theirs, strict=True):
        wanted = _FAMILIES.get((other.unit or "", None)) or _FAMILIES.get(
            (other.unit or "", other.type), "ipmi_sensor_value"
        )
        families = {sample.metric.name for sample in sample_reading(one)}
        if other.value is not None:
            assert wanted in families, other
        else:
            assert not any(name.endswith("_value") for name in families)


def test_coulombs_are_no_degrees(tmp_path: Path) -> None:
    # FreeIPMI writes C for both, so ipmi_exporter takes a charge for a temperature.
    (reading,) = read(tmp_path, Sensor("charge", 0x0B, raw=5, unit=COULOMBS))

    assert {one.metric.name for one in sample_reading(reading)} == {
        "ipmi_sensor_value",
        "ipmi_sensor_state",
    }


@pytest.mark.parametrize(
    ("name", "encoded", "kind"),
    [
        ("CPU-1 TEMP", "packed", 2),
        ("Größe", "latin-1", 3),
        ("温度", "utf-8", 0),
    ],
)
def test_names_are_read_in_their_encoding(
    tmp_path: Path, name: str, encoded: str, kind: int
) -> None:
    raw = pack_six_bit(name) if encoded == "packed" else name.encode(encoded)
    sensor = Sensor(name, 1, raw=5, unit=CELSIUS, encoded_name=raw, name_kind=kind)

    (reading,) = read(tmp_path, sensor)

    assert reading.record.name == name


def pack_six_bit(text: str) -> bytes:
    """6-bit packed ASCII: the first character in the lowest bits (IPMI 2.0, 43.16)."""
    bits = sum((ord(char) - 0x20) << 6 * place for place, char in enumerate(text))
    return bits.to_bytes((len(text) * 6 + 7) // 8, "little")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x20",
        b"\x20\x00",  # not scanned
        b"\x20\x60\x00",  # scanned, and the reading is not available
    ],
)
def test_an_answer_without_a_reading_is_none(tmp_path: Path, data: bytes) -> None:
    (reading,) = read(tmp_path, Sensor("temp", 1, raw=5, unit=CELSIUS))

    assert decode_reading(reading.record, data) is None


def test_an_answer_without_state_bytes_has_a_value_and_no_state(tmp_path: Path) -> None:
    (reading,) = read(tmp_path, Sensor("temp", 1, raw=5, unit=CELSIUS))
    found = decode_reading(reading.record, b"\x20\x40")

    assert found is not None
    assert (found.value, found.state) == (32.0, None)


def test_a_formula_without_a_result_has_no_value(tmp_path: Path) -> None:
    sensors = [
        Sensor("ln 0", 1, unit=CELSIUS, linearization=LN),
        Sensor("1/0", 1, unit=CELSIUS, linearization=INVERSE),
        Sensor("root of -1", 1, raw=1, unit=CELSIUS, m=-1, linearization=ROOT),
        Sensor("10^255000", 1, raw=255, unit=CELSIUS, r_exp=3, linearization=POWER_OF_10),
    ]

    assert [(one.record.name, one.value) for one in read(tmp_path, *sensors)] == [
        (one.name, None) for one in sensors
    ]


def test_the_cube_root_of_a_negative_number_is_negative(tmp_path: Path) -> None:
    sensor = Sensor("root of -27", 1, raw=27, unit=CELSIUS, m=-1, linearization=CUBE_ROOT)
    (reading,) = read(tmp_path, sensor)

    assert reading.value == -3


@pytest.mark.parametrize(
    ("answer", "is_known"),
    [
        # Next reading, M 5, B 100, exponents of result -1 and of B 0.
        (bytes.fromhex("00 0a 05 00 64 00 00 f0"), True),
        (b"\xcb", False),
        (b"\x00\x0a", False),
        (b"\x00", False),
    ],
)
def test_a_non_linear_sensor_is_read_by_the_factors_of_its_reading(
    tmp_path: Path, answer: bytes, is_known: bool
) -> None:
    sensors = [
        Sensor("plain", 1, raw=9, unit=CELSIUS, linearization=NON_LINEAR),
        Sensor(
            "below 0", 1, raw=0xFB, unit=CELSIUS, unit_flags=TWOS_COMPLEMENT,
            linearization=NON_LINEAR + 1,
        ),
        Sensor("linear", 1, raw=9, unit=CELSIUS),
    ]  # fmt: skip
    bmc = Bmc(tmp_path, sensors, answers={Command(0x04, 0x23): answer}).start()
    try:
        with session_with(bmc, Privilege.ADMIN) as session:
            ours = {one.record.name: one.value for one in read_all(session)}
        ipmitool = ipmitool_sensors(bmc) if is_known else {}
    finally:
        bmc.stop()

    assert ours["linear"] == 9
    assert (ours["plain"], ours["below 0"]) == ((14.5, 7.5) if is_known else (None, None))
    assert not is_known or {name: ours[name] for name in ipmitool} == ipmitool


def test_sensors_of_which_no_user_may_read_any_are_an_error(tmp_path: Path) -> None:
    sensors = [Sensor("temp", 1, unit=CELSIUS), Sensor("fan", 4, unit=RPM)]
    bmc = Bmc(tmp_path, sensors, answers={Command(0x04, 0x2D): b"\xd4"}).start()
    try:
        with (
            session_with(bmc) as session,
            pytest.raises(IpmiError, match=r"no sensor can be read: .*D4h"),
        ):
            read_all(session)
    finally:
        bmc.stop()


def test_records_are_read_once_while_the_repository_stays(tmp_path: Path) -> None:
    cache = RecordCache()
    sensors = [Sensor("temp", 1, raw=5, unit=CELSIUS)]
    with running(tmp_path, sensors) as bmc:
        with session_with(bmc) as session:
            first = cache.records(session)
        with session_with(bmc) as session:
            assert cache.records(session) is first


def test_another_repository_at_the_same_address_is_noticed(tmp_path: Path) -> None:
    cache = RecordCache()
    old = [Sensor("old", 1, raw=5, unit=CELSIUS)]
    with running(tmp_path, old) as bmc, session_with(bmc) as session:
        assert [one.name for one in cache.records(session)] == ["old"]
    more = [Sensor("new", 1, raw=5, unit=CELSIUS), Sensor("newer", 1, raw=5, unit=CELSIUS)]
    with running(tmp_path, more, bmc.port) as bmc, session_with(bmc) as session:
        assert [one.name for one in cache.records(session)] == ["new", "newer"]


def test_two_bmcs_of_one_model_do_not_share_records(tmp_path: Path) -> None:
    # pyghmi's own cache would: model, firmware and repository times are the same.
    cache = RecordCache()
    with (
        running(tmp_path, [Sensor("a", 1, raw=5, unit=CELSIUS)]) as one,
        running(tmp_path, [Sensor("b", 1, raw=5, unit=CELSIUS)]) as other,
        session_with(one) as with_one,
        session_with(other) as with_other,
    ):
        assert [record.name for record in cache.records(with_one)] == ["a"]
        assert [record.name for record in cache.records(with_other)] == ["b"]


def test_the_cache_is_bounded(tmp_path: Path) -> None:
    cache = RecordCache(max_bmcs=1)
    sensors = [Sensor("temp", 1, raw=5, unit=CELSIUS)]
    with (
        running(tmp_path, sensors) as one,
        running(tmp_path, sensors) as other,
        session_with(one) as with_one,
        session_with(other) as with_other,
    ):
        first = cache.records(with_one)
        second = cache.records(with_other)
        assert cache.records(with_other) is second
        assert cache.records(with_one) is not first
