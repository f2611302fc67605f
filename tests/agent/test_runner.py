"""Threads that fail, hang and die: what is reported, and what goes on."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sentinel_agent.errors import StateError, TaskDied
from sentinel_agent.policy.access import Access
from sentinel_agent.policy.cache import Cache
from sentinel_agent.policy.held import HeldPolicy
from sentinel_agent.server.registration import Registration
from sentinel_agent.service.journal import unhurried_logging
from sentinel_agent.service.metrics import Metrics
from sentinel_agent.service.runner import Runner, look_after
from sentinel_agent.service.status import Status
from sentinel_agent.service.tasks import Step
from tests.agent.policies import NOON
from tests.lab.wait import wait_for


class Task:
    """Does what it is told to."""

    name = "lookout"
    retry_max_s = 0.05

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.steps = 0
        self.go_on = threading.Event()
        self.go_on.set()

    def step(self) -> Step:
        """Fail or hang, if told so."""
        self.steps += 1
        self.go_on.wait()
        if self.error is not None:
            raise self.error
        return Step(0.01)


class Lab:
    """One task in its thread, and what is known of it."""

    def __init__(self, folder: Path) -> None:
        self.task, self.status, self.stop = Task(), Status(), threading.Event()
        files = Cache(folder / "policy.json", "root"), Access(folder / "access")
        held = HeldPolicy(*files, Registration("gpu-01", "token", "http://server", NOON))
        self.metrics = Metrics(held, self.status)

    def start(self, *, is_vital: bool = False) -> Runner:
        runner = Runner(
            self.task, self.status, self.metrics, self.stop, stuck_s=0.2, is_vital=is_vital
        )
        self.metrics.watch([runner])
        runner.start()
        return runner

    def sample(self, name: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, {"task": "lookout"})


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(tmp_path)
    yield lab
    lab.stop.set()
    lab.task.go_on.set()


def test_a_task_that_fails_is_reported_and_tried_again(lab: Lab) -> None:
    lab.task.error = StateError("the disk is full")
    lab.start()
    wait_for("it is tried again", lambda: lab.task.steps > 2)
    assert lab.status.problems() == ["lookout: the disk is full"]
    assert lab.sample("sentinel_agent_task_errors_total")
    assert lab.sample("sentinel_agent_last_error_timestamp_seconds")
    lab.task.error = None
    wait_for("all is well", lambda: lab.status.problems() == [])
    # When it was stays known.
    assert lab.sample("sentinel_agent_last_error_timestamp_seconds")


def test_a_task_that_hangs_is_named_and_is_no_reason_to_start_anew(lab: Lab) -> None:
    runner = lab.start()
    wait_for("it runs", lambda: lab.task.steps > 2)
    assert look_after([runner], lab.status)
    assert lab.sample("sentinel_agent_task_stuck") == 0
    lab.task.go_on.clear()
    wait_for("it hangs", lambda: runner.is_stuck)
    assert look_after([runner], lab.status)
    assert lab.status.problems() == ["watch: lookout has hung for 0 s"]
    assert lab.sample("sentinel_agent_task_stuck") == 1
    lab.task.go_on.set()
    wait_for("it goes on", lambda: not runner.is_stuck)
    assert look_after([runner], lab.status)
    assert lab.status.problems() == []


def test_systemd_is_not_told_that_all_is_well_when_the_enforcing_task_hangs(lab: Lab) -> None:
    runner = lab.start(is_vital=True)
    assert look_after([runner], lab.status)
    lab.task.go_on.clear()
    wait_for("it hangs", lambda: runner.is_stuck)
    assert not look_after([runner], lab.status)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_dies_ends_the_agent(lab: Lab) -> None:
    """No exception of a step's can do it; this one is no Exception."""
    lab.task.error = KeyboardInterrupt()
    runner = lab.start()
    wait_for("it is dead", lambda: not runner.is_alive)
    with pytest.raises(TaskDied, match="lookout"):
        look_after([runner], lab.status)


def test_a_log_that_nobody_reads_stops_nobody() -> None:
    reader, writer = os.pipe()
    root = logging.getLogger()
    with os.fdopen(writer, "w") as pipe:
        before, root.handlers[:] = root.handlers[:], [logging.StreamHandler(pipe)]
        try:
            with unhurried_logging():
                # Twenty times what the pipe takes.
                talker = threading.Thread(target=talk, daemon=True)
                talker.start()
                wait_for("all is said", lambda: not talker.is_alive(), timeout_s=10)
                # Only now somebody reads.
                threading.Thread(target=drain, args=(reader,), daemon=True).start()
        finally:
            root.handlers[:] = before


def talk() -> None:
    for _ in range(1300):
        logging.getLogger().error("%s", "x" * 1000)


def drain(reader: int) -> None:
    while os.read(reader, 65536):
        pass
