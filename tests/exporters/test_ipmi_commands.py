"""Single answers of BMCs, byte by byte as the standards have them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from sentinel_exporters.ipmi import commands
from sentinel_exporters.ipmi.commands import (
    parse_chassis,
    parse_device,
    parse_event_log,
    parse_power_watts,
    parse_system_info,
    read_system_firmware,
)
from sentinel_exporters.ipmi.errors import CompletionError, IpmiError
from sentinel_exporters.ipmi.names import name_manufacturer, name_sensor_type
from sentinel_exporters.ipmi.readings import Reading
from sentinel_exporters.ipmi.sdr import SensorRecord
from sentinel_exporters.ipmi.session import Session
from sentinel_exporters.ipmi.units import Unit
from sentinel_exporters.ipmi_samples import Answers, make_scrape, sample_reading

# Bytes of DCMI 1.5, table 6-16: group, power now, least, most, mean, time, period, state.
POWER = bytes.fromhex("dc 2c01 0a00 9001 1801 00e1f505 e8030000")
DEVICE = bytes.fromhex("20 01 02 45 02 9f 7c2a00 6909 01020304")


@pytest.mark.parametrize(
    ("misc", "drive", "cooling"),
    [(0x00, False, False), (0x04, True, False), (0x08, False, True), (0x0C, True, True)],
)
def test_chassis_faults(misc: int, drive: bool, cooling: bool) -> None:
    chassis = parse_chassis(bytes([0x61, 0x10, misc, 0x70]))

    assert chassis.is_on
    assert (chassis.has_drive_fault, chassis.has_cooling_fault) == (drive, cooling)


def test_a_chassis_that_is_off() -> None:
    assert not parse_chassis(bytes([0x60, 0x10, 0x40])).is_on


def test_power_is_read_while_it_is_measured() -> None:
    assert parse_power_watts(POWER + b"\x40") == 300


def test_no_power_is_read_while_it_is_not_measured() -> None:
    assert parse_power_watts(POWER + b"\x00") is None


def test_an_answer_of_another_group_is_no_power() -> None:
    with pytest.raises(IpmiError):
        parse_power_watts(b"\x00" + POWER[1:] + b"\x40")


def test_event_log_counts_are_little_endian() -> None:
    log = parse_event_log(bytes.fromhex("51 0302 1040 00000000 00000000 02"))

    assert (log.entries, log.free_bytes) == (0x0203, 0x4010)


def test_the_minor_firmware_revision_is_bcd() -> None:
    device = parse_device(DEVICE)

    assert (device.firmware, device.manufacturer, device.product) == ("2.45", 10876, 2409)
    assert parse_device(DEVICE[:2] + b"\x81\x05" + DEVICE[4:]).firmware == "1.05"


@pytest.mark.parametrize("is_up", [True, False])
def test_a_bmc_that_told_only_a_part_of_what_it_is_has_no_info(is_up: bool) -> None:
    scrape = make_scrape(Answers(device=parse_device(DEVICE), is_up={"bmc": is_up}))

    assert ("ipmi_bmc_info" in {one.metric.name for one in scrape.samples}) is is_up


@pytest.mark.parametrize("parse", [parse_chassis, parse_device, parse_event_log])
def test_a_short_answer_is_an_error(parse: object) -> None:
    assert callable(parse)
    with pytest.raises(IpmiError, match="bytes instead of"):
        parse(b"\x00")


@pytest.mark.parametrize(
    ("blocks", "text"),
    [
        (b"\x00\x052.6.1", "2.6.1"),
        (b"\x01\x06\xe7\x89\x88\xe6\x9c\xac", "版本"),
        (b"\x02\x0eU\x002\x00.\x001\x000\x00\x00\x00\x00\x00", "U2.10"),
        (b"\x00\x08U41\x00\x00\x00\x00\x00", "U41"),
        (b"\x00\x05ABCDEFGH", "ABCDE"),
        (b"\x00\x00", None),
    ],
)
def test_system_info_is_read_in_its_encoding(blocks: bytes, text: str | None) -> None:
    assert parse_system_info(blocks) == text


def test_manufacturers_have_a_name_and_their_number() -> None:
    assert name_manufacturer(674) == "Dell Inc. (674)"
    assert name_manufacturer(999999) == "999999"


def test_sensor_types_beyond_the_table() -> None:
    assert name_sensor_type(0x2D) == "Unrecognized"
    assert name_sensor_type(0xC0) == "OEM Reserved"


class _Host(Session):
    """A session with a BMC whose host has this BIOS; "": the BMC does not say."""

    def __init__(self, bios: str) -> None:
        self.bios, self.asked = bios, 0
        self.facts = {}

    def request(self, netfn: int, command: int, data: bytes = b"", lun: int = 0) -> bytes:
        assert (netfn, command, data, lun) == (0x06, 0x59, b"\0\x01\0\0", 0)
        self.asked += 1
        if not self.bios:
            raise CompletionError(netfn, command, 0x80, "unsupported")
        text = self.bios.encode()
        return bytes([0x11, 0, 0, len(text)]) + text.ljust(14, b"\0")


@pytest.mark.parametrize("before", ["BIOS 1.0", ""])
def test_another_bios_is_noticed_while_the_session_goes_on(
    monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    host = _Host(before)
    assert read_system_firmware(host) == (before or None)
    host.bios = "BIOS 2.0"
    assert read_system_firmware(host) == (before or None)
    assert host.asked == 1
    monkeypatch.setattr(commands, "_INFO_AGE_S", 0.0)
    assert read_system_firmware(host) == "BIOS 2.0"


def test_a_fans_part_of_its_maximum_is_written_as_short_as_it_is() -> None:
    entry = SimpleNamespace(numeric_format=0)
    record = SensorRecord(1, "FAN1", 1, 0, 0x04, 1, Unit(0, is_percent=True), entry)
    (sample,) = sample_reading(Reading(record, 35.0, None))
    assert sample.line == 'ipmi_fan_speed_ratio{id="1",name="FAN1"} 0.35\n'
