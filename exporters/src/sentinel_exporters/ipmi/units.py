"""The unit of a sensor's reading, as its SDR record gives it, and its short name. Pure."""

from __future__ import annotations

from dataclasses import dataclass

# IPMI 2.0, table 43-15, in the spelling of FreeIPMI 1.6.10.
_UNITS = (
    *("unspecified", "C", "F", "K", "V", "A", "W", "J", "C", "VA", "nits", "lm", "lux", "cd"),
    *("KPA", "PSI", "N", "CFM", "RPM", "Hz", "us", "ms", "s", "min", "hr", "day", "wk", "mil"),
    *("in", "ft", "cu in", "cu feet", "mm", "cm", "m", "cu cm", "cu m", "L", "fl oz", "rad"),
    *("sr", "rev", "c", "g", "oz", "lb", "ft lB", "oz in", "G", "Gi", "H", "mH", "F", "uF"),
    *("ohms", "S", "mol", "Bq", "PPM", "Reserved", "dB", "DbA", "DbC", "Gy", "Sv"),
    *("color temp deg K", "b", "Kb", "Mb", "Gb", "B", "KB", "MB", "GB", "word", "dword"),
    *("qword", "line", "hit", "miss", "retry", "reset", "overrun / overflow", "underrun"),
    *("collision", "pkts", "msgs", "chars", "err", "correctable err", "uncorrectable err"),
    *("fatal err", "g"),
)
# The record's byte 21, bits 5:3 (43.1).
_RATES = ("", " per uS", " per ms", " per s", " per minute", " per hour", " per day")
_UNSPECIFIED = _UNITS[0]


@dataclass(frozen=True)
class Unit:
    """Bytes 21 to 23 of a full record (IPMI 2.0, 43.1).

    `code` and `modifier` are codes of table 43-15. `modifier_use` 1 is "per", 2 "times".
    """

    code: int
    is_percent: bool = False
    rate: int = 0
    modifier_use: int = 0
    modifier: int = 0

    @classmethod
    def parse(cls, data: bytes) -> Unit:
        """Decode the three bytes."""
        flags, code, modifier = data
        return cls(code, bool(flags & 1), flags >> 3 & 7, flags >> 1 & 3, modifier)

    @property
    def is_plain(self) -> bool:
        """Whether it is not per time, and not per or times another unit."""
        return not self.rate and not (self.modifier_use and self.modifier)

    @property
    def name(self) -> str:
        """The short name, as `C`, `C per s` or `W * hr`; "unspecified" for what is none."""
        base = _UNITS[self.code] if self.code < len(_UNITS) else _UNSPECIFIED
        if self.is_percent:
            return f"% {base}" if self.code else "%"
        if self.is_plain:
            return base
        if not (self.modifier_use and self.modifier):
            return base + _RATES[self.rate] if self.rate < len(_RATES) else _UNSPECIFIED
        if self.rate or self.modifier_use == 3 or self.modifier >= len(_UNITS):
            return _UNSPECIFIED
        return f"{base} {' /*'[self.modifier_use]} {_UNITS[self.modifier]}"
