"""What gunicorn must do for us at the ends of a process. It serves nothing itself.

prometheus_client chooses its storage when it is first imported, so nothing here imports it,
or anything that does, at module level.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import shutil
import signal
import tempfile
import threading
from pathlib import Path
from types import FrameType
from typing import Any

# linux/prctl.h
PR_SET_PDEATHSIG = 1


def prepare_metrics_dir() -> Path:
    """Make an empty folder for the processes' counters, removed when this process ends.

    Call it in the master before prometheus_client is imported. Always a new folder: the
    counters of an earlier run would be added to ours.
    """
    folder = Path(tempfile.mkdtemp(prefix="sentinel-booking-metrics-"))
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    owner = os.getpid()

    def remove() -> None:
        # Workers are forks and inherit this.
        if os.getpid() == owner:
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return folder


def child_exit(_server: object, worker: Any) -> None:  # gunicorn is untyped
    """Forget what a worker that has ended would still show as live."""
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def post_fork(_server: object, _worker: object) -> None:
    """Let a worker end with the master, however that ends.

    Gunicorn's workers notice a killed master by and by and keep its port meanwhile, so that
    the next master cannot start. The kernel tells them at once (prctl(2)).
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def post_worker_init(worker: Any) -> None:  # gunicorn is untyped
    """Let waiting policy requests go when the worker is told to end.

    Otherwise each restart takes as long as the longest wait, or cuts the waiters off.
    """
    from .services.policy_watch import policy_watch_of

    watch = policy_watch_of(worker.wsgi)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        _before(number, watch.release)


def _before(number: signal.Signals, action: Any) -> None:
    ours = signal.getsignal(number)

    def handle(received: int, frame: FrameType | None) -> None:
        # In a thread: a handler may have interrupted whoever holds the lock it needs.
        threading.Thread(target=action, daemon=True).start()
        if callable(ours):
            ours(received, frame)

    signal.signal(number, handle)
