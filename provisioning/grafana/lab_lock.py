"""The row "Lock" of the lab's dashboard: whether it is in place, and what it does."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models.dashboard import GridPos

from .lab_series import NODE, SCRAPED, place, row
from .panels import GREEN, WIDTH, YELLOW, Head, lines, query, states


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
        head = Head(41 + i, title, description, place(i, 78))
        made = made.with_panel(lines(head, [query(expr, legend)], unit))
    return made
