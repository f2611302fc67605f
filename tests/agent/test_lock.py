"""The lock on a real sshd: who gets in, and who does not, by whatever way."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.agent.booking_server import make_grant
from tests.agent.conftest import Lab
from tests.lab.node import wait_until

CACHE = "/var/lib/sentinel/policy.json"


def test_a_booked_user_is_let_in_with_the_booked_devices_and_nobody_else_is(lab: Lab) -> None:
    lab.server.grant(make_grant("alice", lab.keys["alice"]))
    lab.start_agent()
    shown = lab.node.ssh("alice", lab.keys["alice"], "echo $ASCEND_RT_VISIBLE_DEVICES")
    assert (shown.returncode, shown.stdout) == (0, "0\n"), shown.stderr
    assert not lab.is_let_in("bob")
    assert lab.is_let_in("ops")
    assert "reason=no running reservation" in lab.node.syslog()
