"""The sensors that a BMC's SDR repository describes, and a cache of them. Reads no sensor.

pyghmi decodes the records. Its own reader throws the record id away, shares decoded records by
a BMC's model and not by their content, drops records that share a sensor number, and fails as a
whole on one record that it cannot decode; repository.py does none of these.
"""

from __future__ import annotations

import logging
import math
import struct
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

from pyghmi.ipmi import sdr as pyghmi_sdr
from pyghmi.ipmi.private import constants

from .commands import read_device
from .errors import BusyError, CompletionError, NoAnswerError, WouldWaitError
from .event_words import THRESHOLD
from .framing import Request, make_request
from .repository import RepositoryReader
from .session import Session
from .target import Address
from .units import Unit

log = logging.getLogger(__name__)

SENSOR, GET_READING = 0x04, 0x2D  # network function Sensor/Event, and the command

_FULL, _COMPACT = 0x01, 0x02  # record types, 43.1 and 43.2
_BMC_OWNER = 0x20  # sensors of other controllers sit behind a bridge
_NO_NUMBER = 3  # analog data format, 43.1, byte 21
_CUBE_ROOT = _LAST_FIXED_FORMULA = 11  # linearization, 43.1, byte 24


@dataclass(frozen=True, eq=False)
class SensorRecord:
    """One record. `id` is its record id; `sensor_type` and `event_type` as in chapter 42.

    Records of the same content are one object, and equal to nothing else: BMCs of one model
    share them, and what is known of their readings.
    """

    id: int
    name: str
    number: int
    lun: int
    sensor_type: int
    event_type: int
    # None: the record describes no number.
    unit: Unit | None
    # Any: pyghmi's entry, which holds the formula and has no types.
    _entry: Any = field(repr=False, compare=False)

    @property
    def has_number(self) -> bool:
        """Whether the reading is a number in `unit`."""
        return (
            self.unit is not None
            and self.event_type == THRESHOLD
            and self._entry.numeric_format != _NO_NUMBER
        )

    @cached_property
    def get_reading(self) -> Request:
        """The request Get Sensor Reading (35.14)."""
        return make_request(SENSOR, GET_READING, bytes([self.number]), self.lun)

    @cached_property
    def is_linear(self) -> bool:
        """Whether a raw reading always means the same value."""
        return (self._entry.linearization or 0) <= _LAST_FIXED_FORMULA

    def convert(self, raw: int, session: Session | None = None) -> float | None:
        """Return the raw reading in `unit`; None when it has no value.

        A non-linear sensor's formula differs from reading to reading: it is asked of `session`,
        and without one such a sensor has no value.
        """
        entry = self._entry
        if entry.numeric_format == 1:
            number = pyghmi_sdr.ones_complement(raw, 8)
        elif entry.numeric_format == 2:
            number = pyghmi_sdr.twos_complement(raw, 8)
        else:
            number = raw
        try:
            if self.is_linear:
                value = entry.decode_value(None, number)
            elif session is None:
                return None
            else:
                # Get Sensor Reading Factors (35.5) wants the reading as it came.
                factors = session.request(0x04, 0x23, bytes([self.number, raw]), self.lun)
                entry.decode_formula(factors[1:])
                value = float((number * entry.m + entry.b) * 10**entry.resultexponent)
        except CompletionError:
            return None
        except (ValueError, ArithmeticError, NotImplementedError, LookupError):
            return None  # a logarithm of nothing, a division by zero, no factors
        if isinstance(value, complex) and entry.linearization == _CUBE_ROOT:
            value = -abs(value)  # Python's is the first of the three roots, which is not real
        if not isinstance(value, float) or not math.isfinite(value):
            return None
        return float(f"{value:.9g}")  # 2.28, not 2.2800000000000002


def read_records(
    session: Session, reader: RepositoryReader | None = None
) -> tuple[SensorRecord, ...]:
    """Read the whole repository; returns the BMC's own sensors that can be read.

    `reader` may have begun before. Raises IpmiError.
    """
    device = read_device(session)
    records: dict[int, SensorRecord] = {}
    for data in session.converse((reader or RepositoryReader()).read()):
        try:
            record = _decode_known(data, device.manufacturer, device.product)
            if record is not None and not record.is_linear:
                # Its formula is written into it at each reading: it cannot be shared.
                record = _decode(data, device.manufacturer, device.product)
        except (LookupError, ValueError, NotImplementedError, struct.error) as error:
            log.debug("SDR record skipped record=%s reason=%r", data.hex(), error)
            continue
        if record is not None:
            records.setdefault(record.id, record)
    return tuple(records.values())


class RecordCache:
    """The records of many BMCs, each as long as its repository stays the same. Thread-safe."""

    def __init__(self, max_bmcs: int = 2048) -> None:
        self._max_bmcs = max_bmcs
        self._lock = threading.Lock()
        self._kept: OrderedDict[Address, tuple[object, tuple[SensorRecord, ...]]]
        self._kept = OrderedDict()
        # Readings that were broken off.
        self._begun: dict[Address, tuple[object, RepositoryReader]] = {}

    def records(self, session: Session) -> tuple[SensorRecord, ...]:
        """Return the BMC's records, read anew when anything says that they may have changed.

        That is the GUID (another BMC has the address), the device id (another firmware), and
        the repository's times of addition and erasure. Raises IpmiError.
        """
        # Get SDR Repository Info, IPMI 2.0, 33.9.
        state = (session.guid, read_device(session), session.request(0x0A, 0x20))
        with self._lock:
            kept = self._kept.get(session.address)
            if kept is not None and kept[0] == state:
                self._kept.move_to_end(session.address)
                return kept[1]
            began_at, reader = self._begun.pop(session.address, (None, RepositoryReader()))
        if began_at != state:
            reader = RepositoryReader()
        try:
            with session.slow_turn():
                records = read_records(session, reader)
        except (BusyError, NoAnswerError, WouldWaitError):
            with self._lock:
                self._begun[session.address] = state, reader
                while len(self._begun) > self._max_bmcs:
                    del self._begun[next(iter(self._begun))]
            raise
        with self._lock:
            self._kept[session.address] = (state, records)
            self._kept.move_to_end(session.address)
            while len(self._kept) > self._max_bmcs:
                self._kept.popitem(last=False)
        return records


class _Entry(pyghmi_sdr.SDREntry):  # type: ignore[misc]  # pyghmi has no types
    """pyghmi's entry with names as BMCs write them."""

    def tlv_decode(self, tlv: int, data: bytes) -> str:
        # Type/length byte, IPMI 2.0, 43.15. pyghmi takes whatever follows the name for a part
        # of it, Latin-1 for UTF-8, and loses the end of packed names.
        kind, data = tlv >> 6, bytes(data[: tlv & 0x1F])
        if kind == 0:
            text = data.decode("utf-8", "replace")
        elif kind == 2:
            bits = int.from_bytes(data, "little")
            text = "".join(
                chr((bits >> 6 * place & 0x3F) + 0x20) for place in range(len(data) * 8 // 6)
            )
        elif kind == 3:
            text = data.decode("latin-1")
        else:
            text = str(super().tlv_decode(tlv, data))
        return text.partition("\0")[0]


def _decode(data: bytes, manufacturer: int, product: int) -> SensorRecord | None:
    """Decode one record; None for what is no sensor of the BMC's own."""
    kind = data[3]
    if kind not in (_FULL, _COMPACT) or data[5] != _BMC_OWNER:
        return None
    # pyghmi fails on a unit that it does not know; the units are decoded below.
    plain = bytearray(data)
    plain[20:23] = data[20] & 0xC0, 0, 0
    entry = _Entry(plain, constants, False, manufacturer, product)
    return SensorRecord(
        id=data[0] | data[1] << 8,
        name=entry.sensor_name,
        number=entry.sensor_number,
        lun=entry.sensor_lun,
        sensor_type=entry.sensor_type_number,
        event_type=entry.reading_type,
        unit=Unit.parse(data[20:23]) if kind == _FULL else None,
        _entry=entry,
    )


# BMCs of one model have the same records, byte for byte.
_decode_known = lru_cache(maxsize=32768)(_decode)
