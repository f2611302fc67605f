"""The words for entries of the event log, beside FreeIPMI's ipmi-sel on the same BMC."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import product
from pathlib import Path

import pytest

from sentinel_exporters.ipmi.event_log import LogCache
from sentinel_exporters.ipmi.events import ENTRY_BYTES, Event, parse_entry
from sentinel_exporters.ipmi.sdr import read_records
from sentinel_exporters.ipmi.session import Session
from sentinel_exporters.ipmi.states import State
from tests.exporters.bmc import Bmc, Sensor
from tests.exporters.bmc_sessions import LOGIN, at, soon
from tests.exporters.ipmi_peers import ipmi_sel
from tests.exporters.sel_entries import (
    SENSOR_SPECIFIC,
    THRESHOLD,
    entry,
    every_offset,
    generic,
    specific,
)

PERCENT, TWOS_COMPLEMENT, NO_NUMBER = 1, 0x80, 0xC0
STATES = {State.NOMINAL: "Nominal", State.WARNING: "Warning", State.CRITICAL: "Critical"}

# By sensor type and offset: data bytes for which FreeIPMI has words, and we give the byte.
UNWORDED = {
    (0x10, 1), (0x10, 6), (0x12, 3), (0x12, 5), (0x19, 0), (0x28, 5),
    *product((0x2A, 0x2B, 0x2C), range(15)),
}  # fmt: skip


def read_both(
    folder: Path, entries: Sequence[tuple[int, bytes]], *sensors: Sensor
) -> list[tuple[tuple[str, str], tuple[str, str]]]:
    """Return state and text of each entry: ours, and FreeIPMI's."""
    # Without any sensor FreeIPMI stops.
    bmc = Bmc(folder, sensors or (Sensor("any", 1),), events=entries).start()
    try:
        theirs = {one.id: (one.state, one.event) for one in ipmi_sel(bmc)}
        ours = read_ours(bmc)
    finally:
        bmc.stop()
    assert len(ours) == len(entries) + 3  # those that the simulator starts with
    # It leaves out records of reserved types, as we do.
    known = {number: event for number, event in ours.items() if event is not None}
    assert known.keys() == theirs.keys()
    return [
        (
            (STATES[event.state] if event.state is not None else "N/A", event.text),
            theirs[number],
        )
        for number, event in sorted(known.items())
    ]


def read_ours(bmc: Bmc) -> dict[int, Event | None]:
    session = Session(at(bmc), LOGIN, soon(30))
    try:
        records = {record.number: record for record in read_records(session)}
        log = LogCache().log(session, soon(30))
    finally:
        session.close()
    entries = [
        bytes(log.entries[at : at + ENTRY_BYTES])
        for at in range(0, len(log.entries), ENTRY_BYTES)
    ]
    return {
        int.from_bytes(data[:2], "little"): parse_entry(
            data, lambda owner, number: records.get(number) if owner == 0x20 else None
        )
        for data in entries
    }


@pytest.mark.parametrize("events", [specific, generic, every_offset])
def test_every_event_has_freeipmis_words_and_verdict(
    tmp_path: Path, events: Callable[[], Iterable[tuple[int, bytes]]]
) -> None:
    pairs = read_both(tmp_path, list(events()))

    assert len(pairs) > 1000
    assert [ours for ours, _ in pairs] == [theirs for _, theirs in pairs]


def test_readings_are_in_the_sensors_unit(tmp_path: Path) -> None:
    sensors = [
        Sensor("inlet", 1, unit=1),
        Sensor("below zero", 1, unit=1, unit_flags=TWOS_COMPLEMENT),
        Sensor("12V", 2, unit=4, m=6, r_exp=-2),
        Sensor("duty", 4, unit_flags=PERCENT),
        Sensor("percent of V", 2, unit=4, unit_flags=PERCENT),
        *(Sensor(f"rate {rate}", 1, unit=1, unit_flags=rate << 3) for rate in range(1, 8)),
        *(
            Sensor(f"{use}", 11, unit=6, unit_flags=use << 1, unit_modifier=24)
            for use in range(4)
        ),
        Sensor("both", 11, unit=6, unit_flags=0x1A, unit_modifier=24),
        Sensor("no modifier", 11, unit=6, unit_flags=0x04),
        Sensor("no number", 1, unit=1, unit_flags=NO_NUMBER),
        Sensor("non-linear", 1, unit=1, linearization=0x70),
        Sensor("compact", 1, unit=1, record="compact"),
        Sensor("event-only", 1, unit=1, record="event-only"),
        Sensor("discrete", 8, SENSOR_SPECIFIC, unit=1),
    ]
    numbers = range(1, len(sensors) + 1)
    entries = [entry(1, THRESHOLD, 0x57, 0xFB, 0x5F, number=number) for number in numbers]

    pairs = read_both(tmp_path, entries, *sensors)

    assert [ours for ours, _ in pairs] == [theirs for _, theirs in pairs]
    assert pairs[3 + 2][0][1].endswith("Sensor Reading = 15.06 V ; Threshold = 5.70 V")


def test_every_unit_has_freeipmis_name(tmp_path: Path) -> None:
    sensors = [Sensor(f"unit {unit}", 11, unit=unit) for unit in range(95)]
    entries = [entry(11, THRESHOLD, 0x57, 5, 6, number=number) for number in range(1, 96)]

    pairs = read_both(tmp_path, entries, *sensors)

    assert [ours for ours, _ in pairs] == [theirs for _, theirs in pairs]


def test_data_bytes_have_freeipmis_words_or_are_shown_as_they_are(tmp_path: Path) -> None:
    flags = (0x40, 0x80, 0xC0, 0x10, 0x20, 0x30, 0x50, 0x60, 0xA0, 0xF0)
    entries = [
        entry(sensor_type, event_type, flag | offset, *data)
        for sensor_type, event_type, offset in (
            (0x01, THRESHOLD, 9), (0x04, 0x0B, 1), (0x08, 0x70, 1), (0x16, SENSOR_SPECIFIC, 9)
        )
        for flag in flags
        for data in ((0x21, 0x43), (0xFF, 0x43), (0x21, 0xFF), (0x0F, 0xF0), (0xF1, 0x00))
    ]  # fmt: skip
    offsets = {
        0x05: (4,), 0x08: (6,), 0x0C: (0, 8), 0x0F: (0, 1, 2), 0x10: (0, 1, 5, 6), 0x1D: (0, 7),
        0x21: (0, 9), 0x23: (0, 4), 0x28: (0, 4), 0x12: (3, 5), 0x19: (0,), 0x2A: (0, 1),
        0x2B: (0,), 0x2C: (0,),
    }  # fmt: skip
    entries += [
        entry(sensor_type, SENSOR_SPECIFIC, 0xF0 | offset, data, data)
        for sensor_type in offsets
        for offset in offsets[sensor_type]
        for data in (
            *range(0x0E if sensor_type != 0x0F else 0x1C),
            0x31,
            0x7F,
            0x84,
            0xF1,
            0xFE,
        )
    ]
    pairs = read_both(tmp_path, entries)[3:]

    differing = set()
    for (_, body), (ours, theirs) in zip(entries, pairs, strict=True):
        if ours != theirs:
            differing.add((body[7], body[10] & 15))
            assert "; Event Data" in ours[1]
    assert differing <= UNWORDED


def test_oem_records_are_shown_as_bytes_and_reserved_ones_left_out(tmp_path: Path) -> None:
    body = bytes(range(1, 14))

    pairs = read_both(
        tmp_path, [(kind, body) for kind in (0, 1, 3, 0xBF, 0xC0, 0xDF, 0xE0, 0xFF)]
    )

    assert len(pairs) == 3 + 4
    assert [ours for ours, _ in pairs] == [theirs for _, theirs in pairs]


@pytest.mark.parametrize(
    ("seconds", "time_"),
    [(0, None), (0x20000000, None), (1_700_000_000, 1_700_000_000), (0xFFFFFFFF, None)],
)
def test_only_a_clock_that_was_set_gives_a_time(seconds: int, time_: int | None) -> None:
    stamp = seconds.to_bytes(4, "little")
    system = parse_entry(b"\x01\x00\x02" + stamp + bytes(9), lambda *_: None)
    oem = parse_entry(b"\x01\x00\xc0" + stamp + bytes(9), lambda *_: None)

    assert system is not None
    assert oem is not None
    assert system.time == oem.time == time_
