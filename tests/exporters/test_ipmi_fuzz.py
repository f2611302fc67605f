"""Whatever a BMC answers: samples, or an error of our own that says why. Never another."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentinel_exporters.ipmi.commands import (
    parse_chassis,
    parse_device,
    parse_event_log,
    parse_lan_mode,
    parse_power_watts,
    parse_system_info,
)
from sentinel_exporters.ipmi.errors import CompletionError, IpmiError
from sentinel_exporters.ipmi.event_log import LogCache
from sentinel_exporters.ipmi.events import parse_entry
from sentinel_exporters.ipmi.loop import Talk
from sentinel_exporters.ipmi.readings import decode_reading
from sentinel_exporters.ipmi.sdr import SensorRecord, read_records
from sentinel_exporters.ipmi.session import Session
from sentinel_exporters.ipmi.target import Address
from sentinel_exporters.ipmi.watchdog import parse_watchdog
from sentinel_exporters.ipmi_samples import Answers, make_scrape
from tests.exporters.bmc import Sensor

MAKERS = (0, 2, 343, 674, 2011, 10876, 20301, 0xFFFFF)

answers = st.binary(min_size=1, max_size=40)
# Get Sensor Reading: anything, or a reading that is there, with its states.
readings = st.binary(max_size=8) | st.binary(min_size=1, max_size=5).map(
    lambda data: data[:1] + b"\x40" + data[1:]
)


def device_id(maker: int, product: int) -> bytes:
    return (
        b"\x20\x01\x02\x45\x02\x9f"
        + maker.to_bytes(3, "little")
        + product.to_bytes(2, "little")
    )


class FakeSession(Session):
    """A BMC that gives these answers, completion codes first, one after the other."""

    def __init__(self, given_: Sequence[bytes], maker: int = 0, product: int = 0) -> None:
        self.address = Address(ip_address("127.0.0.1"))
        self.guid = bytes(16)
        self.facts = {}
        self._given = iter(given_)
        self._device = device_id(maker, product)

    def request(self, netfn: int, command: int, data: bytes = b"", lun: int = 0) -> bytes:
        if (netfn, command) == (0x06, 0x01):
            return self._device
        assert len(data) < 32
        assert 0 <= lun < 4
        answer = next(self._given, b"\xff")
        if answer[0]:
            raise CompletionError(netfn, command, answer[0], "refused")
        return answer[1:]

    def converse(self, talk: Talk[object]) -> object:  # type: ignore[override]
        try:
            next(talk)
            for answer in self._given:
                talk.send(answer)
        except StopIteration as end:
            return end.value
        raise IpmiError("no more answers")


def repository(records: Sequence[bytes]) -> Iterator[bytes]:
    """Answer Get SDR with whole records, one after the other."""
    for number, record in enumerate(records, 1):
        following = 0xFFFF if number == len(records) else number
        yield b"\x00" + following.to_bytes(2, "little") + record


@st.composite
def sdr_records(draw: st.DrawFn) -> bytes:
    """A record of a sensor with some of its bytes changed, or cut, or anything at all."""
    if draw(st.integers(0, 9)) == 5:
        anything = draw(st.binary(min_size=5, max_size=80))
        return anything[:4] + bytes([len(anything) - 5]) + anything[5:]
    sensor = Sensor(
        draw(st.text(max_size=16)),
        draw(st.integers(0, 255)),
        draw(st.sampled_from((1, 1, 1, 1, 1, 2, 8, 0x6F, 0xFF))),
        record=draw(st.sampled_from(("full", "full", "full", "full", "compact", "event-only"))),
        encoded_name=draw(st.binary(max_size=31)),
        name_kind=draw(st.integers(0, 3)),
        unit=draw(st.integers(0, 255)),
        unit_flags=draw(st.integers(0, 255)),
        linearization=draw(st.sampled_from(range(12)) | st.integers(0, 255)),
        m=draw(st.integers(-512, 511)),
        b=draw(st.integers(-512, 511)),
        b_exp=draw(st.integers(-8, 7)),
        r_exp=draw(st.integers(-8, 7)),
    )
    record = bytearray(sensor.sdr(draw(st.integers(0, 255))))
    for _ in range(draw(st.sampled_from((0, 0, 0, 1, 2)))):
        record[draw(st.integers(4, len(record) - 1))] = draw(st.integers(0, 255))
    if draw(st.integers(0, 9)) == 5:
        del record[draw(st.integers(5, len(record))) :]
    # What the BMC says of its length is what was read.
    record[4] = len(record) - 5
    return bytes(record)


def records_of(given_: Sequence[bytes], maker: int, product: int) -> Sequence[SensorRecord]:
    return read_records(FakeSession(list(repository(given_)), maker, product))


@given(
    st.lists(sdr_records(), min_size=1, max_size=6),
    st.sampled_from(MAKERS),
    st.integers(0, 0xFFFF),
    st.lists(readings, min_size=1, max_size=4),
    st.lists(answers, max_size=4),
)
@settings(max_examples=150, deadline=None)
def test_any_sdr_record_and_any_reading_of_it(
    given_: Sequence[bytes],
    maker: int,
    product: int,
    data: Sequence[bytes],
    factors: Sequence[bytes],
) -> None:
    records = records_of(given_, maker, product)
    found = [
        reading
        for record in records
        for one in data
        if (reading := decode_reading(record, one, FakeSession(factors))) is not None
    ]
    samples = make_scrape(Answers(readings=found, is_up={"ipmi": True})).samples

    assert all(math.isfinite(sample.value) for sample in samples)
    assert all("\0" not in label for sample in samples for label in sample.labels)


@given(st.lists(answers, max_size=12), st.sampled_from(MAKERS))
@settings(max_examples=150, deadline=None)
def test_any_answers_to_the_reading_of_the_repository(
    given_: Sequence[bytes], maker: int
) -> None:
    with contextlib.suppress(IpmiError):
        read_records(FakeSession(given_, maker))


@given(st.binary(max_size=20), st.lists(sdr_records(), min_size=1, max_size=3))
@settings(max_examples=150, deadline=None)
def test_any_entry_of_the_event_log_has_words(data: bytes, given_: Sequence[bytes]) -> None:
    (record, *_) = (*records_of(given_, 0, 0), None)
    for entry in (data, data[:2] + b"\x02" + data[3:]):
        event = parse_entry(entry, lambda *_: record)

        assert event is None or (event.text and event.text.isprintable())


@given(st.lists(answers, max_size=12))
@settings(max_examples=150, deadline=None)
def test_any_answers_to_the_reading_of_the_event_log(given_: Sequence[bytes]) -> None:
    logs, session = LogCache(), FakeSession(given_)
    for _ in range(3):
        with contextlib.suppress(IpmiError):
            log = logs.log(session, time.monotonic() + 5)
            assert len(log.entries) == 16 * len(log.ids)


@pytest.mark.parametrize(
    "parse",
    [
        parse_chassis, parse_device, parse_event_log, parse_lan_mode, parse_power_watts,
        parse_system_info, parse_watchdog,
    ],
)  # fmt: skip
@given(st.binary(max_size=40))
@settings(max_examples=60, deadline=None)
def test_any_single_answer(parse: Callable[[bytes], object], data: bytes) -> None:
    with contextlib.suppress(IpmiError):
        parse(data)
