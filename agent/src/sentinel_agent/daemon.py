"""Runs the agent's tasks side by side until it is told to stop. It knows no task's work.

Each task has a thread, so that a server that does not answer keeps nobody from being ended.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import queue
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from prometheus_client import start_http_server

from .access import Access
from .accounts import Accounts
from .cache import Cache
from .card_lock import CardLock
from .client import BookingClient
from .clock import Intake
from .config import Config
from .doors import Doorkeeper
from .enforcement import Enforcement
from .errors import AgentError, PolicyRefused, ServerError, StateError
from .granted import GrantedUsers
from .held import HeldPolicy
from .integrity import IntegrityTask
from .lock_task import LockTask
from .logins import Logins, LoginsTask
from .metrics import Metrics
from .registration import load_registration
from .rotation import HeldToken, TokenTask
from .status import Status
from .tasks import (
    ClockTask,
    EnforceTask,
    HeartbeatTask,
    InventoryTask,
    PolicyTask,
    Task,
    backoff_s,
)

log = logging.getLogger(__name__)

# How long a round of enforcement may take before systemd is no longer told that all is well.
STUCK_S = 45.0
WATCHDOG_S = 5.0
# A round that is under way may finish; a request that waits for the server need not.
STOP_WAIT_S = 8.0


class Runner:
    """One task's thread: step, report, wait, again."""

    def __init__(
        self,
        task: Task,
        status: Status,
        metrics: Metrics,
        stop: threading.Event,
        recovered: Callable[[], None] = lambda: None,
    ) -> None:
        """`recovered` is called when a step has worked after one that failed."""
        self._recovered = recovered
        self._task = task
        self._status = status
        self._errors = metrics.task_errors.labels(task.name)
        self._stop = stop
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name=task.name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Make the next step due now."""
        self._wake.set()

    def join(self, timeout_s: float) -> None:
        """Wait for the end of the step under way."""
        self._thread.join(timeout_s)

    def _run(self) -> None:
        failures = 0
        while not self._stop.is_set():
            self._wake.clear()
            try:
                step = self._task.step()
            except Exception as error:  # one failing step must not end the task
                failures += 1
                self._report(error)
                pause_s = backoff_s(failures, self._task.retry_max_s)
                if isinstance(error, ServerError):
                    pause_s = max(pause_s, error.retry_after_s)
            else:
                if failures:
                    self._recovered()
                failures = 0
                pause_s = step.pause_s
                self._status.set_problems(self._task.name, step.problems)
            self._wake.wait(pause_s)

    def _report(self, error: Exception) -> None:
        self._errors.inc()
        if isinstance(error, AgentError):
            log.warning("task failed task=%s reason=%s", self._task.name, error)
            self._status.set_problems(self._task.name, [str(error)])
        else:
            log.error("task failed task=%s", self._task.name, exc_info=error)
            self._status.set_problems(self._task.name, [f"failed: {error!r}"])


def run(config: Config) -> None:
    """Run until SIGTERM or SIGINT. Raises NotRegistered, StateError, ConfigError."""
    with _only_one(config.state_dir):
        _run(config)


def _run(config: Config) -> None:
    registration = load_registration(config.state_dir)
    server = config.server or registration.server
    status = Status()
    # pam-gate reads it beside the cache, and like get-keys no other.
    access = Access(config.cache_file.with_name("access"), server)
    held = HeldPolicy(Cache(config.cache_file, config.cache_group), access, registration)
    granted = GrantedUsers(config.state_dir)
    for load in (held.load, granted.load):
        try:
            load()
        except (StateError, PolicyRefused) as error:
            # The server has it all; until it answers, nobody new is let in.
            log.error("state not read reason=%s", error)
    token = HeldToken(config.state_dir, registration)
    metrics = Metrics(held, status)
    stop = threading.Event()
    # Not the event itself: its lock is not to be taken in a signal handler.
    signals: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: signals.put(received))

    def client() -> BookingClient:
        return BookingClient(server, config.ca_file, token, config.client_files)

    accounts = Accounts(
        min_uid=config.min_uid,
        breakglass_group=config.breakglass_group,
        ignored_users=config.ignored_users,
    )
    accounts.remember_in_group(granted.exempt)
    keeper = Doorkeeper(
        held, granted, limit_s=config.handover_limit_s, may_enforce=config.enforce
    )
    intake = Intake(status.clock, keeper.take)
    cards = CardLock(config, accounts, granted, metrics)
    enforcement = Enforcement(
        config, held=held, keeper=keeper, granted=granted, accounts=accounts,
        cards=cards, status=status, metrics=metrics,
    )  # fmt: skip
    enforce = EnforceTask(config, enforcement)
    enforcer = Runner(enforce, status, metrics, stop)
    locker = Runner(LockTask(config, held, status), status, metrics, stop)

    def policy_came() -> None:
        enforcer.wake()
        locker.wake()

    def looped(task: Task, recovered: Callable[[], None] = lambda: None) -> Runner:
        return Runner(task, status, metrics, stop, recovered)

    asker = looped(PolicyTask(config, client(), intake, status, policy_came))
    runners = [
        enforcer,
        locker,
        asker,
        # It tries the most often: when the server is back, nobody waits for the policy.
        looped(HeartbeatTask(config, client(), held, status), asker.wake),
        looped(InventoryTask(config, client())),
        looped(TokenTask(config, client(), token)),
        looped(ClockTask(intake, policy_came)),
        looped(IntegrityTask(config)),
        looped(LoginsTask(Logins(config.cache_group), metrics)),
    ]
    serve_metrics(config, metrics, status)
    log.info("agent started node=%s server=%s", registration.node, server)
    for runner in runners:
        runner.start()
    cards.start(enforcer.wake)
    notify("READY=1")
    while not _has_come(signals, WATCHDOG_S):
        rounded = status.reconciled_monotonic_s
        if rounded is not None and time.monotonic() - rounded < STUCK_S:
            notify("WATCHDOG=1")
    notify("STOPPING=1")
    stop.set()
    for runner in runners:
        runner.wake()
    enforcer.join(STOP_WAIT_S)
    locker.join(STOP_WAIT_S)
    cards.stop(STOP_WAIT_S)
    log.info("agent stopped node=%s", registration.node)


def _has_come(signals: queue.SimpleQueue[int], timeout_s: float) -> bool:
    try:
        signals.get(timeout=timeout_s)
    except queue.Empty:
        return False
    return True


def serve_metrics(config: Config, metrics: Metrics, status: Status) -> None:
    """Serve the agent's series; a port that is taken is reported and stops nothing else."""
    if not config.metrics_listen:
        return
    host, _, port = config.metrics_listen.rpartition(":")
    try:
        start_http_server(int(port), host.strip("[]"), metrics.registry)
    except OSError as error:
        text = f"cannot listen on {config.metrics_listen}: {error.strerror}"
        log.error("metrics not served reason=%s", text)
        status.set_problems("metrics", [text])


def notify(text: str) -> None:
    """Tell systemd how the service is doing, if it asked: sd_notify(3)."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    # @ stands for the abstract namespace.
    target = f"\0{address[1:]}" if address.startswith("@") else address
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender,
    ):
        sender.sendto(text.encode(), target)


@contextlib.contextmanager
def _only_one(state_dir: Path) -> Iterator[None]:
    """Hold the node's agent lock. Raises StateError when another agent runs."""
    try:
        opened = os.open(
            state_dir / "agent.lock",
            os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW,
            0o600,
        )
    except OSError as error:
        raise StateError(f"cannot use {state_dir}: {error.strerror}") from error
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(opened)
        raise StateError(f"another agent runs with {state_dir}") from None
    try:
        yield
    finally:
        os.close(opened)
