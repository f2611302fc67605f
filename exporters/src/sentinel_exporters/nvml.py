"""Hold the connection to NVIDIA's driver library (NVML). Makes no metric.

The library stays initialised between scrapes: without persistence mode the driver would start
each GPU anew every time. It is closed, so that the next scrape begins afresh, when the driver
fails as a whole, when a device fails (not more often than each REOPEN_S: starting eight GPUs
takes seconds), and when the kernel lists other cards than before, as the library counts them
only when it is initialised.
"""

from __future__ import annotations

import _ctypes
import ctypes
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import pynvml

from .errors import CollectorError
from .gpu.reading import Reason

log = logging.getLogger(__name__)

LIBRARY = "libnvidia-ml.so.1"

# How long at least the library stays open when a device keeps failing.
REOPEN_S = 60.0
# How long closing waits for what was lent, which is longer than anybody keeps it.
LENT_S = 1.5

# These say that there is no such reading on this device: no sample, and no failure.
_NO_READING: dict[int, Reason] = {
    pynvml.NVML_ERROR_NOT_SUPPORTED: "not_supported",
    pynvml.NVML_ERROR_VGPU_ECC_NOT_SUPPORTED: "not_supported",
    pynvml.NVML_ERROR_INVALID_ARGUMENT: "not_supported",
    pynvml.NVML_ERROR_DEPRECATED: "not_supported",
    pynvml.NVML_ERROR_NO_PERMISSION: "no_permission",
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND: "old_driver",
    pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH: "old_driver",
    pynvml.NVML_ERROR_NOT_FOUND: "no_data",
    pynvml.NVML_ERROR_NO_DATA: "no_data",
    pynvml.NVML_ERROR_NOT_READY: "no_data",
    # Not NVML's own library: that of CUDA, of which it is asked the version.
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: "no_data",
}
_DRIVER_FAILURES = frozenset(
    {
        pynvml.NVML_ERROR_UNINITIALIZED,
        pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
        pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
    }
)
_LOST = frozenset({pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_RESET_REQUIRED})

Value = TypeVar("Value")


class DeviceError(CollectorError):
    """The driver failed on one device; `is_lost`: it does not answer at all any more."""

    def __init__(self, reason: str, *, is_lost: bool = False) -> None:
        super().__init__(reason)
        self.is_lost = is_lost


class NoReading(CollectorError):
    """The device has no such reading, or the driver does not tell it."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason: Reason = reason


class LibraryClosed(CollectorError):
    """The library is not open, so there is nothing to lend."""


def is_installed() -> bool:
    """Whether the driver's library is there."""
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError:
        return False
    _ctypes.dlclose(library._handle)
    return True


class Nvml:
    """The library of this process: one thread has sessions, another may borrow it."""

    def __init__(self) -> None:
        # Counts the times that the library was opened; handles are good for one of them.
        self.generation = 0
        # Called before the library is closed, when nothing is lent, to give back what it has
        # allocated.
        self.before_close: list[Callable[[], None]] = []
        self._turn = threading.Condition()
        self._is_open = False
        self._is_wanted_back = False
        self._lent = 0
        self._has_failed = False
        self._reopen_at = 0.0
        self._cards: frozenset[str] | None = None

    @contextmanager
    def session(self, kernel_list: Path) -> Iterator[None]:
        """Initialise the library if need be, and close it when something failed inside.

        `kernel_list` is the folder in which the kernel's driver lists the cards, if there.
        Raises CollectorError when the driver is not there or not running.
        """
        self._has_failed = False
        cards = list_cards(kernel_list)
        if self._is_open and cards != self._cards:
            self._close()
        try:
            if not self._is_open:
                self._open()
                self._cards = cards
            yield
        except pynvml.NVMLError as error:
            self._close()
            raise CollectorError(f"NVML: {error}") from error
        if self._has_failed and time.monotonic() >= self._reopen_at:
            self._reopen_at = time.monotonic() + REOPEN_S
            self._close()

    @contextmanager
    def lent(self, wait_s: float) -> Iterator[None]:
        """Keep the library open for the block, in another thread than the session's.

        The block must end within LENT_S: closing waits for it. Raises LibraryClosed when the
        library is not open within `wait_s`.
        """
        with self._turn:
            if not self._turn.wait_for(
                lambda: self._is_open and not self._is_wanted_back, wait_s
            ):
                raise LibraryClosed("the library is not open")
            self._lent += 1
        try:
            yield
        finally:
            with self._turn:
                self._lent -= 1
                self._turn.notify_all()

    def wait_for_reopening(self, timeout_s: float) -> None:
        """Return when the library was opened anew, or after `timeout_s`."""
        generation = self.generation
        with self._turn:
            self._turn.wait_for(lambda: self.generation != generation, timeout_s)

    def ask(self, function: Callable[..., Value], *arguments: object) -> Value:
        """Return what the function says.

        Raises NoReading where the device has none, DeviceError when the device fails, and
        NVMLError when the whole driver does.
        """
        try:
            return function(*arguments)
        except pynvml.NVMLError as error:
            code = error.value
            if code in _NO_READING:
                raise NoReading(_NO_READING[code]) from None
            if code in _DRIVER_FAILURES:
                raise
            self._has_failed = True
            raise DeviceError(str(error), is_lost=code in _LOST) from error
        except UnicodeDecodeError:
            # As from a card whose memory of what it is (its InfoROM) is damaged.
            raise NoReading("no_data") from None

    def _open(self) -> None:
        _initialise()
        with self._turn:
            self._is_open = True
            self.generation += 1
            self._turn.notify_all()

    def _close(self) -> None:
        if not self._is_open:
            return
        with self._turn:
            self._is_wanted_back = True
            is_back = self._turn.wait_for(lambda: self._lent == 0, LENT_S)
        if is_back:
            for release in self.before_close:
                release()
            # It is to be forgotten, whatever it says to that.
            with suppress(pynvml.NVMLError):
                pynvml.nvmlShutdown()
        else:
            # Closing it under a call that hangs would crash the process.
            log.warning("driver library kept open reason=a call has not returned")
        with self._turn:
            self._is_open = not is_back
            self._is_wanted_back = False
            self._turn.notify_all()


def list_cards(folder: Path) -> frozenset[str] | None:
    """Return the cards by the kernel driver's own list, or None where there is no list."""
    try:
        return frozenset(path.name for path in folder.iterdir())
    except OSError:
        return None


def _initialise() -> None:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        if error.value == pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH:
            # The driver was updated under us: the library in memory is the old one.
            _unload()
            pynvml.nvmlInit()
            return
        raise


def _unload() -> None:
    """Drop the loaded library, so that the next call loads the file that is there now.

    pynvml has no call for this; these are the two places where it keeps the library.
    """
    _ctypes.dlclose(pynvml.nvmlLib._handle)
    pynvml.nvmlLib = None
    pynvml._nvmlGetFunctionPointer_cache.clear()
