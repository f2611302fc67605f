"""The real booking server, for agents and parts of agents that talk to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from apiflask import APIFlask

from tests.booking.page_lab import lab_config
from tests.booking.programs import booking_server, migrated_app


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[APIFlask, str]]:
    """The server's address, and the application that prepares its database."""
    folder = tmp_path_factory.mktemp("booking")
    config = lab_config(folder)
    app = migrated_app(config)
    with booking_server(config, folder, workers=1) as running:
        yield app, running.url
