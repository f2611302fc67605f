"""The whole system for the end-to-end tests: script/up on this side, a node beyond a cable."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.lab_node import LabNode
from tests.lab.mail import MailBox
from tests.lab.node import Node, why_not
from tests.lab.ports import free_ports
from tests.lab.system import System


@pytest.fixture
def mailbox() -> Iterator[MailBox]:
    """The operators' mail server."""
    box = MailBox("127.0.0.1", free_ports(1)[0])
    box.start()
    yield box
    box.stop()


@pytest.fixture
def lab_node(tmp_path: Path) -> Iterator[LabNode]:
    """A node with sshd under the lock, accounts for alice and bob, and its exporters."""
    reason = why_not()
    if reason is not None:
        pytest.fail(reason)
    with Node("npu-01", tmp_path) as node:
        node.add_user("alice")
        node.add_user("bob")
        node.install_lock()
        node.start_sshd()
        lab = LabNode(node)
        lab.start_exporters()
        yield lab
        lab.stop_services()


@pytest.fixture
def system(tmp_path: Path, lab_node: LabNode, mailbox: MailBox) -> Iterator[System]:
    """Everything that script/up starts, reachable from the node."""
    system = System(
        tmp_path / "up", lab_node.node.host_address, smtp_port=mailbox.port, offline_for="5s"
    )
    try:
        system.start()
        yield system
    finally:
        system.stop()
        (tmp_path / "up.log").write_text(system.text())
