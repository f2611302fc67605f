"""What npu-smi's output can be refused for."""

from __future__ import annotations

import re

from ..errors import CollectorError

# Codes of the DCMI library that operators meet, and what to do about them.
_DCMI_REASONS = {
    "-8005": "no permission: run as root or as a member of the group HwHiAiUser",
    "-8020": "the device is used by another container",
}
# What the tool says of a device, a mode or a version that cannot tell what was asked.
_REFUSALS = re.compile(
    r"(does|do|is|are) not support|not supported|Error parameter of -t|working in SMP mode"
    r"|cannot be executed on a VM or container|no NPU chip on this card",
    re.IGNORECASE,
)


class NpuSmiError(CollectorError):
    """The output has not the form that we know, or is an error message."""


class NoAnswer(NpuSmiError):
    """The tool did not end in time."""


class NotSupported(NpuSmiError):
    """The tool says that this device, or this version of it, cannot tell what was asked."""


def is_refusal(text: str) -> bool:
    """Whether the tool says that it cannot tell this, now and later."""
    return _REFUSALS.search(text) is not None


def explain(text: str) -> str:
    """Return why there is no table, in one line, from what npu-smi printed instead."""
    code = re.search(r"ret is (-\d+)", text)
    if code:
        reason = _DCMI_REASONS.get(code[1], "the driver's library refused")
        return f"{reason} (DCMI {code[1]})"
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    return f"no table in the output: {lines[0][:120]}" if lines else "no output"
