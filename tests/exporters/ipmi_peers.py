"""Other people's IPMI programs, to compare with: ipmitool, FreeIPMI, ipmi_exporter."""

from __future__ import annotations

import contextlib
import csv
import json
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.exporters.bmc import USER, Bmc
from tests.exporters.running import Series, parse_series
from tests.lab.ports import free_ports
from tests.lab.wait import wait_for

# ipmi_sim opens sessions only without a privilege level in the request.
_WORKAROUND = "opensesspriv"


@dataclass(frozen=True)
class Monitored:
    """A sensor as FreeIPMI's ipmimonitoring sees it; "N/A" becomes None."""

    id: int
    name: str
    type: str
    state: str | None
    value: float | None
    unit: str | None


def ipmimonitoring(bmc: Bmc) -> list[Monitored]:
    """Ask as ipmi_exporter asks."""
    done = subprocess.run(
        ["ipmimonitoring", "-h", bmc.target, "-u", USER, "-p", bmc.password, "-D", "LAN_2_0",
         "-l", "USER", "-W", _WORKAROUND, "--quiet-cache", "--ignore-unrecognized-events",
         "--comma-separated-output", "--no-header-output", "--sdr-cache-recreate",
         "--output-sensor-state"],
        capture_output=True, check=True, timeout=60,
    )  # fmt: skip
    rows = csv.reader(done.stdout.decode("latin-1").splitlines())
    return [
        Monitored(
            int(number), name, kind, _known(state),
            None if value == "N/A" else float(value), _known(unit),
        )
        for number, name, kind, state, value, unit, *_ in rows
    ]  # fmt: skip


def count_sessions(bmc: Bmc) -> int:
    """Return how many sessions the BMC says it has, by ipmitool, without ipmitool's own.

    Raises OSError when it does not say.
    """
    done = subprocess.run(
        ["ipmitool", "-I", "lanplus", "-C", "3", "-N", "1", "-R", "2", "-H", bmc.host,
         "-p", str(bmc.port), "-U", USER, "-P", bmc.password, "session", "info", "active"],
        capture_output=True, check=False, text=True,
    )  # fmt: skip
    if done.returncode:
        raise OSError(f"ipmitool: {done.stderr}")
    _, _, count = done.stdout.partition("active sessions")
    return int(count.partition(":")[2].split()[0]) - 1


@dataclass(frozen=True)
class Logged:
    """An entry of the event log as FreeIPMI's ipmi-sel prints it."""

    id: int
    date: str
    time: str
    state: str
    event: str


def ipmi_sel(bmc: Bmc) -> list[Logged]:
    """Ask as ipmi_exporter asks."""
    done = subprocess.run(
        ["ipmi-sel", "-h", bmc.target, "-u", USER, "-p", bmc.password, "-D", "LAN_2_0",
         "-l", "USER", "-W", _WORKAROUND, "--quiet-cache", "--comma-separated-output",
         "--no-header-output", "--sdr-cache-recreate", "--output-event-state",
         "--interpret-oem-data", "--entity-sensor-names"],
        capture_output=True, check=True, timeout=60,
    )  # fmt: skip
    # Names and types without commas here; what is behind the last of them is the event.
    rows = [line.split(",", 6) for line in done.stdout.decode("latin-1").splitlines()]
    return [
        Logged(int(number), date, at, state, event)
        for number, date, at, _, _, state, event in rows
    ]


def ipmitool_sensors(bmc: Bmc) -> dict[str, float]:
    """Return the sensors with a numeric reading; raw values of discrete ones are left out."""
    lines = ipmitool(bmc, "sensor").splitlines()
    columns = ([cell.strip() for cell in line.split("|")] for line in lines)
    return {
        name: float(value)
        for name, value, unit, *_ in columns
        # It shows a sensor without a number raw: 0x9.
        if value != "na" and unit != "discrete" and not value.startswith("0x")
    }


def ipmitool_states(bmc: Bmc) -> dict[str, str]:
    """Return the verdict on each sensor with a number: ok, or nc, cr, nr for a limit passed."""
    lines = ipmitool(bmc, "sensor").splitlines()
    columns = ([cell.strip() for cell in line.split("|")] for line in lines)
    return {
        name: state
        for name, _, unit, state, *_ in columns
        if unit != "discrete" and state != "na"
    }


def ipmitool_events(bmc: Bmc) -> dict[str, int]:
    """Return the events of each discrete sensor, a bit for each that is asserted."""
    lines = ipmitool(bmc, "sensor").splitlines()
    columns = ([cell.strip() for cell in line.split("|")] for line in lines)
    # It prints the two bytes in the order in which they come.
    return {
        name: int.from_bytes(bytes.fromhex(state.removeprefix("0x").rjust(4, "0")), "little")
        & 0x7FFF
        for name, _, unit, state, *_ in columns
        if unit == "discrete" and state != "na"
    }


def ipmitool(bmc: Bmc, *arguments: str) -> str:
    """Run a command of ipmitool; returns what it prints."""
    done = subprocess.run(
        ["ipmitool", "-I", "lanplus", "-C", "3", "-H", bmc.host, "-p", str(bmc.port),
         "-U", USER, "-P", bmc.password, *arguments],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    return done.stdout


@contextlib.contextmanager
def ipmi_exporter(bmc: Bmc, folder: Path, **options: object) -> Iterator[str]:
    """Serve Debian's prometheus-ipmi-exporter; yields the URL of the BMC's page.

    `options` are keys of its module.
    """
    module: dict[str, object] = {
        "user": USER,
        "pass": bmc.password,
        "driver": "LAN_2_0",
        "privilege": "user",
        "timeout": 10000,
        "collectors": ["ipmi", "dcmi", "bmc", "chassis", "sel"],
        "workaround_flags": [_WORKAROUND],
        **options,
    }
    # JSON is YAML.
    (folder / "peer.yml").write_text(json.dumps({"modules": {"default": module}}))
    with ipmi_exporter_with(folder / "peer.yml", bmc) as url:
        yield url


@contextlib.contextmanager
def ipmi_exporter_with(config: Path, bmc: Bmc) -> Iterator[str]:
    """Serve Debian's prometheus-ipmi-exporter with its own file; yields the BMC's URL."""
    address = f"127.0.0.1:{free_ports(1)[0]}"
    with config.with_suffix(".log").open("w") as log:
        process = subprocess.Popen(
            ["prometheus-ipmi-exporter", "--config.file", str(config),
             "--web.listen-address", address],
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        wait_for("ipmi_exporter listens", lambda: _fetch(f"http://{address}/"))
        yield f"http://{address}/ipmi?target={bmc.target}"
    finally:
        process.kill()
        process.wait()


def fetch_series(url: str) -> Series:
    """Return a page of ipmi_exporter as series."""
    return parse_series(_fetch(url))


def _fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return str(answer.read().decode())


def _known(text: str) -> str | None:
    return None if text == "N/A" else text
