"""The row "Devices" of the lab's dashboard: their readings, and who holds them."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models.dashboard import GridPos

from .lab_series import BY_DEVICE, DEVICE, DEVICE_NAME, SCRAPED_DEVICE, TO_NODE, place, row
from .panels import WIDTH, Head, column, lines, query, query_now, rows


def add_devices(made: builders.Dashboard) -> builders.Dashboard:
    """Add the devices' readings; ids from 20."""

    def of_device(metric: str) -> str:
        return f"{BY_DEVICE} (accelerator_{metric}{{{SCRAPED_DEVICE}}})"

    memory = (
        f"{BY_DEVICE} (accelerator_memory_used_bytes{{{SCRAPED_DEVICE}}}"
        f" / accelerator_memory_total_bytes{{{SCRAPED_DEVICE}}})"
    )
    curves = [
        (
            "Utilisation",
            "Share of time in which the device computed.",
            of_device("utilization_ratio"),
            "percentunit",
        ),
        ("Memory used", "Share of the device's memory in use.", memory, "percentunit"),
        (
            "Temperature",
            "Of the chip; above 90 °C an alert fires.",
            of_device("temperature_celsius"),
            "celsius",
        ),
        ("Power", "Drawn by the device now.", of_device("power_watts"), "watt"),
    ]
    made = made.with_row(row("Devices", 102, 15))
    for i, (title, description, expr, unit) in enumerate(curves):
        head = Head(20 + i, title, description, place(i, 16))
        made = made.with_panel(lines(head, [query(expr, DEVICE_NAME)], unit))
    listing = rows(
        Head(
            24,
            "Devices now",
            "Every device with its readings and holder; a node's name leads to that node.",
            GridPos(h=10, w=WIDTH, x=0, y=32),
        ),
        [
            query_now(
                "max by (node, vendor, index, uuid, model)"
                f" (accelerator_info{{{SCRAPED_DEVICE}}})",
                "A",
            ),
            query_now(
                f"max by (node, uuid, user) (sentinel_reservation_device{{{DEVICE}}})", "B"
            ),
            query_now(of_device("utilization_ratio"), "C"),
            query_now(memory, "D"),
            query_now(of_device("temperature_celsius"), "E"),
            query_now(of_device("power_watts"), "F"),
        ],
        {
            "node": "Node",
            "vendor": "Vendor",
            "index": "Index",
            "model": "Model",
            "user": "Booked by",
            "Value #C": "Utilisation",
            "Value #D": "Memory used",
            "Value #E": "Temperature",
            "Value #F": "Power",
            "uuid": "UUID",
        },
        ["Time", "Value #A", "Value #B"],
    )
    return made.with_panel(
        listing.override_by_name("Node", column(link=TO_NODE))
        .override_by_name("Utilisation", column("percentunit"))
        .override_by_name("Memory used", column("percentunit"))
        .override_by_name("Temperature", column("celsius"))
        .override_by_name("Power", column("watt"))
    )
