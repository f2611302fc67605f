"""The lists and tables of single cards, made up and damaged: told right, or refused.

Whatever comes in, the readers raise nothing but their own errors, and tell no value that is
not there.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentinel_exporters.npu.reading import Details
from sentinel_exporters.npu_smi import details, vnpu
from sentinel_exporters.npu_smi.details import ByChip
from sentinel_exporters.npu_smi.errors import NotSupported
from sentinel_exporters.npu_smi.values import Damaged

FIXTURES = Path(__file__).parent / "fixtures" / "npu"
READERS = {
    "usages": details.read_usages,
    "common": details.read_common,
    "memory": details.read_memory,
    "volt": details.read_voltage,
    "ecc": details.read_ecc,
    "health": details.read_health,
    "board": details.read_board,
    "proc-mem": details.read_process_memory,
    "net": details.read_network,
    "bandwidth": details.read_bandwidth,
    "vnpu": vnpu.read_vnpus,
    "template": vnpu.read_templates,
}
FILES = sorted(
    path.name for path in FIXTURES.glob("*.txt") if path.name.startswith(tuple(READERS))
)
few = settings(max_examples=40, deadline=None)

MEASURED = {
    "aicpu": "Aicpu Usage Rate(%)",
    "ctrlcpu": "Ctrlcpu Usage Rate(%)",
    "vector": "Aivector Usage Rate(%)",
    "cube": "Aicube Usage Rate(%)",
    "overall": "NPU Utilization(%)",
}
percents = st.integers(0, 100)
readings = st.dictionaries(
    st.sampled_from(sorted(MEASURED)), percents | st.just("NA"), min_size=1
)


def read(name: str, text: str) -> ByChip:
    kind = next(kind for kind in READERS if name.startswith(kind))
    return READERS[kind](text)


@few
@given(
    st.lists(readings, min_size=1, max_size=3),
    st.tuples(
        st.integers(1, 40), st.sampled_from(["", " ", "\t"]), st.sampled_from(["\n", "\r\n"])
    ),
    st.booleans(),
    st.booleans(),
)
def test_a_list_of_any_width_is_read_whole(
    chips: list[dict[str, int | str]],
    style: tuple[int, str, str],
    is_named_before: bool,
    has_head: bool,
) -> None:
    width, indent, end = style

    def line(name: str, value: object) -> str:
        return f"{indent}{name:<{width}} : {value}{end}"

    def rows(number: int, chip: dict[str, int | str]) -> Iterator[str]:
        values = [line("Aicore Usage Rate(%)", 0)]
        values += [line(MEASURED[engine], value) for engine, value in chip.items()]
        mark = [line("Chip ID", number)]
        yield from [*mark, *values, end] if is_named_before else [*values, *mark, end]

    text = line("NPU ID", 7) + line("Chip Count", len(chips)) + end if has_head else ""
    text += "".join(row for at, chip in enumerate(chips) for row in rows(at, chip))
    told = details.read_usages(text)
    assert {chip: dict(found.engines or {}) for chip, found in told.items()} == {
        at: {engine: value for engine, value in chip.items() if value != "NA"}
        for at, chip in enumerate(chips)
    }


def numbers(told: ByChip) -> set[float]:
    """All numbers that the details tell, in the tool's own units."""

    def of(found: Details) -> Iterator[float | None]:
        yield from (found.engines or {}).values()
        yield from (found.hbm_percent, found.bandwidth_percent, found.aicores)
        yield from (found.power_watts, found.memory_celsius, found.voltage_volts)
        yield from (found.free_aicores, found.aicore_hertz and found.aicore_hertz / 1e6)
        for ecc in (found.hbm_ecc, found.ddr_ecc):
            for pair in (ecc.recent, ecc.lifetime, ecc.pages) if ecc else ():
                yield from pair or ()
        for one in found.vnpus or ():
            yield one.vnpu_id
        for template in (found.templates or {}).values():
            yield from (template.aicores, template.memory_bytes / 2**30)
        for process in found.processes or ():
            yield from (process.pid, (process.memory_bytes or 0) / 2**20)

    return {float(value) for found in told.values() for value in of(found) if value is not None}


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=25, deadline=None)
@given(st.data())
def test_an_output_with_one_character_changed_tells_no_other_number(
    name: str, data: st.DataObject
) -> None:
    text = (FIXTURES / name).read_text()
    at = data.draw(st.integers(0, len(text) - 1))
    character = data.draw(st.sampled_from("|+-=/ :.NA\n\t\x00é9"))
    changed = text[:at] + character + text[at + 1 :]
    with contextlib.suppress(Damaged, NotSupported):
        printed = {float(word) for word in re.findall(r"-?\d+(?:\.\d+)?", changed)}
        printed |= {float(word) for word in re.findall(r"\d+(?:\.\d+)?", changed)}
        assert numbers(read(name, changed)) <= printed


WORDS = (
    "|", "+", "-", "=", " ", "\n", " : ", ":", "NPU ID", "Chip ID", "Chip Count", "Chip Name",
    "mcu", "0", "1", "NA", "Usage Rate(%)", "Aicore", "Vnpu ID", "Total number of vnpu: 1",
    "NPU resource static", "AICORE", "Name AICORE Memory", "Process id:", "Process name:",
    "Process memory(MB):", "No process in device", "Error Code", "net health status:", "  ",
)  # fmt: skip


@few
@given(
    st.text()
    | st.binary().map(lambda raw: raw.decode(errors="replace"))
    | st.lists(st.sampled_from(WORDS), max_size=60).map("".join)
)
def test_any_text_is_read_or_refused(text: str) -> None:
    for reader in READERS.values():
        with contextlib.suppress(Damaged, NotSupported):
            reader(text)
