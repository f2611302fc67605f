"""Reading SDR repositories of BMCs with limits and quirks: every record, or why not."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, field

import pytest

from sentinel_exporters.ipmi.errors import CompletionError, IpmiError
from sentinel_exporters.ipmi.framing import Request
from sentinel_exporters.ipmi.repository import RepositoryReader
from tests.exporters.bmc import Sensor

RECORDS = [
    Sensor("Inlet Temp", 1).sdr(1),
    Sensor("", 8, record="compact").sdr(2),
    Sensor("A name of 16 byt", 4).sdr(3),
    b"\x04\x00\x51\xc0\x00",  # an OEM's, of a head alone
    b"\x05\x00\x51\xc0\x40" + bytes(range(64)),
]
GET_SDR, RESERVE = 0x23, 0x22
LAST = 0xFFFF


@dataclass
class Repository:
    """A BMC's answers to the commands that read its repository (IPMI 2.0, 33.11 and 33.12)."""

    records: Sequence[bytes] = tuple(RECORDS)
    # How many bytes of a record it gives at once, and what it says when more are wanted.
    most: int = 0xFF
    too_much: int = 0xCA
    # At which requests for a part somebody else has just taken the reservation.
    taken_at: Container[int] = ()
    # What it says comes behind each record, where that is odd.
    following: dict[int, int] = field(default_factory=dict)
    # What it adds to each whole record.
    padding: bytes = b""
    # Answers in place of what it has.
    answer: bytes | None = None
    asked: int = 0
    _reservation: int = 0

    def hear(self, request: Request) -> bytes:
        """Return completion code and data."""
        data = request.message(0)[6:-1]
        if request.command == RESERVE:
            self._reservation += 1
            return b"\x00" + self._reservation.to_bytes(2, "little")
        assert request.command == GET_SDR
        self.asked += 1
        reservation, number = (int.from_bytes(data[at : at + 2], "little") for at in (0, 2))
        offset, size = data[4], data[5]
        is_part = offset > 0 or size != 0xFF
        if is_part and self.asked in self.taken_at:
            self._reservation += 1
        if is_part and reservation != self._reservation:
            return b"\xc5"
        if self.answer is not None:
            return self.answer
        record = self.records[number - 1 if number else 0]
        wanted = record[offset : offset + size] if is_part else record + self.padding
        if len(wanted) > self.most or (size != 0xFF and offset + size > len(record)):
            return bytes([self.too_much])
        behind = record[0] + 1 if record[0] < len(self.records) else LAST
        return b"\x00" + self.following.get(record[0], behind).to_bytes(2, "little") + wanted


def read(bmc: Repository, reader: RepositoryReader | None = None) -> list[bytes]:
    """Carry on the talk to its end."""
    talk = (reader or RepositoryReader()).read()
    request = next(talk)
    while True:
        try:
            request = talk.send(bmc.hear(request))
        except StopIteration as end:
            found: list[bytes] = end.value
            return found


def test_a_record_is_one_request_where_the_bmc_permits_that() -> None:
    bmc = Repository()

    assert read(bmc) == RECORDS
    assert bmc.asked == len(RECORDS)


def test_bytes_behind_a_record_are_not_taken_for_its_own() -> None:
    assert read(Repository(padding=b"\x00\xff")) == RECORDS


@pytest.mark.parametrize("too_much", [0xC7, 0xC8, 0xCA, 0xFF])
@pytest.mark.parametrize("most", [8, 15, 16, 22, 32, 63, 64, 69])
def test_a_bmc_that_gives_little_at_once_is_read_in_parts(most: int, too_much: int) -> None:
    assert read(Repository(most=most, too_much=too_much)) == RECORDS


@pytest.mark.parametrize("taken_at", [{4}, {7}, {9, 10, 14}])
def test_a_record_is_read_anew_when_somebody_else_reads(taken_at: set[int]) -> None:
    assert read(Repository(most=16, taken_at=taken_at)) == RECORDS


def test_others_who_always_read_are_given_way_to_in_the_end() -> None:
    with pytest.raises(IpmiError, match="all the time"):
        read(Repository(most=16, taken_at=range(10_000)))


def test_a_record_behind_which_it_comes_itself_is_an_error() -> None:
    with pytest.raises(IpmiError, match="does not go on"):
        read(Repository(following={3: 3}))


def test_records_in_a_circle_are_an_error() -> None:
    with pytest.raises(IpmiError, match="does not end"):
        read(Repository(following={3: 2}))


@pytest.mark.parametrize("answer", [b"\x00", b"\x00\x02\x00"])
def test_an_answer_without_a_record_is_an_error(answer: bytes) -> None:
    with pytest.raises(IpmiError, match="cut short"):
        read(Repository(answer=answer))


def test_a_refusal_is_told_as_such() -> None:
    with pytest.raises(CompletionError) as refused:
        read(Repository(answer=b"\xcb"))

    assert refused.value.code == 0xCB


def test_a_reading_that_was_broken_off_goes_on_behind_the_last_record() -> None:
    bmc, reader = Repository(), RepositoryReader()
    talk = reader.read()
    request = next(talk)
    for _ in range(3):
        request = talk.send(bmc.hear(request))
    talk.close()

    assert read(bmc, reader) == RECORDS
    assert bmc.asked == len(RECORDS)
