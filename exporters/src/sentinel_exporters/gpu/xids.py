"""Count XID errors by a thread that waits for the driver's events. Reads nothing else.

XIDs are the driver's numbered errors of a GPU. NVML keeps no count of them: an event that
nobody waits for is lost, so the thread waits all the time, in short turns for which it borrows
the library. What happened before the exporter started is not known.
"""

from __future__ import annotations

import ctypes
import logging
import threading
import time
from collections import defaultdict
from contextlib import suppress
from typing import Any

import pynvml

from ..nvml import LibraryClosed, Nvml
from .reading import Xid

log = logging.getLogger(__name__)

# One turn of waiting; closing the library waits that long for it.
TURN_MS = 250
# How long the first read waits for the thread.
BEGIN_S = 1.0
# After a failure: the driver may be away for long, and a set with a lost GPU fails at once.
RETRY_S = 2.0
# Numbers that get a count of their own for each GPU. NVIDIA's list ends below 200, and few of
# them ever come; a driver gone mad shall not fill Prometheus.
MAX_NUMBERS = 32
# The others are counted together under it; no XID has it.
OTHER = 0


class XidWatch:
    """The counts so far, and the thread that counts."""

    def __init__(self, nvml: Nvml) -> None:
        self._nvml = nvml
        self._lock = threading.Lock()
        # By uuid and number: how many, and the Unix time of the last.
        self._counts: dict[str, dict[int, tuple[int, float]]] = defaultdict(dict)
        self._watched: frozenset[str] = frozenset()
        # Who is lost, and who was when the set was made.
        self._lost: frozenset[str] = frozenset()
        self._left_out: frozenset[str] = frozenset()
        self._thread: threading.Thread | None = None
        # Of the thread alone. Any: opaque pointers of pynvml's.
        self._set: Any = None
        self._uuids: dict[int | None, str] = {}
        self._has_begun = threading.Event()
        self._reason = ""
        # Nothing is lent when it is called, so no wait is under way.
        nvml.before_close.append(self._drop)

    def start(self) -> None:
        """Begin to count, once, while the library is open; the thread ends with the process."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="gpu-xids", daemon=True)
            self._thread.start()
            # So that the first read can say who is watched.
            self._has_begun.wait(BEGIN_S)

    def leave_out(self, lost: frozenset[str]) -> None:
        """Do not wait for these GPUs: with one that is lost every wait fails."""
        self._lost = lost

    def is_watched(self, uuid: str) -> bool:
        """Whether events of the GPU are waited for now."""
        # A set that is about to be made anew misses what comes meanwhile.
        return uuid in self._watched and self._left_out == self._lost

    def counted(self, uuid: str) -> tuple[Xid, ...]:
        """Return the GPU's XID errors so far, by number."""
        with self._lock:
            return tuple(
                Xid(number, count, at)
                for number, (count, at) in sorted(self._counts.get(uuid, {}).items())
            )

    def _run(self) -> None:
        while True:
            try:
                with self._nvml.lent(wait_s=60):
                    self._turn()
                self._note("")
            except LibraryClosed:
                continue
            except Exception as error:  # the thread's boundary: it must go on counting later
                self._note(str(error))
                self._has_begun.set()
                self._nvml.wait_for_reopening(RETRY_S)

    def _note(self, reason: str) -> None:
        if reason and reason != self._reason:
            log.warning("waiting for XID errors failed reason=%s", reason)
        self._reason = reason

    def _turn(self) -> None:
        """Wait once, with an event set that fits what there is."""
        lost = self._lost
        try:
            if self._set is None or self._left_out != lost:
                self._drop()
                self._register()
                self._left_out = lost
                # Not before one wait has worked: old drivers have no such function.
                self._wait(0)
                self._watched = frozenset(self._uuids.values())
                self._has_begun.set()
            self._wait(TURN_MS)
        except pynvml.NVMLError:
            self._drop()
            raise

    def _register(self) -> None:
        """Make a set with the events of every GPU that can be watched."""
        unfit: set[int] = set()
        while not self._try_to_register(unfit):
            self._drop()

    def _try_to_register(self, unfit: set[int]) -> bool:
        """Return whether the set is usable; a GPU that spoilt it is added to `unfit`."""
        self._set = pynvml.nvmlEventSetCreate()
        self._uuids = {}
        for index in range(pynvml.nvmlDeviceGetCount()):
            if index in unfit:
                continue
            try:
                handle = pynvml.nvmlDeviceGetHandleByIndex(index)
                uuid = pynvml.nvmlDeviceGetUUID(handle)
                types = pynvml.nvmlDeviceGetSupportedEventTypes(handle)
            except pynvml.NVMLError:
                continue
            if uuid in self._lost or not types & pynvml.nvmlEventTypeXidCriticalError:
                continue
            try:
                pynvml.nvmlDeviceRegisterEvents(
                    handle, pynvml.nvmlEventTypeXidCriticalError, self._set
                )
            except pynvml.NVMLError:
                # nvml.h says that the set is of no use after UNKNOWN; so it is after any.
                unfit.add(index)
                return False
            self._uuids[_address(handle)] = uuid
        return True

    def _wait(self, timeout_ms: int) -> None:
        if not self._uuids:
            # Nothing to wait for, until something changes.
            time.sleep(timeout_ms / 1000)
            return
        try:
            event = pynvml.nvmlEventSetWait_v2(self._set, timeout_ms)
        except pynvml.NVMLError_Timeout:
            return
        uuid = self._uuids.get(_address(event.device))
        if uuid is not None and event.eventType == pynvml.nvmlEventTypeXidCriticalError:
            self._count(uuid, int(event.eventData))

    def _count(self, uuid: str, number: int) -> None:
        with self._lock:
            counts = self._counts[uuid]
            if number not in counts and len(counts) >= MAX_NUMBERS:
                number = OTHER
            count, _ = counts.get(number, (0, 0.0))
            counts[number] = (count + 1, time.time())
        if not count:
            # The kernel's log has the others: there can be thousands.
            log.warning("XID error gpu=%s xid=%d", uuid, number)

    def _drop(self) -> None:
        """Give the set back."""
        self._watched = frozenset()
        if self._set is not None:
            with suppress(pynvml.NVMLError):
                pynvml.nvmlEventSetFree(self._set)
        self._set = None


def _address(handle: Any) -> int | None:  # Any: an opaque pointer of pynvml's
    return ctypes.cast(handle, ctypes.c_void_p).value
