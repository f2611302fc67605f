"""The application for a WSGI server; its settings come from SENTINEL_BOOKING_CONFIG."""

from __future__ import annotations

from .app import create_app
from .config import config_path_from_environment, load_config

app = create_app(load_config(config_path_from_environment()))
