"""Keep what is costly to ask and changes seldom. Knows no reading's meaning."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

from .asking import Device
from .reading import Reason

Value = TypeVar("Value")
# The GPUs take turns within this share of the period, so that no scrape pays for all of them.
_SPREAD = 0.5
_TURNS = 8


@dataclass(frozen=True)
class _Kept(Generic[Value]):
    value: Value
    unavailable: Mapping[str, Reason]
    due_at: float


class Seldom:
    """Answers of each GPU that stand for up to `period_s` seconds."""

    def __init__(self) -> None:
        self.period_s = 0.0
        self._generation = 0
        self._kept: dict[tuple[str, str], _Kept[object]] = {}

    def begin(self, generation: int, period_s: float) -> None:
        """Say how long answers stand from now on; those of another generation are forgotten."""
        self.period_s = period_s
        if generation != self._generation:
            self._generation = generation
            self._kept = {}

    def ask(
        self, device: Device, uuid: str, key: str, read: Callable[[Device], Value]
    ) -> Value:
        """Return what `read` returned last, or returns now.

        An answer in which something failed does not stand. `key` has a value of one type.
        """
        kept = self._kept.get((uuid, key))
        now = time.monotonic()
        if kept is None or now >= kept.due_at:
            part = device.of(device.handle)
            value = read(part)
            device.is_lost = device.is_lost or part.is_lost
            early = _SPREAD * (device.index % _TURNS) / _TURNS
            kept = _Kept[object](value, part.unavailable, now + self.period_s * (1 - early))
            if not device.is_lost and "error" not in part.unavailable.values():
                self._kept[uuid, key] = kept
        device.unavailable.update(kept.unavailable)
        # Sound: one key is always asked with functions of one type.
        return cast(Value, kept.value)

    def last(self, uuid: str, key: str, default: Value) -> Value:
        """Return the last answer that stood, however old; `default` where there is none."""
        kept = self._kept.get((uuid, key))
        return default if kept is None else cast(Value, kept.value)
