"""The dashboard "Lab overview": what is up, what is booked, and what is really used.

The ids of its panels are fixed for good: pages and links name them.
"""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import dashboard
from grafana_foundation_sdk.models.dashboard import GridPos

from .panels import (
    BLUE,
    DATASOURCE,
    GREEN,
    RED,
    WIDTH,
    YELLOW,
    Head,
    column,
    lines,
    number,
    query,
    query_now,
    rows,
    states,
    variable,
)

UID = "sentinel-lab"

# Series of exporters have the target's labels; booking's own have only the node's name.
NODE = 'node=~"$node"'
SCRAPED = f'cluster=~"$cluster",{NODE}'
DEVICE = f'{NODE},uuid=~"$device"'
SCRAPED_DEVICE = f'{SCRAPED},uuid=~"$device"'
# Alerts about no node at all are shown with those of every node.
ALERT = 'alertstate="firing",node=~"|$node"'

# A device that moved to another port or index is one line.
BY_DEVICE = "max by (node, vendor, index, uuid)"
DEVICE_NAME = "{{node}} {{vendor}} {{index}}"


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
    return add_lock(made)


def row(title: str, panel_id: int, y: int) -> builders.Row:
    """Return a heading."""
    return builders.Row(title).id(panel_id).grid_pos(GridPos(h=1, w=WIDTH, x=0, y=y))


def add_overview(made: builders.Dashboard) -> builders.Dashboard:
    """Add the large numbers; ids from 1."""
    bad_above_0 = ((None, GREEN), (1, RED))
    numbers: list[tuple[str, str, str, tuple[tuple[float | None, str], ...]]] = [
        (
            "Nodes up",
            "Nodes whose exporter answers Prometheus.",
            f"count(node:agent_up:max{{{NODE}}} == 1) or vector(0)",
            ((None, RED), (1, GREEN)),
        ),
        (
            "Nodes offline",
            "Nodes for which the alert NodeOffline fires.",
            f'count(ALERTS{{alertname="NodeOffline",alertstate="firing",{NODE}}}) or vector(0)',
            bad_above_0,
        ),
        (
            "Devices",
            "Accelerators in booking's inventory.",
            f"sum(max by (node, vendor) (sentinel_devices{{{NODE}}})) or vector(0)",
            ((None, BLUE),),
        ),
        (
            "Devices booked",
            "Devices that a running reservation holds now.",
            f"count(node_uuid:accelerator_reserved:max{{{DEVICE}}}) or vector(0)",
            ((None, BLUE),),
        ),
        (
            "Devices in use",
            "Devices that are busy for more than 5 % of the time.",
            f"sum(node_uuid:accelerator_in_use:bool{{{DEVICE}}}) or vector(0)",
            ((None, BLUE),),
        ),
        (
            "Booked, not used",
            "Devices that are booked now and not busy.",
            f"count(node_uuid:accelerator_reserved:max{{{DEVICE}}}"
            " and on (node, uuid) node_uuid:accelerator_in_use:bool == 0) or vector(0)",
            ((None, GREEN), (1, YELLOW)),
        ),
        (
            "SSH sessions",
            "Sessions that are open on the nodes.",
            f"sum(ssh_sessions{{{SCRAPED}}}) or vector(0)",
            ((None, BLUE),),
        ),
        (
            "Alerts",
            "Alerts that fire, of every severity.",
            f"count(ALERTS{{{ALERT}}}) or vector(0)",
            bad_above_0,
        ),
    ]
    made = made.with_row(row("Overview", 100, 0))
    for i, (title, description, expr, steps) in enumerate(numbers):
        at = GridPos(h=4, w=3, x=3 * i, y=1)
        made = made.with_panel(number(Head(i + 1, title, description, at), expr, steps=steps))
    return made


def add_booked_and_used(made: builders.Dashboard) -> builders.Dashboard:
    """Add what is booked against what is used; ids from 10."""
    reserved = f"node_uuid:accelerator_reserved:max{{{DEVICE}}}"
    in_use = f"node_uuid:accelerator_in_use:bool{{{DEVICE}}}"
    return (
        made.with_row(row("Booked and used", 101, 5))
        .with_panel(
            lines(
                Head(
                    10,
                    "Devices booked and used",
                    "The gap between booked and both is what stands idle under a reservation.",
                    GridPos(h=9, w=12, x=0, y=6),
                ),
                [
                    query(f"count({reserved}) or vector(0)", "booked", "A"),
                    query(f"sum({in_use}) or vector(0)", "in use", "B"),
                    query(
                        f"count({reserved} and on (node, uuid) {in_use} == 1) or vector(0)",
                        "booked and in use",
                        "C",
                    ),
                ],
                "short",
            )
        )
        .with_panel(
            states(
                Head(
                    11,
                    "Reservations",
                    "Who holds which device; a gap is free time.",
                    GridPos(h=9, w=12, x=12, y=6),
                ),
                query(
                    f"max by (node, uuid, user) (sentinel_reservation_device{{{DEVICE}}})",
                    "{{node}} {{uuid}}: {{user}}",
                ),
                {"1": ("booked", BLUE)},
            )
        )
    )


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
        at = GridPos(h=8, w=12, x=12 * (i % 2), y=16 + 8 * (i // 2))
        target = query(expr, DEVICE_NAME)
        made = made.with_panel(lines(Head(20 + i, title, description, at), [target], unit))
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
    to_node = ("Show this node", f"/d/{UID}/?var-node=${{__value.raw}}&${{__url_time_range}}")
    return made.with_panel(
        listing.override_by_name("Node", column(link=to_node))
        .override_by_name("Utilisation", column("percentunit"))
        .override_by_name("Memory used", column("percentunit"))
        .override_by_name("Temperature", column("celsius"))
        .override_by_name("Power", column("watt"))
    )


def add_nodes(made: builders.Dashboard) -> builders.Dashboard:
    """Add nodes, people and alerts; ids from 30."""
    idle = f'node_cpu_seconds_total{{{SCRAPED},mode="idle"}}'
    return (
        made.with_row(row("Nodes, people and alerts", 103, 42))
        .with_panel(
            states(
                Head(
                    30,
                    "Nodes",
                    "Whether the node's exporter answers Prometheus.",
                    GridPos(h=9, w=12, x=0, y=43),
                ),
                query(f"node:agent_up:max{{{NODE}}}", "{{node}}"),
                {"1": ("up", GREEN), "0": ("down", RED)},
            )
        )
        .with_panel(
            lines(
                Head(
                    31,
                    "CPU use",
                    "Share of the node's CPU time that is not idle.",
                    GridPos(h=9, w=12, x=12, y=43),
                ),
                [query(f"1 - avg by (node) (rate({idle}[$__rate_interval]))", "{{node}}")],
                "percentunit",
            )
        )
        .with_panel(
            lines(
                Head(
                    32,
                    "SSH sessions by person",
                    "Open sessions on the chosen nodes.",
                    GridPos(h=9, w=12, x=0, y=52),
                ),
                [query(f"sum by (user) (ssh_sessions{{{SCRAPED}}})", "{{user}}")],
                "short",
            )
        )
        .with_panel(
            lines(
                Head(
                    33,
                    "Device memory by person",
                    "Memory that a person's processes hold on the chosen devices.",
                    GridPos(h=9, w=12, x=12, y=52),
                ),
                [
                    query(
                        "sum by (user) (max by (node, uuid, user)"
                        f" (accelerator_process_memory_bytes{{{SCRAPED_DEVICE}}}))",
                        "{{user}}",
                    )
                ],
                "bytes",
            )
        )
        .with_panel(
            rows(
                Head(
                    34,
                    "Alerts now",
                    "What fires now. Runbooks are in docs/runbooks, one for each alert.",
                    GridPos(h=8, w=WIDTH, x=0, y=61),
                ),
                [query_now(f"max by (alertname, severity, node) (ALERTS{{{ALERT}}})")],
                {"severity": "Severity", "alertname": "Alert", "node": "Node"},
                ["Time", "Value"],
            )
        )
    )


def add_lock(made: builders.Dashboard) -> builders.Dashboard:
    """Add the lock and what the agents do to hold it; ids from 40."""

    def a_minute(by: str, counter: str) -> str:
        return f"60 * sum by ({by}) (rate({counter}{{{SCRAPED}}}[$__rate_interval]))"

    curves = [
        (
            "Age of the policy",
            "Since the agent last heard from booking what the policy is.",
            f"max by (node) (sentinel_agent_policy_age_seconds{{{SCRAPED}}})",
            "{{node}}",
            "s",
        ),
        (
            "Logins granted and refused",
            "Answers of the two gates each minute; get-keys is asked for each key offered.",
            a_minute("result, gate", "sentinel_agent_logins_total"),
            "{{result}} by {{gate}}",
            "cpm",
        ),
        (
            "Sessions ended",
            "SSH connections ended each minute: their user had no running reservation.",
            a_minute("node", "sentinel_agent_sessions_ended_total"),
            "{{node}}",
            "cpm",
        ),
        (
            "Cards put right",
            "Times each minute that a card's device file was not as the agent had set it.",
            a_minute("node", "sentinel_agent_card_repairs_total"),
            "{{node}}",
            "cpm",
        ),
    ]
    made = made.with_row(row("Lock", 104, 69)).with_panel(
        states(
            Head(
                40,
                "Locked",
                "Whether sshd and PAM ask for a reservation, as the agent says.",
                GridPos(h=8, w=WIDTH, x=0, y=70),
            ),
            query(f"max by (node) (sentinel_node_locked{{{NODE}}})", "{{node}}"),
            {"1": ("locked", GREEN), "0": ("not locked", YELLOW)},
        )
    )
    for i, (title, description, expr, legend, unit) in enumerate(curves):
        at = GridPos(h=8, w=12, x=12 * (i % 2), y=78 + 8 * (i // 2))
        head = Head(41 + i, title, description, at)
        made = made.with_panel(lines(head, [query(expr, legend)], unit))
    return made
