"""Runs the agent's tasks side by side until it is told to stop. It knows no task's work.

Each task has a thread, so that a server that does not answer keeps nobody from being ended.
"""

from __future__ import annotations

import faulthandler
import logging
import queue
import signal
import threading
from collections.abc import Callable

from ..accounts import Accounts
from ..cards.card_lock import CardLock
from ..config import Config
from ..errors import PolicyRefused, StateError
from ..files import sole_agent
from ..gates.integrity import IntegrityTask
from ..gates.logins import Logins, LoginsTask
from ..lock.task import LockTask
from ..policy.access import Access
from ..policy.cache import Cache
from ..policy.clock import Intake
from ..policy.held import HeldPolicy
from ..server.client import BookingClient
from ..server.registration import load_registration
from ..server.rotation import HeldToken, TokenTask
from ..sessions.doors import Doorkeeper
from ..sessions.enforcement import Enforcement
from ..sessions.granted import GrantedUsers
from .journal import unhurried_logging
from .metrics import Metrics
from .metrics_server import serve_metrics
from .runner import VITAL_STUCK_S, Runner, look_after
from .status import Status
from .systemd import notify
from .tasks import (
    ClockTask,
    EnforceTask,
    FilesTask,
    HeartbeatTask,
    InventoryTask,
    PolicyTask,
    Task,
)

log = logging.getLogger(__name__)

WATCH_S = 5.0
# A round that is under way may finish; a request that waits for the server need not.
STOP_WAIT_S = 8.0


def run(config: Config) -> None:
    """Run until SIGTERM or SIGINT. Raises NotRegistered, StateError, TaskDied."""
    # systemd's watchdog ends what is stuck by SIGABRT: the log then says where each thread was.
    faulthandler.enable()
    with sole_agent(config.state_dir) as is_alone, unhurried_logging():
        if not is_alone:
            raise StateError(f"another agent runs with {config.state_dir}")
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
    filer = Runner(FilesTask(config, keeper), status, metrics, stop)
    enforcement = Enforcement(
        config, held=held, keeper=keeper, granted=granted, accounts=accounts,
        cards=cards, status=status, metrics=metrics, write_soon=filer.wake,
        is_clock_off=lambda: intake.is_off,
    )  # fmt: skip
    enforce = EnforceTask(config, enforcement)
    enforcer = Runner(enforce, status, metrics, stop, is_vital=True, stuck_s=VITAL_STUCK_S)
    locker = Runner(LockTask(config, held, status), status, metrics, stop)

    def policy_came() -> None:
        enforcer.wake()
        locker.wake()

    def looped(task: Task, recovered: Callable[[], None] = lambda: None) -> Runner:
        return Runner(task, status, metrics, stop, recovered=recovered)

    asker = looped(PolicyTask(config, client(), intake, status, policy_came))
    runners = [
        enforcer,
        filer,
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
    metrics.watch(runners)
    serve_metrics(config.metrics_listen, metrics, status)
    log.info("agent started node=%s server=%s", registration.node, server)
    for runner in runners:
        runner.start()
    cards.start(enforcer.wake)
    notify("READY=1")
    while not _has_come(signals, WATCH_S):
        if look_after(runners, status):
            notify("WATCHDOG=1")
    notify("STOPPING=1")
    stop.set()
    for runner in runners:
        runner.wake()
    enforcer.join(STOP_WAIT_S)
    for runner in (filer, locker):
        runner.join(STOP_WAIT_S)
    cards.stop(STOP_WAIT_S)
    log.info("agent stopped node=%s", registration.node)


def _has_come(signals: queue.SimpleQueue[int], timeout_s: float) -> bool:
    try:
        signals.get(timeout=timeout_s)
    except queue.Empty:
        return False
    return True
