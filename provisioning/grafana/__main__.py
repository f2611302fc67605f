"""Write the dashboards' JSON: `python -m provisioning.grafana`. Asks no Grafana."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from . import lab
from .lab_series import UID

FOLDER = Path(__file__).parent / "json"

# The file's name is the dashboard's uid.
DASHBOARDS: dict[str, Callable[[], Dashboard]] = {UID: lab.build}


def encode(uid: str) -> str:
    """Return the dashboard's JSON, the same for each run."""
    return JSONEncoder(sort_keys=True, indent=2).encode(DASHBOARDS[uid]().build()) + "\n"


def main() -> None:
    """Write all dashboards."""
    for uid in DASHBOARDS:
        (FOLDER / f"{uid}.json").write_text(encode(uid), encoding="utf-8")


if __name__ == "__main__":
    main()
