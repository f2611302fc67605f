"""The real booking server, and a node with the real agent. Asserts nothing."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from apiflask import APIFlask

from tests.booking.lab import add_node, ascend, invite
from tests.booking.page_lab import lab_config
from tests.booking.people import PASSWORD, add_user
from tests.booking.programs import booking_server, migrated_app
from tests.lab.api import Api
from tests.lab.node import Node, Setting, why_not
from tests.lab.wait import wait_for

NODE = "npu-01"


@dataclass
class RealLab:
    """`app` is the server's application, to prepare its database; each person has a card."""

    app: APIFlask
    url: str
    node: Node
    keys: dict[str, Path]
    uuids: dict[str, str]

    def sign_in(self, name: str) -> Api:
        """Return the person at the server's interface."""
        return Api(self.url, name, PASSWORD)

    def start_agent(self, **settings: Setting) -> None:
        """Register the agent and start it; returns when the server has its cards."""
        cards = [ascend(number) for number in range(len(self.uuids))]
        inventory = {"devices": cards, "problems": []}
        self.node.write("/etc/sentinel/inventory.json", json.dumps(inventory))
        command = ["cat", "/etc/sentinel/inventory.json"]
        code = invite(self.app, NODE)
        self.node.register_agent(self.url, code, inventory_command=command, **settings)
        self.node.start_agent()
        anybody = self.sign_in(next(iter(self.keys)))
        wait_for(
            "the cards are reported",
            lambda: len(anybody.get(f"/api/nodes/{NODE}").json()["devices"]) == len(cards),
        )


@contextlib.contextmanager
def real_lab(folder: Path, people: Sequence[str], mode: str) -> Iterator[RealLab]:
    """The node has accounts for the people; sshd and the agent are not started yet."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    config = lab_config(folder)
    app = migrated_app(config)
    add_node(app, NODE, mode=mode)
    for name in people:
        add_user(app, name)
    with (
        Node(NODE, folder) as node,
        booking_server(config, folder, host=node.host_address) as server,
    ):
        keys = {name: node.make_key(name) for name in people}
        for name in people:
            node.add_user(name)
        uuids = {name: str(ascend(number)["uuid"]) for number, name in enumerate(people)}
        yield RealLab(app, server.url, node, keys, uuids)
