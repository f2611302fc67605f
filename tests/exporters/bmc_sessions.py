"""What tests of sessions share: who logs in at a BMC, where, by when. Judges nothing."""

from __future__ import annotations

import time
from ipaddress import ip_address

from sentinel_exporters.ipmi.readings import Reading, read_sensors
from sentinel_exporters.ipmi.sdr import read_records
from sentinel_exporters.ipmi.session import Credentials, Session
from sentinel_exporters.ipmi.target import Address
from tests.exporters.bmc import PASSWORD, SERVER, USER, Bmc
from tests.exporters.udp_relay import UdpRelay

LOGIN = Credentials(USER, PASSWORD)
LOOPBACK = ip_address("127.0.0.1")
READABLE = sum(sensor.is_present and sensor.is_scanned for sensor in SERVER)


def at(bmc: Bmc | UdpRelay) -> Address:
    """Return where it is reached."""
    return Address(ip_address(bmc.host), bmc.port)


def soon(seconds: float = 10.0) -> float:
    """Return a deadline."""
    return time.monotonic() + seconds


def read_all(session: Session) -> list[Reading]:
    """Read every sensor."""
    return read_sensors(session, read_records(session))
