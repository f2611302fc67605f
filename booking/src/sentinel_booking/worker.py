"""Does the due work, in one process at a time. What is due is decided in services."""

from __future__ import annotations

import datetime as dt
import logging
import os
import secrets
import signal
import socket
import threading
from collections.abc import Callable, Mapping

from flask import Flask

from .models import db
from .services.housekeeping import STEPS
from .services.leases import take_lease

log = logging.getLogger(__name__)

LEASE = "due-work"
_PERIOD_S = 60.0
# Long enough for the longest step; a worker that dies is replaced after it.
_LEASE_LASTS = dt.timedelta(minutes=5)


def run_worker(app: Flask) -> None:
    """Do the due work once a minute until SIGTERM or SIGINT."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    owner = f"{socket.gethostname()[:32]}:{os.getpid()}:{secrets.token_hex(4)}"
    log.info("worker started owner=%s", owner)
    while not stop.is_set():
        with app.app_context():
            do_due_work(owner, STEPS)
        stop.wait(_PERIOD_S)
    log.info("worker stopped owner=%s", owner)


def do_due_work(owner: str, steps: Mapping[str, Callable[[], int]]) -> bool:
    """Run the steps if `owner` gets the lease; False when another worker has it.

    The lease is renewed before each step. A step that fails holds up no other one.
    """
    for name, step in steps.items():
        try:
            if not take_lease(LEASE, owner, _LEASE_LASTS):
                return False
            count = step()
            if count:
                log.info("due work step=%s count=%d", name, count)
        except Exception:
            # The loop's boundary: it is tried again in a minute.
            log.exception("due work failed step=%s", name)
            db.session.rollback()
    return True
