"""Hold the connection to NVIDIA's driver library (NVML). Makes no metric.

The library stays initialised between scrapes: without persistence mode the driver would start
each GPU anew every time. After a failure it is closed, so that the next scrape begins afresh.
"""

from __future__ import annotations

import _ctypes
import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

import pynvml

from .errors import CollectorError

LIBRARY = "libnvidia-ml.so.1"

# These say that there is no such reading on this device, for us: no sample, and no failure.
_NO_READING = frozenset(
    {
        pynvml.NVML_ERROR_NOT_SUPPORTED,
        pynvml.NVML_ERROR_NO_PERMISSION,
        pynvml.NVML_ERROR_NOT_FOUND,
        pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
        pynvml.NVML_ERROR_NO_DATA,
        pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
    }
)

Value = TypeVar("Value")


class DeviceError(CollectorError):
    """The driver failed on one device; `is_lost`: it does not answer at all any more."""

    def __init__(self, reason: str, *, is_lost: bool = False) -> None:
        super().__init__(reason)
        self.is_lost = is_lost


def is_installed() -> bool:
    """Whether the driver's library is there."""
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError:
        return False
    _ctypes.dlclose(library._handle)
    return True


class Nvml:
    """The library of this process; it may only be used by one thread at a time."""

    def __init__(self) -> None:
        self._is_open = False
        self._failed = False

    @contextmanager
    def session(self) -> Iterator[None]:
        """Initialise the library if need be, and close it when something failed inside.

        Raises CollectorError when the driver is not there or not running.
        """
        self._failed = False
        try:
            if not self._is_open:
                _initialise()
                self._is_open = True
            yield
        except pynvml.NVMLError as error:
            self._failed = True
            raise CollectorError(f"NVML: {error}") from error
        finally:
            if self._failed and self._is_open:
                self._is_open = False
                # It is to be forgotten, whatever it says to that.
                with suppress(pynvml.NVMLError):
                    pynvml.nvmlShutdown()

    def ask(self, function: Callable[..., Value], *arguments: object) -> Value | None:
        """Return what the function says, or None where the device has no such reading.

        Raises DeviceError when the device fails, and NVMLError when the whole driver does.
        """
        try:
            return function(*arguments)
        except pynvml.NVMLError as error:
            code = error.value
            if code in _NO_READING:
                return None
            self._failed = True
            if code in {
                pynvml.NVML_ERROR_UNINITIALIZED,
                pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
                pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
            }:
                raise
            name = getattr(function, "__name__", "NVML")
            raise DeviceError(
                f"{name}: {error}",
                is_lost=code
                in {
                    pynvml.NVML_ERROR_GPU_IS_LOST,
                    pynvml.NVML_ERROR_RESET_REQUIRED,
                },
            ) from error


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
