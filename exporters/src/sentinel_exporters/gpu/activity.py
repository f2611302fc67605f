"""Measure how busy the parts of a chip were, from its own counters (GPM). Makes no sample.

The counters come as opaque samples, and NVML works out means between two of them. The last one
of each GPU and MIG device is kept, so that each read covers the time since the one before.
"""

from __future__ import annotations

import math
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pynvml

from .asking import Device
from .reading import Activity

# Below that the means are coarse: NVIDIA's own examples take 100 ms.
MIN_INTERVAL_S = 0.1

_RATIOS = {
    "graphics": pynvml.NVML_GPM_METRIC_GRAPHICS_UTIL,
    "sm": pynvml.NVML_GPM_METRIC_SM_UTIL,
    "sm_occupancy": pynvml.NVML_GPM_METRIC_SM_OCCUPANCY,
    "tensor": pynvml.NVML_GPM_METRIC_ANY_TENSOR_UTIL,
    "dram": pynvml.NVML_GPM_METRIC_DRAM_BW_UTIL,
    "fp64": pynvml.NVML_GPM_METRIC_FP64_UTIL,
    "fp32": pynvml.NVML_GPM_METRIC_FP32_UTIL,
    "fp16": pynvml.NVML_GPM_METRIC_FP16_UTIL,
    "integer": pynvml.NVML_GPM_METRIC_INTEGER_UTIL,
}
_TRANSMITTED = pynvml.NVML_GPM_METRIC_PCIE_TX_PER_SEC
_RECEIVED = pynvml.NVML_GPM_METRIC_PCIE_RX_PER_SEC
_LINKS_TRANSMITTED = pynvml.NVML_GPM_METRIC_NVLINK_TOTAL_TX_PER_SEC
_LINKS_RECEIVED = pynvml.NVML_GPM_METRIC_NVLINK_TOTAL_RX_PER_SEC
_RATES = (_TRANSMITTED, _RECEIVED, _LINKS_TRANSMITTED, _LINKS_RECEIVED)
_METRICS = (*_RATIOS.values(), *_RATES)
_MIB = 1024 * 1024


@dataclass
class _Meter:
    """Two samples of one GPU or MIG device, and the means between the last two."""

    # Any: opaque pointers of pynvml's.
    spare: Any = None
    last: Any = None
    last_at: float = 0.0
    activity: Activity | None = None

    def free(self) -> None:
        for sample in (self.spare, self.last):
            if sample is not None:
                with suppress(pynvml.NVMLError):
                    pynvml.nvmlGpmSampleFree(sample)


class ActivityMeters:
    """The meters of all GPUs and MIG devices while the library is open."""

    def __init__(self) -> None:
        self._meters: dict[str, _Meter] = {}
        self._request = pynvml.c_nvmlGpmMetricsGet_t()
        self._request.version = pynvml.NVML_GPM_METRICS_GET_VERSION
        self._request.numMetrics = len(_METRICS)
        for place, metric in enumerate(_METRICS):
            self._request.metrics[place].metricId = metric

    def measure(
        self, device: Device, uuid: str, gpu_instance: int | None = None
    ) -> Activity | None:
        """Return the means since the last read of the GPU or MIG device of the uuid.

        `gpu_instance` is the MIG device's. None: it is the first read, or there is no reading.
        """
        meter = self._meters.setdefault(uuid, _Meter())
        now = time.monotonic()
        if meter.last is not None and now < meter.last_at + MIN_INTERVAL_S:
            return meter.activity
        if meter.spare is None:
            meter.spare = device.ask("activity_ratio", lambda _: pynvml.nvmlGpmSampleAlloc())
        if meter.spare is None:
            return None
        if gpu_instance is None:
            taken = device.ask("activity_ratio", pynvml.nvmlGpmSampleGet, meter.spare)
        else:
            taken = device.ask(
                "activity_ratio", pynvml.nvmlGpmMigSampleGet, gpu_instance, meter.spare
            )
        if taken is None:
            meter.activity = None
            return None
        before, meter.last, meter.last_at = meter.last, meter.spare, now
        meter.spare = before
        meter.activity = None if before is None else self._work_out(device, before, meter.last)
        return meter.activity

    def keep(self, uuids: set[str]) -> None:
        """Forget the meters of GPUs and MIG devices that are not among these."""
        for uuid in self._meters.keys() - uuids:
            self._meters.pop(uuid).free()

    def release(self) -> None:
        """Give back all samples: the library is about to be closed."""
        self.keep(set())

    # Any: opaque pointers of pynvml's.
    def _work_out(self, device: Device, before: Any, now: Any) -> Activity | None:
        self._request.sample1, self._request.sample2 = before, now
        answer = device.ask("activity_ratio", lambda _: pynvml.nvmlGpmMetricsGet(self._request))
        if answer is None:
            return None
        values: dict[int, float] = {}
        for place, metric in enumerate(_METRICS):
            one = answer.metrics[place]
            if one.nvmlReturn == pynvml.NVML_SUCCESS and math.isfinite(one.value):
                values[metric] = one.value
        ratios = {name: values[at] / 100 for name, at in _RATIOS.items() if at in values}
        return Activity(ratios, *(values[at] * _MIB if at in values else None for at in _RATES))
