"""The row "Health of devices" of the lab's dashboard: what slows them down or breaks."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import prometheus, table
from grafana_foundation_sdk.models.dashboard import GridPos

from .lab_series import BY_DEVICE, DEVICE_NAME, SCRAPED_DEVICE, TO_NODE, place, row
from .panels import (
    WIDTH,
    YELLOW,
    Head,
    column,
    lines,
    query,
    query_now,
    rows,
    states,
)

# Those that cost speed; an idle GPU is held down too, and by nobody's fault.
_REASONS = "sw_power_cap|sw_thermal_slowdown|hw_thermal_slowdown|hw_power_brake_slowdown"


def add_health(made: builders.Dashboard) -> builders.Dashboard:
    """Add throttling, errors, repairs, links and activity; ids from 50."""

    def per_minute(metric: str, by: str) -> str:
        counter = f"accelerator_{metric}{{{SCRAPED_DEVICE}}}"
        return f"60 * max by (node, vendor, index, {by}) (rate({counter}[$__rate_interval]))"

    held = f'accelerator_throttle_reason{{{SCRAPED_DEVICE},reason=~"{_REASONS}"}}'
    made = made.with_row(row("Health of devices", 105, 94)).with_panel(
        states(
            Head(
                50,
                "Held down",
                "Devices whose clocks are held down now, and why. At the power limit is usual.",
                GridPos(h=8, w=WIDTH, x=0, y=95),
            ),
            query(
                f"max by (node, vendor, index, reason) ({held}) == 1",
                f"{DEVICE_NAME} {{{{reason}}}}",
            ),
            {"1": ("held down", YELLOW)},
        )
    )
    made = made.with_panel(_troubles()).with_panel(_xids())
    curves = [
        (
            "Memory errors",
            "Errors each minute that ECC saw in the device's memory.",
            per_minute("ecc_errors_total", "type"),
            f"{DEVICE_NAME} {{{{type}}}}",
            "cpm",
        ),
        (
            "NVLink traffic",
            "Payload over all NVLinks of a device.",
            "max by (node, vendor, index, direction)"
            f" (rate(accelerator_nvlink_bytes_total{{{SCRAPED_DEVICE}}}[$__rate_interval]))",
            f"{DEVICE_NAME} {{{{direction}}}}",
            "Bps",
        ),
        (
            "Tensor cores",
            "Share of time in which they worked; of GPUs from Hopper on.",
            f'{BY_DEVICE} (accelerator_activity_ratio{{{SCRAPED_DEVICE},part="tensor"}})',
            DEVICE_NAME,
            "percentunit",
        ),
        (
            "Memory bandwidth",
            "Share of the most that the device's memory can do.",
            f'{BY_DEVICE} (accelerator_activity_ratio{{{SCRAPED_DEVICE},part="dram"}}'
            f" or accelerator_memory_bandwidth_ratio{{{SCRAPED_DEVICE}}})",
            DEVICE_NAME,
            "percentunit",
        ),
    ]
    for i, (title, description, expr, legend, unit) in enumerate(curves):
        head = Head(53 + i, title, description, place(i, 111))
        made = made.with_panel(lines(head, [query(expr, legend)], unit))
    return made


def _troubles() -> table.Panel:
    def of_device(expr: str) -> str:
        return f"{BY_DEVICE} ({expr})"

    def series(metric: str) -> str:
        return f"accelerator_{metric}{{{SCRAPED_DEVICE}}}"

    reset = " or ".join(
        [
            f"{series('row_remap_pending')} == 1",
            f"{series('page_retirement_pending')} == 1",
            f"{series('recovery_action')} > 0",
        ]
    )
    links = f"count by (node, vendor, index, uuid) ({series('nvlink_up')} == 0)"
    codes = f"count by (node, vendor, index, uuid) ({series('error_code')})"
    return _table(
        Head(
            51,
            "Devices with trouble now",
            "Those only that have any: 1 for yes, or how many NVLinks and fault codes.",
            GridPos(h=8, w=12, x=0, y=103),
        ),
        [
            query_now(of_device(f"{series('healthy')} == 0") + " + 1", "A"),
            query_now(of_device(reset), "B"),
            query_now(of_device(f"{series('row_remap_failure')} == 1"), "C"),
            query_now(links, "D"),
            query_now(codes, "E"),
        ],
        {
            "Value #A": "Unhealthy",
            "Value #B": "Reset due",
            "Value #C": "Rows beyond repair",
            "Value #D": "NVLinks down",
            "Value #E": "Fault codes",
        },
    )


def _xids() -> table.Panel:
    last = f"accelerator_xid_last_timestamp_seconds{{{SCRAPED_DEVICE}}}"
    return _table(
        Head(
            52,
            "XID errors",
            "By NVIDIA's number for them, and how long ago the last one was.",
            GridPos(h=8, w=12, x=12, y=103),
        ),
        [query_now(f"time() - max by (node, vendor, index, uuid, xid) ({last})")],
        {"xid": "XID", "Value": "Ago"},
    ).override_by_name("Ago", column("s"))


def _table(
    head: Head, targets: list[prometheus.Dataquery], columns: dict[str, str]
) -> table.Panel:
    """Return a table of devices; a node's name leads to that node."""
    listing = rows(
        head,
        targets,
        {"node": "Node", "vendor": "Vendor", "index": "Index", **columns, "uuid": "UUID"},
        ["Time"],
    )
    return listing.override_by_name("Node", column(link=TO_NODE))
