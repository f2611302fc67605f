"""The event log is read once, then only what is new, and counted as ipmi_exporter counts it."""

from __future__ import annotations

import contextlib
import re
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

import pytest

from sentinel_exporters.ipmi.errors import CompletionError, IpmiError, NoAnswerError
from sentinel_exporters.ipmi.event_log import LogCache
from sentinel_exporters.ipmi.sdr import RecordCache
from sentinel_exporters.ipmi.session import Session
from sentinel_exporters.ipmi.target import Address
from sentinel_exporters.ipmi_events import EventCounter
from sentinel_exporters.ipmi_module import SelEvent
from tests.exporters.bmc import Bmc
from tests.exporters.bmc_sessions import LOGIN, at, soon
from tests.exporters.ipmi_lab import exporting, probe, up
from tests.exporters.ipmi_peers import ipmi_sel, ipmitool
from tests.exporters.running import values
from tests.exporters.sel_entries import SENSOR_SPECIFIC, CountingSession, entry

GET_SEL_INFO, GET_SEL_ENTRY = (0x0A, 0x40), (0x0A, 0x43)
PSU_FAILED = entry(0x08, SENSOR_SPECIFIC, 1)
PSU_BACK = entry(0x08, SENSOR_SPECIFIC, 1, is_ended=True)
ECC = entry(0x0C, SENSOR_SPECIFIC, 0xA0, 0x11, 0x22)
EVENTS = [PSU_FAILED, PSU_BACK, *[ECC] * 5, entry(0xC1, SENSOR_SPECIFIC, 3)]
WANTED = (
    SelEvent(name="psu", regex="^Power Supply Failure"),
    SelEvent(name="memory", regex="[Cc]orrectable memory error"),
    SelEvent(name="memory", regex="Parity"),
    SelEvent(name="never", regex="no such words"),
)


@contextlib.contextmanager
def session_with(bmc: Bmc) -> Iterator[CountingSession]:
    session = CountingSession(at(bmc), LOGIN, soon(20))
    try:
        yield session
    finally:
        session.close()


@pytest.fixture
def bmc(tmp_path: Path) -> Iterator[Bmc]:
    bmc = Bmc(tmp_path, events=EVENTS).start()
    yield bmc
    bmc.stop()


def add(bmc: Bmc, kind: int, body: bytes) -> None:
    """Add an entry, which gets the time of the BMC's clock."""
    data = bytes([0, 0, kind]) + body
    ipmitool(bmc, "raw", "0x0a", "0x44", *(f"0x{byte:02x}" for byte in data))


def test_the_counts_are_those_of_ipmi_sels_lines(bmc: Bmc, tmp_path: Path) -> None:
    # Year 2023, so that entries from now on have a time.
    stamp = (1_700_000_000).to_bytes(4, "little")
    ipmitool(bmc, "raw", "0x0a", "0x49", *(f"0x{byte:02x}" for byte in stamp))
    add(bmc, *PSU_FAILED)
    module = {
        "collectors": ["sel", "sel-events"],
        "sel_events": [{"name": one.name, "regex": one.regex} for one in WANTED],
    }
    with exporting(tmp_path, {"default": module}) as exporter:
        series = probe(exporter, bmc)
    lines = ipmi_sel(bmc)

    assert up(series) == {"sel": 1, "sel-events": 1}
    states = Counter(line.state for line in lines)
    assert states.keys() == {"Nominal", "Warning", "Critical", "N/A"} - {"Nominal"}
    assert values(series, "ipmi_sel_events_count_by_state", "state") == {"Nominal": 0, **states}
    by_name = values(series, "ipmi_sel_events_count_by_name", "name")
    assert by_name == {
        "psu": sum(bool(re.search(WANTED[0].regex, line.event)) for line in lines),
        "memory": sum(bool(re.search(WANTED[1].regex, line.event)) for line in lines),
        "never": 0,
    }
    assert by_name["psu"] == 3
    latest = values(series, "ipmi_sel_events_latest_timestamp", "name")
    # An entry from before the clock was set has no time.
    assert latest == {
        "psu": pytest.approx(1_700_000_000, abs=20), "memory": 0, "never": 0
    }  # fmt: skip
    assert lines[-1].date == "Nov-14-2023"


def test_only_what_is_new_is_read(bmc: Bmc) -> None:
    counter = EventCounter(RecordCache())
    with session_with(bmc) as session:
        first = counter.count(session, WANTED, soon(20))
        assert session.commands.count(GET_SEL_ENTRY) == len(EVENTS) + 3

        session.commands.clear()
        assert counter.count(session, WANTED, soon(20)) == first
        assert session.commands.count(GET_SEL_ENTRY) == 0
        assert len(session.commands) <= 2  # of the log and of the sensors' repository, whether

        add(bmc, *PSU_FAILED)
        session.commands.clear()
        second = counter.count(session, WANTED, soon(20))
        assert session.commands.count(GET_SEL_ENTRY) == 2  # the last that is known, and the new
    assert second.by_name - first.by_name == {"psu": 1}
    assert first.by_name["psu"] == 2


def test_a_log_that_is_known_is_counted_for_another_module_without_reading(bmc: Bmc) -> None:
    counter = EventCounter(RecordCache())
    with session_with(bmc) as session:
        counter.count(session, WANTED, soon(20))
        session.commands.clear()
        other = counter.count(session, WANTED[:1], soon(20))

        assert GET_SEL_ENTRY not in session.commands
    assert other.by_name == {"psu": 2}


def test_a_cleared_log_is_counted_anew(bmc: Bmc) -> None:
    counter = EventCounter(RecordCache())
    with session_with(bmc) as session:
        before = counter.count(session, WANTED, soon(20))
        ipmitool(bmc, "sel", "clear")
        add(bmc, *ECC)
        after = counter.count(session, WANTED, soon(20))

    assert before.by_name["psu"] == 2
    assert after.by_name == {"psu": 0, "memory": 1, "never": 0}


@dataclass
class FakeLog(Session):
    """A BMC's log in memory, which can be odd in ways that the simulator cannot."""

    entries: dict[int, bytes] = field(default_factory=dict)
    added: int = 1
    erased: int = 1
    miscount: int = 0
    following: dict[int, int] = field(default_factory=dict)
    cut: int = 18
    asked: int = 0
    answers_left: int = 1000

    def __post_init__(self) -> None:
        self.address = Address(ip_address("127.0.0.1"))
        self.guid = b"one"

    def log(self, *ids: int) -> None:
        for number in ids:
            self.entries[number] = struct.pack("<HB", number, 2) + bytes(13)
        self.added += 1

    def request(self, netfn: int, command: int, data: bytes = b"", lun: int = 0) -> bytes:
        assert lun == 0
        if (netfn, command) == GET_SEL_INFO:
            count = len(self.entries) + self.miscount
            return struct.pack("<BHHIIB", 0x51, count, 0, self.added, self.erased, 2)
        self.asked += 1
        if self.asked > self.answers_left:
            raise NoAnswerError("no answer")
        (wanted,) = struct.unpack_from("<H", data, 2)
        ids = list(self.entries)
        number = wanted or ids[0]
        if number not in self.entries:
            raise CompletionError(netfn, command, 0xCB, "not present")
        place = ids.index(number) + 1
        behind = ids[place] if place < len(ids) else 0xFFFF
        behind = self.following.get(number, behind)
        return (struct.pack("<H", behind) + self.entries[number])[: self.cut]


def test_a_log_that_could_not_be_read_to_its_end_is_read_on() -> None:
    logs, bmc = LogCache(), FakeLog(answers_left=4)
    bmc.log(*range(1, 11))
    with pytest.raises(NoAnswerError):
        logs.log(bmc, soon(20))
    bmc.asked = 0
    with pytest.raises(IpmiError, match="the event log is being read: 4 of 10 entries"):
        logs.log(bmc, soon(-1))
    bmc.asked, bmc.answers_left = 0, 1000

    assert list(logs.log(bmc, soon(20)).ids) == list(range(1, 11))
    assert bmc.asked == 7


def test_a_full_log_that_overwrites_its_oldest_entries() -> None:
    logs, bmc = LogCache(), FakeLog()
    bmc.log(*range(1, 11))
    assert list(logs.log(bmc, soon(20)).ids) == list(range(1, 11))
    for number in (1, 2, 3):
        del bmc.entries[number]
    bmc.log(11, 12, 13)
    bmc.asked = 0

    assert list(logs.log(bmc, soon(20)).ids) == list(range(4, 14))
    assert bmc.asked == 5  # the last that is known, three new ones, and the oldest


def test_a_log_whose_last_known_entry_is_gone_is_read_anew() -> None:
    logs, bmc = LogCache(), FakeLog()
    bmc.log(1, 2, 3)
    logs.log(bmc, soon(20))
    bmc.entries.clear()
    bmc.log(11, 12, 13, 14)

    assert list(logs.log(bmc, soon(20)).ids) == [11, 12, 13, 14]


def test_another_log_with_the_same_ids_is_noticed() -> None:
    logs, bmc = LogCache(), FakeLog()
    bmc.log(1, 2)
    generation = logs.log(bmc, soon(20)).generation
    bmc.log(3)
    bmc.entries[2] = bmc.entries[2][:-1] + b"\x01"
    log = logs.log(bmc, soon(20))

    assert log.generation != generation
    assert bytes(log.entries) == b"".join(bmc.entries.values())


def test_a_log_that_was_cleared_and_looks_alike_at_its_end_is_read_anew() -> None:
    logs, bmc = LogCache(), FakeLog()
    bmc.log(1, 2, 3)
    logs.log(bmc, soon(20))
    bmc.erased += 1
    bmc.entries[1] = bmc.entries[1][:-1] + b"\x01"
    bmc.log(4)

    assert bytes(logs.log(bmc, soon(20)).entries) == b"".join(bmc.entries.values())


def test_a_log_that_looks_as_it_did_before_a_reading_failed_is_read() -> None:
    logs, bmc = LogCache(), FakeLog()
    bmc.log(1, 2)
    logs.log(bmc, soon(20))
    as_before = bmc.added
    bmc.log(3)
    bmc.asked, bmc.answers_left = 0, 1
    with pytest.raises(NoAnswerError):
        logs.log(bmc, soon(20))
    # It was cleared and has as many entries again, and tells no times of that.
    del bmc.entries[3]
    bmc.entries[2] = bmc.entries[2][:-1] + b"\x01"
    bmc.added, bmc.answers_left = as_before, 1000

    assert bytes(logs.log(bmc, soon(20)).entries) == b"".join(bmc.entries.values())


def test_the_log_of_another_bmc_at_the_address_is_read_though_it_looks_alike() -> None:
    logs, bmc, other = LogCache(), FakeLog(), FakeLog()
    bmc.log(1, 2)
    other.log(1, 2)
    other.guid = b"another"
    other.entries[1] = other.entries[1][:-1] + b"\x01"
    logs.log(bmc, soon(20))

    assert bytes(logs.log(other, soon(20)).entries) == b"".join(other.entries.values())


def test_each_log_has_a_generation_of_its_own() -> None:
    # Whoever counts entries has no other sign that a log is another BMC's.
    logs, bmc, other = LogCache(), FakeLog(), FakeLog()
    other.guid = b"another"
    bmc.log(1)
    other.log(1)

    assert logs.log(bmc, soon(20)).generation != logs.log(other, soon(20)).generation


@pytest.mark.parametrize("miscount", [-3, 2])
def test_a_bmc_that_miscounts_its_entries_is_not_read_anew_each_time(miscount: int) -> None:
    logs, bmc = LogCache(), FakeLog(miscount=miscount)
    bmc.log(*range(1, 9))
    logs.log(bmc, soon(20))
    bmc.log(9)
    bmc.asked = 0

    assert list(logs.log(bmc, soon(20)).ids) == list(range(1, 10))
    assert bmc.asked <= 3


def test_entries_in_a_circle_are_an_error() -> None:
    bmc = FakeLog(following={3: 1})
    bmc.log(1, 2, 3)

    with pytest.raises(IpmiError, match="in a circle"):
        LogCache().log(bmc, soon(20))


def test_an_entry_that_is_cut_short_is_an_error() -> None:
    bmc = FakeLog(cut=17)
    bmc.log(1)

    with pytest.raises(IpmiError, match="17 bytes"):
        LogCache().log(bmc, soon(20))


def test_the_logs_that_are_kept_are_bounded() -> None:
    logs = LogCache(max_bmcs=1)
    one, other = FakeLog(), FakeLog()
    other.address = Address(ip_address("127.0.0.2"))
    for bmc in (one, other):
        bmc.log(1, 2)
        logs.log(bmc, soon(20))
    one.asked = other.asked = 0
    logs.log(other, soon(20))
    logs.log(one, soon(20))

    assert (one.asked, other.asked) == (2, 0)


@pytest.mark.parametrize("regex", ["(", "[a", "(?P<x"])
def test_a_wrong_regular_expression_is_refused(regex: str) -> None:
    with pytest.raises(ValueError, match="not a regular expression"):
        SelEvent(name="x", regex=regex)
