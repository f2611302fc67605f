"""Public dashboards and alert rules for ipmi_exporter, on a Prometheus that asks ours."""

from __future__ import annotations

import contextlib
import shutil
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.exporters.bmc import Bmc, Command, Sensor
from tests.exporters.dashboard_queries import FOLDER, Query, load_queries
from tests.exporters.ipmi_lab import exporting
from tests.exporters.prometheus_server import prometheus, query
from tests.lab.wait import wait_for

pytestmark = pytest.mark.skipif(
    None in {shutil.which("prometheus"), shutil.which("gcc")},
    reason="needs prometheus and gcc",
)

SENSOR_SPECIFIC = 0x6F
MODULE = {
    "privilege": "admin",  # only then does the simulator answer what it is told to
    "collectors": [
        "ipmi", "dcmi", "bmc", "chassis", "sel", "sel-events", "sm-lan-mode", "bmc-watchdog"
    ],
    "sel_events": [{"name": "temperature", "regex": "Upper Non-critical"}],
}  # fmt: skip
EVERYTHING = {
    Command(0x2C, 0x02, b"\xdc"): bytes.fromhex(
        "00dc 2c01 0a00 9001 1801 00e1f505 e8030000 40"
    ),
    Command(0x30, 0x70): b"\x00\x02",
    Command(0x06, 0x25): bytes.fromhex("00 c4 23 1e 00 1527 0327"),
}
TROUBLE = {
    # Off, with faults of a drive and of the cooling; 256 bytes left in the log.
    Command(0x00, 0x01): bytes.fromhex("00 60 10 0c 00"),
    Command(0x0A, 0x40): bytes.fromhex("00 51 0300 0001 00000000 00000000 02"),
}
HIGH = (None, None, None, 40, 45, 50)
LOW = (7, 5, 3, None, None, None)
SICK = (
    Sensor("Temp", 1, raw=99, unit=1, thresholds=HIGH),
    Sensor("FAN1", 4, raw=0, unit=18, thresholds=LOW),
    Sensor("Voltage 1", 2, raw=1, unit=4, thresholds=LOW),
    Sensor("Current 1", 3, raw=99, unit=5, thresholds=HIGH),
    Sensor("PS1 Input Power", 0x0B, raw=99, unit=6, thresholds=HIGH),
    Sensor("Status", 7, SENSOR_SPECIFIC, bits=(0,), record="compact"),
    Sensor("Status", 8, SENSOR_SPECIFIC, bits=(0, 1), record="compact"),
    Sensor("DIMM A1", 0x0C, SENSOR_SPECIFIC, bits=(0,), record="compact"),
    Sensor("CMOS", 0x29, SENSOR_SPECIFIC, bits=(1,), record="compact"),
    Sensor("Drive 1", 0x0D, SENSOR_SPECIFIC, bits=(1,), record="compact"),
    Sensor("SEL", 0x10, SENSOR_SPECIFIC, bits=(4,), record="compact"),
)


@dataclass(frozen=True)
class Rule:
    """One family of one alert rule; dashboards/ipmi.toml says what the rest is."""

    family: str
    match: str
    is_: str
    never: str

    def __str__(self) -> str:
        return f"{self.family}{{{self.match}}} {self.is_}"


def load_rules() -> list[Rule]:
    content = tomllib.loads((FOLDER / "ipmi.toml").read_text(encoding="utf-8"))
    return [
        Rule(family, rule.get("match", ""), rule["is"], rule.get("never", ""))
        for alerts in content["alerts"]
        for rule in alerts["rules"]
        for family in rule["names"]
    ]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prometheus on two BMCs: jobs "well", which tells everything, and "sick"."""
    folder = tmp_path_factory.mktemp("lab")
    well = Bmc(folder, answers=EVERYTHING)
    sick = Bmc(folder, SICK, answers=TROUBLE)
    with contextlib.ExitStack() as stack:
        for bmc in (well, sick):
            stack.callback(bmc.stop)
            bmc.start()
        exporter = stack.enter_context(exporting(folder, {"default": MODULE}))
        jobs = {
            name: {"metrics_path": "/ipmi", "params": {"target": [bmc.target]}}
            for name, bmc in (("well", well), ("sick", sick))
        }
        at = stack.enter_context(prometheus(folder, f"127.0.0.1:{exporter.port}", jobs))
        wait_for("both pages", lambda: len(query(at, "ipmi_scrape_duration_seconds")) == 2)
        # At first there may be no time left for the event log.
        wait_for("events", lambda: query(at, 'ipmi_up{job="well",collector="sel-events"} == 1'))
        yield at


@pytest.mark.parametrize("asked", load_queries("ipmi"), ids=lambda asked: asked.name)
def test_a_dashboards_query_has_data_and_the_labels_that_it_shows(
    address: str, asked: Query
) -> None:
    rows = query(address, asked.expression())
    rows = [row for row in rows if row["job"] == "well"]

    assert rows
    assert any(asked.shown() <= row.keys() for row in rows)


@pytest.mark.parametrize("rule", load_rules(), ids=str)
def test_an_alert_rule_fires_in_trouble(address: str, rule: Rule) -> None:
    series = f"{rule.family}{{{rule.match}}}"
    condition = "" if rule.never else rule.is_

    assert any(row["job"] == "sick" for row in query(address, f"{series} {condition}"))
    if rule.never:
        assert not query(address, f"{series} {rule.is_}")
