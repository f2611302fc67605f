"""Tells booking, once and for the last time, that this node is open. It waits for nobody."""

from __future__ import annotations

import queue
import threading

from ..config import Config
from ..errors import AgentError
from ..policy.access import Access
from ..policy.cache import Cache
from ..policy.held import HeldPolicy
from ..server.client import BookingClient
from ..server.registration import Registration, load_registration
from ..server.rotation import HeldToken
from ..service.status import Status
from ..service.tasks import HeartbeatTask

WAIT_S = 3.0
PROBLEM = "the lock was taken off this node by `sentinel-agent uninstall`"


def tell_open(config: Config) -> str:
    """Send a heartbeat with the lock `open`; return why it was not taken, empty when it was."""
    try:
        known = load_registration(config.state_dir)
    except AgentError:
        return "the node is not registered"
    # What came of it: why it failed, or nothing.
    outcome: queue.SimpleQueue[str] = queue.SimpleQueue()

    def send() -> None:
        try:
            _send(config, known)
        except Exception as error:  # whatever it is, uninstall goes on
            outcome.put(str(error))
        else:
            outcome.put("")

    # The client's own limits are longer, and a name server that is silent has none.
    threading.Thread(target=send, daemon=True).start()
    try:
        return outcome.get(timeout=WAIT_S)
    except queue.Empty:
        return f"no answer within {WAIT_S:g} s"


def _send(config: Config, known: Registration) -> None:
    server = config.server or known.server
    client = BookingClient(
        server, config.ca_file, HeldToken(config.state_dir, known), config.client_files
    )
    # Without a policy: it is to be forgotten.
    access = Access(config.cache_file.with_name("access"), server)
    held = HeldPolicy(Cache(config.cache_file, config.cache_group), access, known)
    status = Status(lock="open")
    status.set_problems("uninstall", [PROBLEM])
    try:
        HeartbeatTask(config, client, held, status).step()
    finally:
        client.close()
