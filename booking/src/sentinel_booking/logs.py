"""Where log lines go: standard error, for journald, which adds the time. Nothing else."""

from __future__ import annotations

import logging
import sys


def init_logging() -> None:
    """Send everything from INFO on to standard error."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s %(message)s"
    )
    # It reports its plugins and its database at every look.
    logging.getLogger("alembic").setLevel(logging.WARNING)
