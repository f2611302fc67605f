"""Simulated BMCs for tests: OpenIPMI's ipmi_sim, independent of our client. Knows no client."""

from __future__ import annotations

import atexit
import functools
import os
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.exporters.running import FAKES
from tests.lab.wait import wait_for

USER = "monitor"
PASSWORD = "not-a-real-password"
GUID = "5a1e0000c0de4000800000000000beef"

# Get Channel Authentication Capabilities outside of a session (IPMI 2.0, 22.13), which any BMC
# that is ready to serve answers: RMCP header, empty session header, message, two checksums.
_ARE_YOU_THERE = bytes.fromhex("0600ff07000000000000000000092018c88100388e04b5")


@dataclass(frozen=True)
class Sensor:
    """One sensor and its SDR record. Codes and raw numbers are those of IPMI 2.0, section 43.

    `event_type` 1 is a threshold sensor. The reading is `(m·raw + b·10^b_exp)·10^r_exp`.
    `thresholds` are raw: lower non-critical, critical, non-recoverable, then upper.
    """

    name: str
    sensor_type: int
    event_type: int = 1
    raw: int = 0
    bits: Sequence[int] = ()
    unit: int = 0
    unit_flags: int = 0
    unit_modifier: int = 0
    m: int = 1
    b: int = 0
    b_exp: int = 0
    r_exp: int = 0
    linearization: int = 0
    thresholds: Sequence[int | None] = (None,) * 6
    record: str = "full"
    share_count: int = 1
    owner: int = 0x20
    # The name's bytes and their encoding (43.15): 0 Unicode, 2 packed, 3 Latin-1.
    encoded_name: bytes | None = None
    name_kind: int = 3
    # False: an SDR record without a sensor, as of a removed drive: completion code CBh.
    is_present: bool = True
    is_scanned: bool = True
    # A file with the raw reading, which the simulator reads every five seconds.
    source: Path | None = None

    def sdr(self, number: int) -> bytes:
        """Return the record's bytes; its number is also its record id."""
        name = self.name.encode() if self.encoded_name is None else self.encoded_name
        kind = self.name_kind << 6
        key = bytes([self.owner, 0, number, 7, 1])
        event_only = bytes([self.sensor_type, self.event_type])
        tail = bytes([kind | len(name)]) + name
        if self.record == "event-only":
            body = key + event_only + bytes([self.share_count, 0, 0, 0]) + tail
            return bytes([number, 0, 0x51, 3, len(body)]) + body
        key += bytes([0x7F, 0x68]) + event_only
        if self.record == "compact":
            body = key + b"\xff\x7f\xff\x7f\xff\x7f"
            body += bytes([0xC0, self.unit, 0, self.share_count]) + bytes(7) + tail
            return bytes([number, 0, 0x51, 2, len(body)]) + body
        mask = sum(1 << k for k, value in enumerate(self.thresholds) if value is not None)
        lnc, lc, lnr, unc, uc, unr = (value or 0 for value in self.thresholds)
        body = key + b"\x95\x7a\x95\x7a" + bytes([mask, mask])
        body += bytes([self.unit_flags, self.unit, self.unit_modifier])
        body += bytes([self.linearization, self.m & 0xFF, (self.m >> 8 & 3) << 6])
        body += bytes([self.b & 0xFF, (self.b >> 8 & 3) << 6, 0])
        body += bytes([(self.r_exp & 15) << 4 | self.b_exp & 15, 0, 0, 0, 0, 255, 0])
        body += bytes([unr, uc, unc, lnr, lc, lnc, 0, 0, 0, 0, 0]) + tail
        return bytes([number, 0, 0x51, 1, len(body)]) + body

    def commands(self, number: int) -> Iterable[str]:
        """Yield the simulator's commands that make the sensor."""
        at = f"0x20 0 {number}"
        if self.is_present and self.record != "event-only":
            poll = f' poll 5000 file "{self.source}"' if self.source else ""
            yield f"sensor_add {at} {self.sensor_type} {self.event_type}{poll}"
            if self.event_type == 1:
                mask = "".join("0" if t is None else "1" for t in reversed(self.thresholds))
                values = " ".join(str(t or 0) for t in reversed(self.thresholds))
                yield f"sensor_set_threshold {at} readable {mask} {values}"
            scanning = "scanning" if self.is_scanned else "no-scanning"
            every, none = "1" * 15, "0" * 15
            yield (
                f"sensor_set_event_support {at} enable {scanning} per-state"
                f" {every} {every} {none} {none}"
            )
            if self.event_type == 1 and not self.source:
                yield f"sensor_set_value {at} {self.raw} 0"
            for bit in self.bits:
                yield f"sensor_set_bit {at} {bit} 1 0"
        yield "main_sdr_add 0x20 " + " ".join(f"0x{byte:02x}" for byte in self.sdr(number))


# What a server's BMC has: each unit, limits that are passed, a drive that is gone.
SERVER = (
    Sensor("Inlet Temp", 1, raw=24, unit=1, thresholds=(5, 3, None, 40, 45, 50)),
    Sensor("CPU Temp", 1, raw=88, unit=1, thresholds=(None, None, None, 85, 95, 100)),
    Sensor("GPU Temp", 1, raw=97, unit=1, thresholds=(None, None, None, 85, 95, 100)),
    Sensor("Outdoor Temp", 1, raw=0xFB, unit=1, unit_flags=0x80),
    Sensor("FAN1", 4, raw=57, unit=18, m=100, thresholds=(7, 5, 3, None, None, None)),
    Sensor("FAN2", 4, raw=2, unit=18, m=100, thresholds=(7, 5, 3, None, None, None)),
    Sensor("FAN3 Duty", 4, raw=37, unit_flags=1),
    Sensor("12V", 2, raw=203, unit=4, m=6, r_exp=-2, thresholds=(180, 175, 170, 220, 225, 230)),
    Sensor("CPU VCORE", 2, raw=178, unit=4, m=1, b=5, b_exp=1, r_exp=-2),
    Sensor("PSU1 Power", 0x0B, raw=113, unit=6, m=16),
    Sensor("PSU1 Current", 3, raw=83, unit=5, r_exp=-1),
    Sensor("Airflow", 0x0B, raw=44, unit=17),
    Sensor("PSU1 Status", 8, 0x6F, bits=(0,), record="compact"),
    Sensor("PSU2 Status", 8, 0x6F, bits=(0, 1, 3), record="compact"),
    Sensor("Memory", 0x0C, 0x6F, bits=(5,), record="compact"),
    Sensor("Chassis Intru", 5, 0x6F, record="compact"),
    Sensor("Fan Redundancy", 4, 0x0B, bits=(2,), record="compact"),
    Sensor("Drive 3", 0x0D, 0x6F, record="compact", is_present=False),
    Sensor("DIMM Temp", 1, raw=33, unit=1, is_scanned=False),
    Sensor("Riser Temp", 1, raw=33, unit=1, is_present=False),
)


# What ipmi_sim runs to learn and to change the chassis' state: `get power`, `set power 1`.
_CHASSIS = """\
#!/bin/sh
case "$1" in
  get) echo "power:$(cat "$0.power")" ;;
  set) [ "$2" = power ] && echo "$3" > "$0.power" ;;
esac
exit 0
"""


@functools.cache
def _answers_module() -> Path:
    """Compile the module that answers what the simulator does not know."""
    folder = Path(tempfile.mkdtemp(prefix="bmc-answers-"))
    atexit.register(shutil.rmtree, folder)
    subprocess.run(
        ["gcc", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC",
         "-o", folder / "answers.so", FAKES / "bmc_answers.c"],
        check=True,
    )  # fmt: skip
    return folder / "answers.so"


@functools.cache
def _delay_module() -> Path:
    """Compile the module that makes the simulator slow and its network lossy."""
    folder = Path(tempfile.mkdtemp(prefix="bmc-delay-"))
    atexit.register(shutil.rmtree, folder)
    subprocess.run(
        ["gcc", "-Wall", "-Wextra", "-Werror", "-O2", "-shared", "-fPIC",
         "-o", folder / "delay.so", FAKES / "bmc_delay.c"],
        check=True,
    )  # fmt: skip
    return folder / "delay.so"


@dataclass(frozen=True)
class Command:
    """A command, and the first bytes of its data, that `Bmc.answers` answers."""

    netfn: int
    number: int
    data: bytes = b""


@dataclass
class Bmc:
    """One ipmi_sim process, and the host whose power it controls."""

    folder: Path
    sensors: Sequence[Sensor] = SERVER
    password: str = PASSWORD
    guid: str = GUID
    host: str = "127.0.0.1"
    port: int = 0
    manufacturer: int = 10876
    is_host_on: bool = True
    # Whether the user without a name may log in, with the same password.
    has_nameless_user: bool = False
    # Further entries of the event log: record type and 13 bytes.
    events: Sequence[tuple[int, bytes]] = ()
    # Answers in place of the simulator's own, the completion code first.
    answers: Mapping[Command, bytes] = field(default_factory=dict)
    # How long each answer takes, and how many of them are lost.
    delay_s: float = 0.0
    loss_percent: float = 0.0
    process: subprocess.Popen[bytes] | None = None
    _log: Path = Path()
    _answers: Path = Path()

    @property
    def target(self) -> str:
        """What `?target=` takes."""
        return f"{self.host}:{self.port}"

    def start(self) -> Bmc:
        """Start and wait until it answers."""
        self.launch()
        self.wait_until_ready()
        return self

    def launch(self) -> None:
        """Start, not waiting until it answers."""
        self.port = self.port or free_udp_port(self.host)
        folder = self.folder / f"bmc-{self.port}-{time.monotonic_ns()}"
        # Its own mkdir of nested folders fails.
        (folder / "state" / "ipmi_sim" / "bmc").mkdir(parents=True)
        chassis = folder / "chassis"
        chassis.write_text(_CHASSIS)
        chassis.chmod(0o755)
        chassis.with_suffix(".power").write_text(f"{self.is_host_on:d}\n")
        self._answers = folder / "answers"
        self.change_answers(self.answers)
        (folder / "lan.conf").write_text(self._lan(chassis))
        (folder / "commands").write_text("\n".join(self._commands()) + "\n")
        # Two of them on one port would both start, and share the packets. What one that was
        # ended has started, as to read the chassis, holds its port for a moment longer.
        wait_for("a free port", lambda: free_udp_port(self.host, self.port) == self.port, 5)
        with (folder / "log").open("w") as log:
            self.process = subprocess.Popen(
                ["ipmi_sim", "-n", "-c", str(folder / "lan.conf"),
                 "-f", str(folder / "commands"), "-s", str(folder / "state")],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environment(),
            )  # fmt: skip
        self._log = folder / "log"

    def _environment(self) -> dict[str, str]:
        if not self.delay_s and not self.loss_percent:
            return dict(os.environ)
        return {
            **os.environ,
            "LD_PRELOAD": str(_delay_module()),
            "BMC_DELAY_US": f"{self.delay_s * 1e6:.0f}",
            "BMC_LOSS_PERCENT": str(self.loss_percent),
        }

    def stop(self) -> None:
        """End it at once: an orderly exit takes it three seconds."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def pause(self) -> None:
        """Let it hang: its port is open, and nothing answers."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """End a pause. What came in meanwhile is answered now."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def change_answers(self, answers: Mapping[Command, bytes]) -> None:
        """Answer otherwise from now on; to no other commands than at the start."""
        self.answers = answers
        new = self._answers.with_suffix(".new")
        new.write_text("".join(self._answer_lines()))
        new.replace(self._answers)

    def _answer_lines(self) -> Iterable[str]:
        for command, answer in self.answers.items():
            data, bytes_ = command.data.hex() or "-", answer.hex()
            yield f"{command.netfn:x} {command.number:x} {data} {bytes_}\n"

    def _lan(self, chassis: Path) -> str:
        library = f'loadlib "{_answers_module()}" "{self._answers}"' if self.answers else ""
        nameless = "true" if self.has_nameless_user else "false"
        roles = "\n".join(
            f"    allowed_auths_{role} none md2 md5 straight"
            for role in ("callback", "user", "operator", "admin")
        )
        return f"""\
name "bmc"
{library}
set_working_mc 0x20
  startlan 1
    addr {self.host} {self.port}
    priv_limit admin
{roles}
    guid {self.guid}
  endlan
  chassis_control "{chassis}"
  user 1 {nameless} "" "{self.password}" user 10 none md2 md5 straight
  user 2 true "{USER}" "{self.password}" admin 63 none md2 md5 straight
"""

    def _commands(self) -> Iterable[str]:
        yield "mc_setbmc 0x20"
        yield f"mc_add 0x20 0 no-device-sdrs 0x23 2 0x45 0x9f 0x{self.manufacturer:06x} 0x0969"
        yield "sel_enable 0x20 4000 0x0a"
        for number, sensor in enumerate(self.sensors, 1):
            yield from sensor.commands(number)
        event = "0 0 0x60 0x20 0 0x04 1 3 0x01 0x57 0x95 0x5f"
        for record in range(3):
            yield f"sel_add 0x20 0x02 {60 + record} {event}"
        for kind, data in self.events:
            yield f"sel_add 0x20 {kind} " + " ".join(f"0x{byte:02x}" for byte in data)
        yield "mc_enable 0x20"

    def wait_until_ready(self) -> None:
        """Wait until it answers."""
        assert self.process is not None
        deadline = time.monotonic() + 10
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((self.host, self.port))
            while time.monotonic() < deadline and self.process.poll() is None:
                try:
                    probe.send(_ARE_YOU_THERE)
                    if select.select([probe], [], [], 0.1)[0] and probe.recv(256):
                        return
                except ConnectionRefusedError:
                    time.sleep(0.02)
        self.stop()
        raise RuntimeError(f"ipmi_sim did not start: {self._log.read_text()}")


def free_udp_port(host: str, port: int = 0) -> int:
    """Return a UDP port that is free now; raises OSError when `port` is not."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((host, port))
        number: int = probe.getsockname()[1]
        return number
