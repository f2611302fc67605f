"""DCMI power, the LAN mode and the watchdog timer, beside other people's programs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sentinel_exporters.ipmi.commands import parse_lan_mode
from sentinel_exporters.ipmi.errors import IpmiError
from sentinel_exporters.ipmi.watchdog import Watchdog, parse_watchdog
from tests.exporters.bmc import Bmc, Command
from tests.exporters.ipmi_lab import exporting, probe, up
from tests.exporters.ipmi_peers import fetch_series, ipmi_exporter, ipmitool
from tests.exporters.running import Exporter, values

COLLECTORS = ("dcmi", "bmc", "sm-lan-mode", "bmc-watchdog")
# Only to these does the simulator answer what it does not know itself.
MODULES = {"default": {"privilege": "admin", "collectors": COLLECTORS}}

DCMI_POWER = Command(0x2C, 0x02, b"\xdc\x01")
LAN_MODE = Command(0x30, 0x70, b"\x0c\x00")
# The simulator's own answer is cut short.
WATCHDOG = Command(0x06, 0x25)
FIRMWARE = Command(0x06, 0x59, b"\x00\x01\x00")
# DCMI 1.5, table 6-16: 300 W now; in the last byte, whether it is measured.
POWER = bytes.fromhex("00dc 2c01 0a00 9001 1801 00e1f505 e8030000")
ANSWERS = {
    DCMI_POWER: POWER + b"\x40",
    LAN_MODE: b"\x00\x02",
    # SMS/OS, running and not logged; a power cycle, 30 s before it an NMI; 998.7 of 1000.5 s.
    WATCHDOG: bytes.fromhex("00 c4 23 1e 00 1527 0327"),
    FIRMWARE: bytes.fromhex("00 11 00 00 05") + b"2.6.1" + bytes(9),
}


@pytest.fixture(scope="module")
def bmc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bmc]:
    bmc = Bmc(tmp_path_factory.mktemp("bmc"), (), answers=ANSWERS).start()
    yield bmc
    bmc.stop()


@pytest.fixture(scope="module")
def exporter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exporter]:
    with exporting(tmp_path_factory.mktemp("exporter"), MODULES) as exporter:
        yield exporter


def test_power_lan_mode_and_firmware_are_those_of_ipmi_exporter(
    exporter: Exporter, bmc: Bmc, tmp_path: Path
) -> None:
    theirs_options = {"privilege": "admin", "collectors": ["dcmi", "bmc", "sm-lan-mode"]}
    with ipmi_exporter(bmc, tmp_path, **theirs_options) as url:
        theirs = fetch_series(url)
    ours = probe(exporter, bmc)

    assert up(ours) == dict.fromkeys(COLLECTORS, 1)
    for family, value in (
        ("ipmi_dcmi_power_consumption_watts", 300),
        ("ipmi_config_lan_mode", 2),
    ):
        assert values(theirs, family) == {"": value}
        assert values(ours, family) == {"": value}
    versions = values(theirs, "ipmi_bmc_info", "system_firmware_version")
    assert versions == values(ours, "ipmi_bmc_info", "system_firmware_version") == {"2.6.1": 1}


@pytest.mark.parametrize(
    ("command", "answer", "is_up"),
    [
        (DCMI_POWER, POWER + b"\x00", {"dcmi": 1, "sm-lan-mode": 1}),  # it does not measure now
        (DCMI_POWER, b"\xd4", {"dcmi": 0, "sm-lan-mode": 1}),
        (DCMI_POWER, b"\x00\xdc", {"dcmi": 0, "sm-lan-mode": 1}),
        (LAN_MODE, b"\x00\x03", {"dcmi": 1, "sm-lan-mode": 0}),
        (LAN_MODE, b"\x00", {"dcmi": 1, "sm-lan-mode": 0}),
    ],
)
def test_what_is_not_told_has_no_sample(
    exporter: Exporter, tmp_path: Path, command: Command, answer: bytes, is_up: dict[str, float]
) -> None:
    family = {
        DCMI_POWER: "ipmi_dcmi_power_consumption_watts", LAN_MODE: "ipmi_config_lan_mode"
    }[command]  # fmt: skip
    bmc = Bmc(tmp_path, (), answers={**ANSWERS, command: answer}).start()
    try:
        series = probe(exporter, bmc)
    finally:
        bmc.stop()

    assert {name: up(series)[name] for name in is_up} == is_up
    assert not values(series, family)


def test_the_watchdog_reads_as_ipmitool_reads_it(exporter: Exporter, bmc: Bmc) -> None:
    running = probe(exporter, bmc)
    shown = ipmitool(bmc, "mc", "watchdog", "get")

    prefix = "ipmi_bmc_watchdog_"
    assert values(running, prefix + "timer_state") == {"": 1}
    assert values(running, prefix + "timer_use_state", "name") == {
        "BIOS FRB2": 0, "BIOS POST": 0, "OS LOAD": 0, "SMS/OS": 1, "OEM": 0
    }  # fmt: skip
    assert values(running, prefix + "logging_state") == {"": 0}
    assert values(running, prefix + "timeout_action_state", "action") == {
        "None": 0, "Hard Reset": 0, "Power Down": 0, "Power Cycle": 1
    }  # fmt: skip
    assert values(running, prefix + "pretimeout_interrupt_state", "interrupt") == {
        "None": 0, "SMI": 0, "NMI / Diagnostic Interrupt": 1, "Messaging Interrupt": 0
    }  # fmt: skip
    assert values(running, prefix + "pretimeout_interval_seconds") == {"": 30}
    assert values(running, prefix + "initial_countdown_seconds") == {"": 1000.5}
    assert values(running, prefix + "current_countdown_seconds") == {"": 998.7}
    for line in (
        "Timer Use:     SMS/OS (0xc4)", "Timer Is:      Started", "Timer Logging: Off",
        "Timer Action:  Power Cycle (0x23)", "interrupt:  NMI", "interval:   30 seconds",
        "Initial Countdown:      1000.5 sec", "Present Countdown:      998.7 sec",
    ):  # fmt: skip
        assert line in shown


def test_a_reserved_code_of_the_watchdog_is_none() -> None:
    assert parse_watchdog(bytes.fromhex("07 77 00 00 ffff 0000")) == Watchdog(
        False, True, None, None, None, 0, 6553.5, 0.0
    )


@pytest.mark.parametrize("data", [b"", b"\x04\x03\x1e\x00\x15\x27\x15"])
def test_a_short_answer_is_an_error(data: bytes) -> None:
    with pytest.raises(IpmiError):
        parse_watchdog(data)


@pytest.mark.parametrize("data", [b"", b"\x03", b"\x01\x00"])
def test_other_answers_are_no_lan_mode(data: bytes) -> None:
    with pytest.raises(IpmiError, match="not a LAN mode"):
        parse_lan_mode(data)
