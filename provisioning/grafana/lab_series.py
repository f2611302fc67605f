"""What the rows of the dashboard "Lab overview" share: which series, and their headings."""

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


def row(title: str, panel_id: int, y: int) -> builders.Row:
    """Return a heading."""
    return builders.Row(title).id(panel_id).grid_pos(GridPos(h=1, w=WIDTH, x=0, y=y))
