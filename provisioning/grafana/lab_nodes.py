"""The row "Nodes, people and alerts" of the lab's dashboard."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models.dashboard import GridPos

from .lab_series import ALERT, NODE, SCRAPED, SCRAPED_DEVICE, place, row
from .panels import GREEN, RED, WIDTH, Head, lines, query, query_now, rows, states


def add_nodes(made: builders.Dashboard) -> builders.Dashboard:
    """Add nodes, people and alerts; ids from 30."""
    idle = f'node_cpu_seconds_total{{{SCRAPED},mode="idle"}}'
    held = f"accelerator_process_memory_bytes{{{SCRAPED_DEVICE}}}"
    curves = [
        (
            "CPU use",
            "Share of the node's CPU time that is not idle.",
            f"1 - avg by (node) (rate({idle}[$__rate_interval]))",
            "{{node}}",
            "percentunit",
        ),
        (
            "SSH sessions by person",
            "Open sessions on the chosen nodes.",
            f"sum by (user) (ssh_sessions{{{SCRAPED}}})",
            "{{user}}",
            "short",
        ),
        (
            "Device memory by person",
            "Memory that a person's processes hold on the chosen devices.",
            f"sum by (user) (max by (node, uuid, user) ({held}))",
            "{{user}}",
            "bytes",
        ),
    ]
    made = made.with_row(row("Nodes, people and alerts", 103, 42)).with_panel(
        states(
            Head(
                30,
                "Nodes",
                "Whether the node's exporter answers Prometheus.",
                place(0, 43, height=9),
            ),
            query(f"node:agent_up:max{{{NODE}}}", "{{node}}"),
            {"1": ("up", GREEN), "0": ("down", RED)},
        )
    )
    for i, (title, description, expr, legend, unit) in enumerate(curves, 1):
        head = Head(30 + i, title, description, place(i, 43, height=9))
        made = made.with_panel(lines(head, [query(expr, legend)], unit))
    return made.with_panel(
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
