"""Ask one GPU and note what it does not tell, and why. Knows no reading's meaning."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from typing import Any

import pynvml

from ..nvml import DeviceError, NoReading, Nvml
from .reading import Reason

# A function of NVML and what it takes after the device. Any: pynvml has no types.
Query = tuple[Callable[..., Any], tuple[object, ...]]
# Where a field's value is, by nvmlValueType_t.
_FIELD_VALUES: Mapping[int, str] = {
    pynvml.NVML_VALUE_TYPE_DOUBLE: "dVal",
    pynvml.NVML_VALUE_TYPE_UNSIGNED_INT: "uiVal",
    pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG: "ulVal",
    pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG: "ullVal",
    pynvml.NVML_VALUE_TYPE_SIGNED_LONG_LONG: "sllVal",
    pynvml.NVML_VALUE_TYPE_SIGNED_INT: "siVal",
    pynvml.NVML_VALUE_TYPE_UNSIGNED_SHORT: "usVal",
}


class Device:
    """One GPU that is being asked; what goes wrong is noted, and a lost one asked no more.

    `unavailable` has the reason for each reading that there was not, or not in full.
    """

    def __init__(self, nvml: Nvml, index: int, problems: list[str]) -> None:
        self.index = index
        self.is_lost = False
        self.unavailable: dict[str, Reason] = {}
        self._nvml = nvml
        self._problems = problems
        # Any: an opaque pointer of pynvml's.
        self.handle: Any = None
        try:
            self.handle = nvml.ask(pynvml.nvmlDeviceGetHandleByIndex, index)
        except NoReading as none:
            self._note(f"is not told ({none.reason})")
        except DeviceError as error:
            self._fail(error)

    def of(self, handle: object) -> Device:
        """Return the same GPU by another handle: that of a MIG device."""
        part = copy(self)
        part.handle, part.unavailable = handle, {}
        return part

    # Any: pynvml has no types; each caller knows what the function returns.
    def ask(self, reading: str, function: Callable[..., Any], *arguments: object) -> Any:
        """Return what the function says, or None, with the reason under `reading`'s name."""
        return self.ask_first(reading, (function, arguments))

    def ask_first(self, reading: str, *queries: Query) -> Any:
        """Return the first answer: later queries are for older drivers."""
        if self.is_lost or self.handle is None:
            return None
        reason: Reason = "old_driver"
        for function, arguments in queries:
            try:
                return self._nvml.ask(function, self.handle, *arguments)
            except NoReading as none:
                # That it lacks one of the functions is not why the other has no answer.
                reason = none.reason if reason == "old_driver" else reason
            except DeviceError as error:
                self._fail(error, reading)
                reason = "error"
                break
        if not self.is_lost:
            self.unavailable[reading] = reason
        return None

    def ask_each(
        self, reading: str, function: Callable[..., Any], kinds: Mapping[str, int]
    ) -> dict[str, int]:
        """Ask for each kind; those that are not told are missing."""
        answers: dict[str, int] = {}
        for name, kind in kinds.items():
            answer = self.ask(reading, function, kind)
            if answer is not None:
                answers[name] = answer
        if answers:
            self.settle(reading)
        return answers

    def ask_fields(self, *fields: tuple[str, int, int]) -> list[int | None]:
        """Return field values, each asked by (reading, field, scope); None: it is not told."""
        found = self.ask(
            "field_values",
            pynvml.nvmlDeviceGetFieldValues,
            [(field, scope) for _, field, scope in fields],
        )
        refusal = self.unavailable.pop("field_values", None)
        if found is None:
            if refusal is not None:
                self.unavailable.update((reading, refusal) for reading, _, _ in fields)
            return [None] * len(fields)
        # Each has a result of its own.
        values = [
            self.ask(reading, _read_field, one)
            for (reading, _, _), one in zip(fields, found, strict=True)
        ]
        for (reading, _, _), value in zip(fields, values, strict=True):
            if value is not None:
                self.settle(reading)
        return values

    def settle(self, reading: str) -> None:
        """Say that the reading is told for some kinds: that the others are not is no matter.

        That one of them failed is.
        """
        if self.unavailable.get(reading) != "error":
            self.unavailable.pop(reading, None)

    def _fail(self, error: DeviceError, reading: str = "") -> None:
        self.is_lost = self.is_lost or error.is_lost
        self._note(f"{reading}: {error}" if reading else str(error))

    def _note(self, problem: str) -> None:
        # Once, though it may be so of each of many links.
        text = f"GPU {self.index}: {problem}"
        if text not in self._problems:
            self._problems.append(text)


def _read_field(_handle: object, value: Any) -> int:  # Any: pynvml's structure for a field
    """Return a field's value; raises as NVML's functions do, by its own result."""
    if value.nvmlReturn != pynvml.NVML_SUCCESS:
        raise pynvml.NVMLError(value.nvmlReturn)
    if value.valueType not in _FIELD_VALUES:
        raise NoReading("not_supported")  # of a type that a later driver may bring
    return int(getattr(value.value, _FIELD_VALUES[value.valueType]))
