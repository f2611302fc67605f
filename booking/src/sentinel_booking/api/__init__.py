"""The JSON interface. Views hold no SQL."""

from __future__ import annotations

from apiflask.schema_adapters import registry

from .input import StrictInput

# Before any view is declared: APIFlask picks the adapter when a view names its schema.
registry.register("pydantic", StrictInput)

# One line for each module; each has a blueprint named `bp`.
BLUEPRINT_MODULES = (
    "agent",
    "alerts",
    "audit",
    "auth",
    "calendar",
    "health",
    "me",
    "metrics",
    "nodes",
    "reservations",
    "sd",
    "users",
)
