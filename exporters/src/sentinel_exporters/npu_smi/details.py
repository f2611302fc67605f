"""Turn the lists of `npu-smi info -t …` into details of chips. Pure: runs nothing.

Each function takes one output, of a whole card or of one chip, and returns the details by the
chip's number on its card; the number None is that of the only chip. They raise NotSupported
when the device cannot tell it, and Damaged for what is not known: a list that has none of the
names that it should have.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..npu.reading import Board, Details, Ecc
from .errors import NotSupported, explain, is_refusal
from .fields import Section, parse_card, parse_chip
from .processes import parse_process_memory
from .values import NO_READING, Damaged

ByChip = Mapping[int | None, Details]

_ENGINES = {
    "aicpu": "aicpu usage rate",
    "ctrlcpu": "ctrlcpu usage rate",
    "vector": "aivector usage rate",
    "cube": "aicube usage rate",
    "overall": "npu utilization",
    "vdec": "dvpp vdec usage rate",
    "vpc": "dvpp vpc usage rate",
    "venc": "dvpp venc usage rate",
    "jpege": "dvpp jpege usage rate",
    "jpegd": "dvpp jpegd usage rate",
}
_POWER = ("npu real-time power", "power dissipation")
_MEGAHERTZ = 1e6
_MEGABYTE = 1e6
_NETWORK = re.compile(r"net health status\s*:[ \t]*(\S[^\r\n]*?)\s*(?:[\r\n]|$)")
_BANDWIDTH = re.compile(
    r"Bandwidth (TX|RX)\s*:\s*(\d{1,9}\.\d{1,6}) MB/sec\s*(?:[\r\n]|$)", re.ASCII
)


def read_usages(text: str) -> ByChip:
    """Decode `-t usages`."""
    return {
        section.chip_id: _usages(section) for section in _chips(parse_card(text), "usage rate")
    }


def _usages(section: Section) -> Details:
    engines = {engine: section.percent(name) for engine, name in _ENGINES.items()}
    if engines["vector"] is None:  # a 310P has another name for it
        engines["vector"] = section.percent("vectorcore usage rate")
    bandwidth = section.percent("hbm bandwidth usage rate")
    # A 910B has no DDR and shows zeros for it.
    if bandwidth is None and section.word("ddr capacity") != "0":
        bandwidth = section.percent("ddr bandwidth usage rate")
    if bandwidth is None:
        bandwidth = section.percent("memory bandwidth usage rate")
    return Details(
        engines={name: percent for name, percent in engines.items() if percent is not None},
        # The driver marks the utilisation of a chip that is split as having no meaning, and
        # then it is not in this list, while the table of all chips shows 0.
        has_utilization=section.word("aicore usage rate") is not None,
        hbm_percent=section.percent("hbm usage rate"),
        bandwidth_percent=bandwidth,
    )


def read_common(text: str) -> ByChip:
    """Decode `-t common`, and `-t power`, whose one value is in it too."""
    sections = parse_card(text)
    details = {
        section.chip_id: _common(section) for section in _chips(sections, "aicore", *_POWER)
    }
    # A 310P tells the power of the card, as that of its controller.
    powers = [_power(section) for section in sections if section.is_controller]
    if details and powers and all(one.power_watts is None for one in details.values()):
        first = min(details, key=lambda chip_id: chip_id or 0)
        details[first] = replace(details[first], power_watts=powers[0])
    return details


def _common(section: Section) -> Details:
    megahertz = section.number("aicore curfreq", "MHz")
    return Details(
        aicore_hertz=None if megahertz is None else megahertz * _MEGAHERTZ,
        aicores=section.count("aicore count"),
        power_watts=_power(section),
    )


def _power(section: Section) -> float | None:
    told = [section.number(name, "W") for name in _POWER]
    return next((power for power in told if power is not None), None)


def read_memory(text: str) -> ByChip:
    """Decode `-t memory`."""
    return {
        section.chip_id: Details(memory_celsius=section.celsius("hbm temperature"))
        for section in _chips(parse_card(text), "capacity")
    }


def read_voltage(text: str) -> ByChip:
    """Decode `-t volt`."""
    return {
        section.chip_id: Details(voltage_volts=section.number("voltage", "V"))
        for section in _chips(parse_card(text), "voltage")
    }


def read_ecc(text: str) -> ByChip:
    """Decode `-t ecc`."""
    return {
        section.chip_id: Details(
            hbm_ecc=_ecc(section, "hbm {} bit"),
            # A 310B has one kind of memory, and its lines have no name for it.
            ddr_ecc=_ecc(section, "ddr {} bit") or _ecc(section, "{}-bit"),
        )
        for section in _chips(parse_card(text), "error count")
    }


def _ecc(section: Section, errors: str) -> Ecc | None:
    def pair(what: str) -> tuple[int, int] | None:
        single = section.count(f"{errors.format('single')} {what}")
        double = section.count(f"{errors.format('double')} {what}")
        return None if single is None or double is None else (single, double)

    ecc = Ecc(
        recent=pair("error count"),
        lifetime=pair("aggregate total err cnt"),
        pages=pair("isolated pages count"),
    )
    return None if ecc == Ecc() else ecc


def read_health(text: str) -> ByChip:
    """Decode `-t health` of one chip: the codes of the faults that there are now."""
    section = parse_chip(text)
    codes = section.word("error code")
    if codes is None:
        raise Damaged(f"it has no error code: {sorted(section.values)}")
    return {None: Details(error_codes=tuple(_codes(codes)))}


def _codes(words: str) -> list[str]:
    if words in NO_READING:
        return []
    codes = dict.fromkeys(word.upper().removeprefix("0X") for word in words.split())
    for code in codes:
        if not set(code) <= set("0123456789ABCDEF") or len(code) > 8:
            raise Damaged(f"{code!r} is not an error code")
    return list(codes)


def read_process_memory(text: str) -> ByChip:
    """Decode `-t proc-mem`: the processes, for tools whose table of all chips has none."""
    return {
        chip_id: Details(processes=tuple(found))
        for chip_id, found in parse_process_memory(text).items()
    }


def read_network(text: str) -> ByChip:
    """Decode `hccn_tool -i … -net_health -g` of one chip: the state in the tool's word."""
    found = _NETWORK.search(text)
    if not found:
        raise _refuse(text)
    return {None: Details(network=found[1])}


def read_bandwidth(text: str) -> ByChip:
    """Decode `hccn_tool -i … -bandwidth -g` of one chip."""
    told = {direction: float(rate) * _MEGABYTE for direction, rate in _BANDWIDTH.findall(text)}
    if len(told) != 2:
        raise _refuse(text)
    details = Details(
        network_transmitted_bytes_per_s=told["TX"], network_received_bytes_per_s=told["RX"]
    )
    return {None: details}


def _refuse(text: str) -> Exception:
    return NotSupported(explain(text)) if is_refusal(text) else Damaged(explain(text))


def read_board(text: str) -> ByChip:
    """Decode `-t board` of one chip."""
    section = parse_chip(text)
    name, version = section.word("chip name"), section.word("chip version")
    die = section.word("vdie id") or section.word("die id") or section.word("ddie id")
    if name is None or version is None or die is None:
        raise Damaged(f"it does not say what the chip is: {sorted(section.values)}")
    board = Board(
        chip_type=_told(section.word("chip type")),
        chip_name=_told(name),
        chip_version=_told(version),
        vdie_id="-".join(_told(die).split()),
    )
    return {None: Details(board=board)}


def _told(word: str | None) -> str:
    return "" if word is None or word in NO_READING else word


def _chips(sections: Sequence[Section], *names: str) -> list[Section]:
    """Return the sections of chips, each of which has one of the names or a part of it."""
    chips = [section for section in sections if not section.is_controller]
    for section in chips:
        if not any(name in known for name in names for known in section.values):
            raise Damaged(f"nothing in it is known: {sorted(section.values)}")
    return chips
