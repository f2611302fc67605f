"""The net under the bookings: what makes the database itself refuse overlapping claims.

SQLAlchemy's metadata cannot express it for both databases, and Alembic's autogenerate does
not notice when it is gone (a batch recreate of `claims` drops the triggers without a word).
So it is written here once, and `guard_problems` compares it with what the database has.
It knows no reservation.
"""

from __future__ import annotations

import re

from sqlalchemy import Connection, Engine, event, inspect, text

from ..errors import SchemaError
from .reservation import Claim

CONSTRAINT = "ex_claims_overlap"
# What the triggers' error says; the services recognise it by this.
OVERLAP_MESSAGE = "claims overlap"

# An empty interval overlaps nothing, as in PostgreSQL's range types. The times are text on
# SQLite, and compare rightly only in the one form that UtcDateTime writes.
_TRIGGER_BODY = f"""
    SELECT RAISE(ABORT, 'claim times must look like 2026-01-31 12:00:00.000000')
    WHERE NEW.starts NOT GLOB '????-??-?? ??:??:??.??????'
        OR NEW.ends NOT GLOB '????-??-?? ??:??:??.??????';
    SELECT RAISE(ABORT, '{OVERLAP_MESSAGE}')
    WHERE NEW.is_active AND NEW.starts < NEW.ends AND EXISTS (
        SELECT 1 FROM claims
        WHERE claims.node_id = NEW.node_id AND claims.ends > NEW.starts
        AND claims.starts < NEW.ends AND claims.starts < claims.ends AND claims.is_active
        AND claims.slot_lo < NEW.slot_hi AND NEW.slot_lo < claims.slot_hi{{others}}
    );
"""  # noqa: S608  constants only
SQLITE_TRIGGERS = {
    "claims_overlap_insert": "CREATE TRIGGER claims_overlap_insert BEFORE INSERT ON claims\n"
    "BEGIN" + _TRIGGER_BODY.format(others="") + "END",
    "claims_overlap_update": "CREATE TRIGGER claims_overlap_update BEFORE UPDATE ON claims\n"
    "BEGIN" + _TRIGGER_BODY.format(others="\n        AND claims.id != OLD.id") + "END",
}

# btree_gist gives the integer columns an operator class for GiST; it is a trusted extension
# since PostgreSQL 13, so the database's owner may create it.
POSTGRESQL_EXTENSION = "CREATE EXTENSION IF NOT EXISTS btree_gist"
POSTGRESQL_DEFINITION = (
    "EXCLUDE USING gist (node_id WITH =, int4range(slot_lo, slot_hi) WITH &&,"
    " tstzrange(starts, ends, '[)'::text) WITH &&) WHERE (is_active)"
)
POSTGRESQL_CONSTRAINT = (
    f"ALTER TABLE claims ADD CONSTRAINT {CONSTRAINT} {POSTGRESQL_DEFINITION}"
)


def guard_problems(connection: Connection) -> list[str]:
    """Return what is missing or not as written here; empty when the net holds."""
    if not inspect(connection).has_table("claims"):
        return ["the tables do not exist: run sentinel-booking init-db"]
    if connection.dialect.name == "sqlite":
        return _sqlite_problems(connection)
    return _postgresql_problems(connection)


def check_guards(engine: Engine) -> None:
    """Refuse a database that would not itself refuse overlapping claims.

    Raises SchemaError with every problem, one on a line.
    """
    with engine.connect() as connection:
        problems = guard_problems(connection)
    if problems:
        raise SchemaError("\n".join(problems))


def _sqlite_problems(connection: Connection) -> list[str]:
    rows = connection.execute(
        text("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'")
    )
    found: dict[str, str] = {row.name: row.sql for row in rows}
    problems = []
    for name, wanted in SQLITE_TRIGGERS.items():
        if name not in found:
            problems.append(f"trigger {name} is missing")
        elif _squeeze(found[name]) != _squeeze(wanted):
            problems.append(f"trigger {name} differs from what this version needs")
    return problems


def _postgresql_problems(connection: Connection) -> list[str]:
    row = connection.execute(
        text(
            "SELECT pg_get_constraintdef(c.oid), i.indisvalid AND NOT c.condeferrable"
            " FROM pg_constraint c JOIN pg_index i ON i.indexrelid = c.conindid"
            " WHERE c.conrelid = 'claims'::regclass AND c.conname = :name"
        ),
        {"name": CONSTRAINT},
    ).one_or_none()
    if row is None:
        return [f"constraint {CONSTRAINT} is missing"]
    definition, is_usable = row
    if _squeeze(definition) != _squeeze(POSTGRESQL_DEFINITION) or not is_usable:
        return [f"constraint {CONSTRAINT} differs from what this version needs"]
    return []


def _squeeze(sql: str) -> str:
    """White space and the schema's name carry no meaning here."""
    return re.sub(r"\s+", "", sql.replace("public.", ""))


@event.listens_for(Claim.__table__, "after_create")
def _add_with_the_table(_table: object, connection: Connection, **_options: object) -> None:
    """Let create_all make the net too, so that no database is ever without it."""
    if connection.dialect.name == "sqlite":
        statements = list(SQLITE_TRIGGERS.values())
    else:
        statements = [POSTGRESQL_EXTENSION, POSTGRESQL_CONSTRAINT]
    for statement in statements:
        connection.exec_driver_sql(statement)
