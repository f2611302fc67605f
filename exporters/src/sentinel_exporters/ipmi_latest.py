"""The last answers of each BMC, for scrapes that may be served again. Asks none."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

from .core import Target
from .ipmi_module import BaseModule
from .ipmi_samples import Answers

_MAX_KEPT = 8192


class Latest:
    """Answers by target and module. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # By what module, and when they were asked for, on the monotonic clock; the oldest entry
        # is first.
        self._kept: dict[tuple[str, str], tuple[BaseModule, Answers, float]] = {}

    def find(self, target: Target, module: BaseModule, max_age_s: float) -> Answers | None:
        """Return the answers if they are not older; their age is in them.

        What another module asked for, of the same name, is none.
        """
        found = self._kept.get((target.address, target.module))
        if found is None or found[0] != module:
            return None
        _, answers, asked_at = found
        age_s = time.monotonic() - asked_at
        return replace(answers, age_s=age_s) if age_s <= max_age_s else None

    def keep(
        self, target: Target, module: BaseModule, answers: Answers, asked_at: float
    ) -> Answers:
        """Return the answers with their age, kept if anything was told.

        What was not told is asked for anew by the next scrape: it may be there again.
        """
        key = (target.address, target.module)
        with self._lock:
            self._kept.pop(key, None)
            if not answers.problems:
                self._kept[key] = module, answers, asked_at
                while len(self._kept) > _MAX_KEPT:
                    del self._kept[next(iter(self._kept))]
        return replace(answers, age_s=time.monotonic() - asked_at)
