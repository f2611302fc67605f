"""The real booking server, for agents and parts of agents that talk to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from apiflask import APIFlask

from tests.booking.programs import booking_server, migrated_app
from tests.contract.real_lab import config_in


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[APIFlask, str]]:
    """The server's address, and the application that prepares its database."""
    folder = tmp_path_factory.mktemp("booking")
    config = config_in(folder)
    app = migrated_app(config)
    with booking_server(config, folder, workers=1) as running:
        yield app, running.url
