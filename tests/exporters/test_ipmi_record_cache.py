"""When the SDR records of a BMC are read anew, and which ones BMCs share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from sentinel_exporters.ipmi.commands import Device
from sentinel_exporters.ipmi.errors import NoAnswerError, WouldWaitError
from sentinel_exporters.ipmi.loop import Talk
from sentinel_exporters.ipmi.sdr import RecordCache, read_records
from sentinel_exporters.ipmi.session import Session
from sentinel_exporters.ipmi.target import Address
from tests.exporters.bmc import Sensor

CELSIUS, NON_LINEAR = 1, 0x70


class FakeRepository(Session):
    """A BMC that gives its records whole, and no more answers than are left."""

    def __init__(self, *sensors: Sensor) -> None:
        self.address = Address(ip_address("127.0.0.1"))
        self.guid = bytes(16)
        self.facts = {"device": Device("1.00", 10876, 1)}
        self.info = bytes(14)
        self.answers_left = 100
        self.asked = 0
        self.may_wait = True
        self._records = [sensor.sdr(number) for number, sensor in enumerate(sensors)]

    def request(self, netfn: int, command: int, data: bytes = b"", lun: int = 0) -> bytes:
        assert (netfn, command, data, lun) == (0x0A, 0x20, b"", 0)  # Get SDR Repository Info
        return self.info

    @contextlib.contextmanager
    def slow_turn(self) -> Iterator[None]:
        if not self.may_wait:
            raise WouldWaitError
        yield

    def converse(self, talk: Talk[object]) -> object:  # type: ignore[override]
        answer = None
        while True:
            try:
                request = talk.send(answer)  # type: ignore[arg-type]
            except StopIteration as end:
                return end.value
            if not self.answers_left:
                raise NoAnswerError("no answer")
            self.answers_left -= 1
            self.asked += 1
            number = request.message(0)[8]
            is_last = number == len(self._records) - 1
            following = 0xFFFF if is_last else number + 1
            answer = b"\0" + following.to_bytes(2, "little") + self._records[number]


def test_a_reading_that_was_broken_off_goes_on_where_it_was() -> None:
    cache = RecordCache()
    bmc = FakeRepository(*[Sensor(f"temp {n}", 1, unit=CELSIUS) for n in range(5)])
    bmc.answers_left = 3
    with pytest.raises(NoAnswerError):
        cache.records(bmc)
    # Nor is it lost to who may not wait for the rest.
    bmc.may_wait = False
    with pytest.raises(WouldWaitError):
        cache.records(bmc)
    bmc.may_wait, bmc.answers_left = True, 2

    assert [record.name for record in cache.records(bmc)] == [f"temp {n}" for n in range(5)]
    assert bmc.asked == 5


@pytest.mark.parametrize("what", ["guid", "device"])
def test_another_bmc_or_firmware_at_the_address_has_records_of_its_own(what: str) -> None:
    # Its repository says that it is as old.
    cache = RecordCache()
    before = FakeRepository(Sensor("old", 1, unit=CELSIUS))
    after = FakeRepository(Sensor("new", 1, unit=CELSIUS))
    if what == "guid":
        after.guid = bytes(range(16))
    else:
        after.facts = {"device": Device("1.01", 10876, 1)}

    assert [record.name for record in cache.records(before)] == ["old"]
    assert [record.name for record in cache.records(after)] == ["new"]


def test_a_reading_that_was_broken_off_begins_anew_in_another_repository() -> None:
    cache = RecordCache()
    bmc = FakeRepository(*[Sensor(f"old {n}", 1, unit=CELSIUS) for n in range(3)])
    bmc.answers_left = 2
    with pytest.raises(NoAnswerError):
        cache.records(bmc)
    new = FakeRepository(*[Sensor(f"new {n}", 1, unit=CELSIUS) for n in range(3)])
    new.info = b"\x01" * 14

    assert [record.name for record in cache.records(new)] == ["new 0", "new 1", "new 2"]


def test_bmcs_share_a_record_unless_its_formula_differs_from_reading_to_reading() -> None:
    sensors = (
        Sensor("a", 1, unit=CELSIUS),
        Sensor("b", 1, unit=CELSIUS, linearization=NON_LINEAR),
    )
    one, other = (read_records(FakeRepository(*sensors)) for _ in range(2))

    assert one[0] is other[0]
    assert one[1] is not other[1]
    assert one[1].name == other[1].name == "b"
