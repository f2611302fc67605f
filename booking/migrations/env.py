"""Runs the migrations on the current app's database, in one transaction. Defines no table."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlalchemy import Connection, Engine, inspect, text

from sentinel_booking.errors import SchemaError
from sentinel_booking.models import WRITE_OPTION, UtcDateTime, db
from sentinel_booking.models.guards import guard_problems

# Any number that nothing else in the database uses as an advisory lock.
_LOCK = 0x53454E54


@contextmanager
def _exclusive(engine: Engine) -> Iterator[Connection]:
    """A transaction that waits for any other migration of the same database."""
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            with connection.begin():
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
                yield connection
            return
        # SQLite ignores this pragma inside a transaction, and the engine's own statements
        # always begin one: only the driver's connection can set it.
        driver = connection.connection.driver_connection
        assert driver is not None  # noqa: S101  just connected
        driver.execute("PRAGMA foreign_keys=OFF")
        try:
            with connection.execution_options(**{WRITE_OPTION: True}).begin():
                yield connection
                broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
                if broken:
                    raise SchemaError(f"rows point at rows that do not exist: {broken[:5]}")
        finally:
            driver.execute("PRAGMA foreign_keys=ON")


def _plain_times(kind: str, item: object, _: AutogenContext) -> str | Literal[False]:
    """Write our time type as the column type that it is: a step outlives the models."""
    if kind == "type" and isinstance(item, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    return False


def _migrate(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=db.metadata,
        # SQLite can alter little in place; see README.md before recreating `claims`.
        render_as_batch=connection.dialect.name == "sqlite",
        render_item=_plain_times,
    )
    context.run_migrations()
    if inspect(connection).has_table("claims"):
        problems = guard_problems(connection)
        if problems:
            raise SchemaError("\n".join(problems))


with _exclusive(db.engine) as _connection:
    _migrate(_connection)
