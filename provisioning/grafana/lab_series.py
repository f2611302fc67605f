"""What the rows of the dashboard "Lab overview" share: which series, headings and places."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models.dashboard import GridPos

from .panels import WIDTH

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

# Of a node's name in a table: its title, and where it leads.
TO_NODE = ("Show this node", f"/d/{UID}/?var-node=${{__value.raw}}&${{__url_time_range}}")


def row(title: str, panel_id: int, y: int) -> builders.Row:
    """Return a heading."""
    return builders.Row(title).id(panel_id).grid_pos(GridPos(h=1, w=WIDTH, x=0, y=y))


def place(number: int, y: int, height: int = 8) -> GridPos:
    """Return a panel's place, counted from 0, where they stand two by two from `y` on."""
    below, beside = divmod(number, 2)
    return GridPos(h=height, w=WIDTH // 2, x=WIDTH // 2 * beside, y=y + height * below)
