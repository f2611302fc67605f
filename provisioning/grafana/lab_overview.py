"""The rows "Overview" and "Booked and used" of the lab's dashboard."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models.dashboard import GridPos

from .lab_series import ALERT, DEVICE, NODE, SCRAPED, row
from .panels import BLUE, GREEN, RED, YELLOW, Head, lines, number, query, states


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
