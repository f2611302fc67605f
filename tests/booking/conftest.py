"""Databases for the booking tests: a SQLite file, and a PostgreSQL of the tests' own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from apiflask import APIFlask

from sentinel_booking.app import create_app
from sentinel_booking.config import Config
from sentinel_booking.models import db
from tests.booking.page_lab import lab_config
from tests.postgres import Postgres


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server in its own folder, on a Unix socket; ended with the tests."""
    server = Postgres()
    server.start()
    yield server
    server.stop()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database of each kind: the same tests run on both."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'booking.db'}"
        return
    server: Postgres = request.getfixturevalue("postgres")
    url = server.create_database()
    yield url
    server.drop_database(url)


@pytest.fixture
def config(database_url: str, tmp_path: Path) -> Config:
    """A complete configuration on that database."""
    return lab_config(tmp_path, database_url=database_url)


@pytest.fixture
def app(config: Config) -> APIFlask:
    """The application on an empty database with all tables."""
    app = create_app(config)
    with app.app_context():
        db.create_all()
    return app
