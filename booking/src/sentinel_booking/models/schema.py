"""Creates and upgrades the tables, and says whether they are the ones this version needs.

What the tables hold is the other modules' matter; the steps are in booking/migrations.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import flask_migrate
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from flask import Flask
from sqlalchemy import Connection

from .database import db
from .guards import guard_problems

# A link to booking/migrations in the source tree; the wheel carries the files themselves.
MIGRATIONS_DIR = Path(__file__).resolve().parent.parent / "migrations"

_migrate = flask_migrate.Migrate()


def init_migrations(app: Flask) -> None:
    """Tell Flask-Migrate where the migrations are; `flask db …` works from then on."""
    _migrate.init_app(app, db, directory=str(MIGRATIONS_DIR))


def upgrade_schema(revision: str = "head") -> None:
    """Bring the current app's database to `revision`, creating it when it is empty.

    One transaction; processes that do it at the same moment wait for each other.
    Raises SchemaError, and changes nothing, when the net under the bookings would be lost.
    """
    flask_migrate.upgrade(revision=revision)


def downgrade_schema(revision: str = "base") -> None:
    """Take the current app's database back to `revision`; what newer columns held is lost."""
    flask_migrate.downgrade(revision=revision)


def schema_problems(connection: Connection) -> list[str]:
    """Return why this version cannot work on the database; empty when it can."""
    problems = guard_problems(connection)
    current = MigrationContext.configure(connection).get_current_revision()
    wanted = _newest_revision()
    if current != wanted:
        problems.append(
            f"the tables are at revision {current}, this version needs {wanted}:"
            " run sentinel-booking init-db"
        )
    return problems


@cache
def _newest_revision() -> str | None:
    """Read once: the files do not change under a running server, which is asked often."""
    return ScriptDirectory(str(MIGRATIONS_DIR)).get_current_head()
