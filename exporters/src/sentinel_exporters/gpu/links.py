"""Read the NVLinks of a GPU: what is up, errors, bytes. Reads nothing of PCIe."""

from __future__ import annotations

from collections import Counter

import pynvml

from .asking import Device
from .reading import Facts, NvLinks
from .seldom import Seldom

_ERRORS = {
    "crc_flit": pynvml.NVML_NVLINK_ERROR_DL_CRC_FLIT,
    "crc_data": pynvml.NVML_NVLINK_ERROR_DL_CRC_DATA,
    "replay": pynvml.NVML_NVLINK_ERROR_DL_REPLAY,
    "recovery": pynvml.NVML_NVLINK_ERROR_DL_RECOVERY,
    "ecc_data": pynvml.NVML_NVLINK_ERROR_DL_ECC_DATA,
}
# The fifth generation of links (Blackwell) has none of those, and these fields by link.
_ERROR_FIELDS = {
    "receive": pynvml.NVML_FI_DEV_NVLINK_COUNT_RCV_ERRORS,
    "link_integrity": pynvml.NVML_FI_DEV_NVLINK_COUNT_LOCAL_LINK_INTEGRITY_ERRORS,
    "buffer_overrun": pynvml.NVML_FI_DEV_NVLINK_COUNT_BUFFER_OVERRUN_ERRORS,
    "malformed_packet": pynvml.NVML_FI_DEV_NVLINK_COUNT_MALFORMED_PACKET_ERRORS,
    "recovery": pynvml.NVML_FI_DEV_NVLINK_COUNT_LINK_RECOVERY_EVENTS,
    "symbol": pynvml.NVML_FI_DEV_NVLINK_COUNT_SYMBOL_ERRORS,
}
# By link and type.
_Errors = dict[int, dict[str, int]]
_KEPT_ERRORS = "errors of links"
# As a scope it stands for all links together (nvml.h, beside these fields).
_ALL_LINKS = 0xFFFFFFFF
_BYTES_FIELDS = (
    ("nvlink_bytes_total", pynvml.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX, _ALL_LINKS),
    ("nvlink_bytes_total", pynvml.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX, _ALL_LINKS),
)


def read_links(device: Device, facts: Facts, seldom: Seldom) -> NvLinks:
    """Return what the links of the GPU tell; their errors are asked seldom."""
    is_up: dict[int, bool] = {}
    for link in range(facts.nvlink_count):
        state = device.ask("nvlink_up", pynvml.nvmlDeviceGetNvLinkState, link)
        if state is not None:
            is_up[link] = state == pynvml.NVML_FEATURE_ENABLED
    up = [link for link in is_up if is_up[link]]
    if not is_up:
        return NvLinks()
    before: _Errors = seldom.last(facts.uuid, _KEPT_ERRORS, {})
    by_link = seldom.ask(
        device, facts.uuid, _KEPT_ERRORS, lambda part: _renew_errors(part, up, before)
    )
    errors: Counter[str] = Counter()
    for found in by_link.values():
        errors.update(found)
    kib = device.ask_fields(*_BYTES_FIELDS) if up else [None, None]
    sent, received = (None if value is None else value * 1024 for value in kib)
    return NvLinks(
        is_up=is_up,
        errors=dict(errors),
        link_errors={link: sum(found.values()) for link, found in by_link.items() if found},
        transmitted_bytes=sent,
        received_bytes=received,
    )


def _renew_errors(device: Device, up: list[int], before: _Errors) -> _Errors:
    """Return the errors by link and type, of those that were up before, too.

    Otherwise the sums would fall when a link goes down, and count its errors twice when it is
    back. Where the driver tells no errors of one that is down, its last ones stay.
    """
    # First one that is up: what the first has not is asked no more.
    links = [*up, *(link for link in before if link not in up)]
    now = _read_errors(device, links)
    return {link: {**before.get(link, {}), **now.get(link, {})} for link in links}


def _read_errors(device: Device, links: list[int]) -> _Errors:
    """Return the errors by link and type; what the first link has not is asked no more."""
    if not links:
        return {}
    first = device.ask_each(
        "nvlink_errors_total",
        lambda handle, kind: pynvml.nvmlDeviceGetNvLinkErrorCounter(handle, links[0], kind),
        _ERRORS,
    )
    if not first:
        return _read_error_fields(device, links)
    kinds = {name: kind for name, kind in _ERRORS.items() if name in first}
    found = {links[0]: first}
    for link in links[1:]:
        found[link] = {}
        for name, kind in kinds.items():
            count = device.ask(
                "nvlink_errors_total", pynvml.nvmlDeviceGetNvLinkErrorCounter, link, kind
            )
            if count is not None:
                found[link][name] = count
    device.settle("nvlink_errors_total")
    return found


def _read_error_fields(device: Device, links: list[int]) -> _Errors:
    names = [(link, name) for link in links for name in _ERROR_FIELDS]
    values = device.ask_fields(
        *(("nvlink_errors_total", _ERROR_FIELDS[name], link) for link, name in names)
    )
    found: _Errors = {link: {} for link in links}
    for (link, name), value in zip(names, values, strict=True):
        if value is not None:
            found[link][name] = value
    return found
