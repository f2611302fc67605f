"""What npu-smi's output can be refused for."""

from __future__ import annotations

import re

from ..errors import CollectorError

# Codes of the DCMI library that operators meet, and what to do about them.
_DCMI_REASONS = {
    "-8005": "no permission: run as root or as a member of the group HwHiAiUser",
    "-8020": "the device is used by another container",
}


class NpuSmiError(CollectorError):
    """The output has not the form that we know, or is an error message."""


def explain(text: str) -> str:
    """Return why there is no table, in one line, from what npu-smi printed instead."""
    code = re.search(r"ret is (-\d+)", text)
    if code:
        reason = _DCMI_REASONS.get(code[1], "the driver's library refused")
        return f"{reason} (DCMI {code[1]})"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"no table in the output: {lines[0][:120]}" if lines else "no output"
