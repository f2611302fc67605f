"""The migrations make what the models describe, and the net under the bookings stays."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import flask_migrate
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from flask import Flask
from sqlalchemy import inspect, select, text

from sentinel_booking.app import create_app
from sentinel_booking.cli import main
from sentinel_booking.config import Config
from sentinel_booking.errors import SchemaError
from sentinel_booking.models import (
    Node,
    check_guards,
    db,
    downgrade_schema,
    guard_problems,
    schema_problems,
    upgrade_schema,
    write,
)
from sentinel_booking.models.schema import MIGRATIONS_DIR

RECREATE_CLAIMS = """
import sqlalchemy as sa
from alembic import op
revision, down_revision = "9999", "0002"
def upgrade():
    with op.batch_alter_table("claims", recreate="always") as batch:
        batch.add_column(sa.Column("note", sa.String(10)))
"""


@pytest.fixture
def bare_app(config: Config) -> Flask:
    """The application on a database without tables."""
    return create_app(config)


def test_the_migrations_make_what_the_models_describe(bare_app: Flask) -> None:
    with bare_app.app_context():
        upgrade_schema()
        with db.engine.connect() as connection:
            context = MigrationContext.configure(connection)
            assert compare_metadata(context, db.metadata) == []
            assert schema_problems(connection) == []


def test_checks_and_net_are_the_same_with_and_without_migrations(
    bare_app: Flask, config: Config, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    # Autogenerate compares neither CHECK constraints nor triggers nor the exclusion constraint.
    if config.database_url.startswith("sqlite"):
        other_url = f"sqlite:///{tmp_path / 'other.db'}"
    else:
        other_url = request.getfixturevalue("postgres").create_database()
    other_app = create_app(config.model_copy(update={"database_url": other_url}))
    with bare_app.app_context():
        upgrade_schema()
        migrated = _checks()
        check_guards(db.engine)
    with other_app.app_context():
        db.create_all()
        assert _checks() == migrated
        check_guards(db.engine)
    assert ("claims", "ck_claims_interval") in {(table, name) for table, name, _ in migrated}


def _checks() -> list[tuple[str, str, str]]:
    inspector = inspect(db.engine)
    return sorted(
        (table, str(check["name"]), str(check["sqltext"]))
        for table in inspector.get_table_names()
        for check in inspector.get_check_constraints(table)
    )


def test_a_downgrade_takes_everything_away_and_an_upgrade_brings_it_back(
    bare_app: Flask,
) -> None:
    with bare_app.app_context():
        upgrade_schema()
        downgrade_schema()
        assert inspect(db.engine).get_table_names() == ["alembic_version"]
        upgrade_schema()
        check_guards(db.engine)


def test_nodes_that_are_known_already_keep_their_token_both_ways(bare_app: Flask) -> None:
    read = text("SELECT name, token_hash FROM nodes")
    with bare_app.app_context():
        upgrade_schema("0001")
        with db.engine.begin() as connection:
            connection.execute(
                text(
                    "INSERT INTO nodes (name, address, bmc_address, cluster, tags, mode,"
                    " is_monitored, booking_seq, policy_version, token_hash, agent_version,"
                    " agent_report, next_slot, created_at) VALUES ('gpu1', '', '', '', '[]',"
                    " 'observe', true, 0, 1, 'abc', '', '{}', 0, '2026-01-01 00:00:00')"
                )
            )
        upgrade_schema()
        with write() as session:
            node = session.scalars(select(Node)).one()
            assert (node.token_hash, node.next_token_hash) == ("abc", None)
            assert (node.boots, node.cloned_at) == ([], None)
        db.session.remove()
        downgrade_schema("0001")
        with db.engine.connect() as connection:
            assert connection.execute(read).all() == [("gpu1", "abc")]
        upgrade_schema()
        check_guards(db.engine)


def test_two_upgrades_at_once_both_succeed(bare_app: Flask, config: Config) -> None:
    # Several containers may run init-db when they start.
    apps = [bare_app, create_app(config)]
    failures: list[BaseException] = []

    def upgrade(app: Flask) -> None:
        try:
            with app.app_context():
                upgrade_schema()
        except BaseException as error:  # collected: a thread's error is not the test's
            failures.append(error)

    # Alembic keeps its context in module globals, so one process can run only one at a time;
    # the other one stands for another process: a transaction that holds the same lock.
    with bare_app.app_context():
        holder = db.engine.connect()
        if db.engine.dialect.name == "sqlite":
            driver = holder.connection.driver_connection
            assert driver is not None
            driver.execute("BEGIN IMMEDIATE")
        else:
            holder.execute(text("SELECT pg_advisory_xact_lock(:n)"), {"n": 0x53454E54})
        thread = threading.Thread(target=upgrade, args=(apps[1],))
        thread.start()
        thread.join(timeout=0.5)
        assert thread.is_alive(), "the upgrade must wait for the other one"
        holder.invalidate()
        holder.close()
        thread.join()
        assert failures == []
        check_guards(db.engine)


def test_an_empty_database_is_refused_at_start(bare_app: Flask) -> None:
    with bare_app.app_context(), pytest.raises(SchemaError, match="init-db"):
        check_guards(db.engine)


def test_a_database_of_another_revision_is_named(bare_app: Flask) -> None:
    with bare_app.app_context():
        db.create_all()
        with db.engine.connect() as connection:
            (problem,) = schema_problems(connection)
    assert "revision None" in problem


@pytest.mark.parametrize("trigger", ["claims_overlap_insert", "claims_overlap_update"])
def test_a_lost_or_weakened_trigger_is_found(
    trigger: str, config: Config, bare_app: Flask
) -> None:
    if not config.database_url.startswith("sqlite"):
        pytest.skip("triggers are SQLite's net")
    moment = "INSERT" if trigger.endswith("insert") else "UPDATE"
    with bare_app.app_context():
        upgrade_schema()
        with db.engine.begin() as connection:
            connection.execute(text(f"DROP TRIGGER {trigger}"))
        with pytest.raises(SchemaError, match=f"{trigger} is missing"):
            check_guards(db.engine)
        with db.engine.begin() as connection:
            connection.execute(
                text(f"CREATE TRIGGER {trigger} BEFORE {moment} ON claims BEGIN SELECT 1; END")
            )
        with pytest.raises(SchemaError, match=f"{trigger} differs"):
            check_guards(db.engine)


def test_a_lost_or_weakened_constraint_is_found(config: Config, bare_app: Flask) -> None:
    if config.database_url.startswith("sqlite"):
        pytest.skip("the exclusion constraint is PostgreSQL's net")
    with bare_app.app_context():
        upgrade_schema()
        with db.engine.begin() as connection:
            connection.execute(text("ALTER TABLE claims DROP CONSTRAINT ex_claims_overlap"))
        with pytest.raises(SchemaError, match="ex_claims_overlap is missing"):
            check_guards(db.engine)
        with db.engine.begin() as connection:
            connection.execute(
                text(
                    "ALTER TABLE claims ADD CONSTRAINT ex_claims_overlap"
                    " EXCLUDE USING gist (node_id WITH =, slot_lo WITH =,"
                    " tstzrange(starts, ends) WITH &&) WHERE (is_active)"
                )
            )
        with pytest.raises(SchemaError, match="ex_claims_overlap differs"):
            check_guards(db.engine)


def test_a_migration_that_loses_the_net_changes_nothing(
    bare_app: Flask, tmp_path: Path
) -> None:
    folder = tmp_path / "migrations"
    shutil.copytree(MIGRATIONS_DIR, folder)
    with bare_app.app_context():
        upgrade_schema()
        (folder / "versions" / "9999_recreate.py").write_text(RECREATE_CLAIMS)
        with pytest.raises(SchemaError, match="is missing"):
            flask_migrate.upgrade(directory=str(folder))
        assert "note" not in {
            column["name"] for column in inspect(db.engine).get_columns("claims")
        }
        with db.engine.connect() as connection:
            assert guard_problems(connection) == []
            assert schema_problems(connection) == []


def test_a_database_without_the_net_is_neither_ready_nor_upgraded(
    bare_app: Flask, config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lose = (
        "DROP TRIGGER claims_overlap_update"
        if config.database_url.startswith("sqlite")
        else "ALTER TABLE claims DROP CONSTRAINT ex_claims_overlap"
    )
    client = bare_app.test_client()
    assert client.get("/readyz").status_code == 503
    with bare_app.app_context():
        upgrade_schema()
        assert client.get("/readyz").status_code == 200
        with db.engine.begin() as connection:
            connection.execute(text(lose))
    assert client.get("/readyz").status_code == 503
    file = tmp_path / "booking.toml"
    settings = config.model_dump(mode="json", include=config.model_fields_set)
    file.write_text("".join(f"{name} = '{value}'\n" for name, value in settings.items()))
    assert main(["--config", str(file), "init-db"]) == 1
    assert "claims_overlap" in capsys.readouterr().err.replace("ex_claims", "claims")
