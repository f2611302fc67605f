"""Ask one GPU and note what it does not tell, and why. Knows no reading's meaning."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pynvml

from ..nvml import DeviceError, NoReading, Nvml
from .reading import Reason

# A function of NVML and what it takes after the device. Any: pynvml has no types.
Query = tuple[Callable[..., Any], tuple[object, ...]]


class Device:
    """One GPU that is being asked; what goes wrong is noted, and a lost one asked no more.

    `unavailable` has the reason for each reading that there was not.
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
            problems.append(f"GPU {index}: is not told ({none.reason})")
        except DeviceError as error:
            self._fail(error)

    def of(self, handle: object) -> Device:
        """Return the same GPU by another handle: that of a MIG device."""
        part = object.__new__(Device)
        part.__dict__.update(self.__dict__, handle=handle, unavailable={})
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
                self._fail(error)
                reason = "error"
                break
        if not self.is_lost:
            self.unavailable[reading] = reason
        return None

    def ask_each(
        self, reading: str, function: Callable[..., Any], kinds: Mapping[str, int]
    ) -> dict[str, int]:
        """Ask for each kind; only where none is told the reading counts as unavailable."""
        answers: dict[str, int] = {}
        for name, kind in kinds.items():
            answer = self.ask(reading, function, kind)
            if answer is not None:
                answers[name] = answer
        if answers:
            self.unavailable.pop(reading, None)
        return answers

    def ask_fields(self, fields: Sequence[tuple[int, int]]) -> list[int | None]:
        """Return the field values, each by (field, scope); None for one that is not told."""
        values = self.ask("field_values", pynvml.nvmlDeviceGetFieldValues, fields)
        self.unavailable.pop("field_values", None)
        if values is None:
            return [None] * len(fields)
        return [_read_field(value) for value in values]

    def _fail(self, error: DeviceError) -> None:
        self.is_lost = self.is_lost or error.is_lost
        self._problems.append(f"GPU {self.index}: {error}")


def _read_field(value: Any) -> int | None:  # Any: pynvml's structure for a field value
    if value.nvmlReturn != pynvml.NVML_SUCCESS:
        return None
    return int(
        {
            pynvml.NVML_VALUE_TYPE_UNSIGNED_INT: value.value.uiVal,
            pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG: value.value.ulVal,
            pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG: value.value.ullVal,
            pynvml.NVML_VALUE_TYPE_SIGNED_LONG_LONG: value.value.sllVal,
            pynvml.NVML_VALUE_TYPE_SIGNED_INT: value.value.siVal,
            pynvml.NVML_VALUE_TYPE_UNSIGNED_SHORT: value.value.usVal,
            pynvml.NVML_VALUE_TYPE_DOUBLE: value.value.dVal,
        }[value.valueType]
    )
