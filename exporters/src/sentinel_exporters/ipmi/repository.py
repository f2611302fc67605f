"""Reading a BMC's SDR repository: the bytes of its records. Decodes none of them."""

from __future__ import annotations

from collections.abc import Generator

from .errors import IpmiError
from .framing import Request, make_request
from .loop import Talk
from .session import Session

_STORAGE = 0x0A
_GET_SDR, _RESERVE = 0x23, 0x22  # IPMI 2.0, 33.12 and 33.11

_LAST_RECORD = 0xFFFF  # what follows the last one
_HEADER = 5  # id, version, type, length of the rest (43)
# How much is asked for at once: FFh is the whole record, and each BMC has a limit of its own.
_WHOLE = 0xFF
_SMALLER = {_WHOLE: 64, 64: 32, 32: 16, 16: 8}
# What BMCs say when that is too much (table 5-2).
_TOO_MUCH = (0xC7, 0xC8, 0xCA, 0xFF)
_RESERVATION_LOST = 0xC5
_MAX_RESERVATIONS = 50
_MAX_RECORDS = 4096

_Part = Generator[Request, bytes, tuple[bytes, int]]


class _ReservationLost(Exception):
    """Somebody else has begun to read; a record that is read in parts must be read anew."""


class RepositoryReader:
    """One reading of a BMC's repository, and what was learned of the BMC on the way.

    A slow BMC needs longer for it than a scrape may take: a reading that was broken off goes on
    where it was, as long as the repository stays the same.
    """

    def __init__(self) -> None:
        self._records: list[bytes] = []
        self._next = 0  # the first one, whatever its id
        self._size = _WHOLE
        self._reservation = bytes(2)
        self._reservations = 0

    def read(self) -> Talk[list[bytes]]:
        """Return every record. Raises IpmiError for what makes no sense; CompletionError."""
        while self._next != _LAST_RECORD:
            if len(self._records) >= _MAX_RECORDS:
                raise IpmiError("the SDR repository does not end")
            record, following = yield from self._read_record(self._next)
            if following == self._next:
                raise IpmiError("the SDR repository does not go on")
            self._records.append(record)
            self._next = following
        return self._records

    def _read_record(self, number: int) -> _Part:
        """Return the record and the number of the one after it."""
        while True:
            try:
                return (yield from self._read_parts(number))
            except _ReservationLost:
                if self._reservations >= _MAX_RESERVATIONS:
                    raise IpmiError("others read the SDR repository all the time") from None
                answer = yield make_request(_STORAGE, _RESERVE)
                self._reservation = _data(answer, _RESERVE, 2)
                self._reservations += 1

    def _read_parts(self, number: int) -> _Part:
        record, following = b"", 0
        size = self._size
        while len(record) < _HEADER or len(record) < record[4] + _HEADER:
            if self._size != _WHOLE and not self._reservations:
                raise _ReservationLost  # reading in parts needs one
            is_known = len(record) >= _HEADER
            wanted = min(size, record[4] + _HEADER - len(record)) if is_known else size
            answer = yield self._ask(number, len(record), wanted)
            if answer[0] in _TOO_MUCH:
                if not record and size not in (_WHOLE, _HEADER):
                    size = _HEADER  # the record may be shorter: see how long it is
                    continue
                if self._size in _SMALLER:
                    self._size = size = _SMALLER[self._size]
                    continue
            data = _data(answer, _GET_SDR, 3)
            following = int.from_bytes(data[:2], "little")
            record += data[2:]
            size = self._size
        return record[: record[4] + _HEADER], following

    def _ask(self, number: int, offset: int, size: int) -> Request:
        where = number.to_bytes(2, "little") + bytes([offset, size])
        # Not the one Request: with another reservation it never comes again.
        return Request(_STORAGE, _GET_SDR, self._reservation + where, 0)


def _data(answer: bytes, command: int, least: int) -> bytes:
    if answer[0] == _RESERVATION_LOST and command == _GET_SDR:
        raise _ReservationLost
    if answer[0]:
        raise Session.refusal(_STORAGE, command, answer[0])
    if len(answer) <= least:
        raise IpmiError("the SDR repository's answers are cut short")
    return answer[1:]
