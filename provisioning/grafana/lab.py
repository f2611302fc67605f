"""The dashboard "Lab overview": what is up, what is booked, and what is really used.

The ids of its panels are fixed for good: pages and links name them.
"""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import dashboard

from .lab_devices import add_devices
from .lab_health import add_health
from .lab_lock import add_lock
from .lab_nodes import add_nodes
from .lab_overview import add_booked_and_used, add_overview
from .lab_series import NODE, UID
from .panels import DATASOURCE, RED, query, variable


def build() -> builders.Dashboard:
    """Return the dashboard."""
    made = (
        builders.Dashboard("Lab overview")
        .uid(UID)
        .description("Which nodes are up, which devices are booked, and which are really used.")
        .tags(["sentinel"])
        .time("now-6h", "now")
        .refresh("30s")
        .timezone("browser")
        .editable()
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .link(
            builders.DashboardLink("Booking")
            .type(dashboard.DashboardLinkType.LINK)
            .url("@BOOKING_PUBLIC_URL@")
            .icon("external link")
            .target_blank(True)
        )
        .link(
            builders.DashboardLink("Dashboards")
            .type(dashboard.DashboardLinkType.DASHBOARDS)
            .tags(["sentinel"])
            .as_dropdown(True)
            .include_vars(True)
            .keep_time(True)
        )
        .annotation(
            builders.AnnotationQuery()
            .name("Offline")
            .datasource(DATASOURCE)
            .enable(True)
            .hide(False)
            .icon_color(RED)
            .target(
                query(
                    f'ALERTS{{alertname="NodeOffline",alertstate="firing",{NODE}}}', "{{node}}"
                )
            )
        )
        .with_variable(
            builders.DatasourceVariable("datasource").label("Data source").type("prometheus")
        )
        .with_variable(
            variable(
                "cluster",
                "Cluster",
                "label_values(sentinel_node_info, cluster)",
                is_optional=True,
            )
        )
        .with_variable(
            variable(
                "node", "Node", 'label_values(sentinel_node_info{cluster=~"$cluster"}, node)'
            )
        )
        .with_variable(
            variable(
                "device",
                "Device",
                f"label_values(accelerator_info{{{NODE}}}, uuid)",
                is_optional=True,
            )
        )
    )
    made = add_overview(made)
    made = add_booked_and_used(made)
    made = add_devices(made)
    made = add_nodes(made)
    made = add_lock(made)
    return add_health(made)
