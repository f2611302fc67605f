"""One thread for each task: step, report, wait, again. It knows no task's work."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from ..errors import AgentError, ServerError, TaskDied
from .metrics import Metrics
from .status import Status
from .tasks import Task, backoff_s

log = logging.getLogger(__name__)

# A step that takes longer hangs. The longest that is none waits for the server's answer.
STUCK_S = 180.0
# A round of enforcement waits for nothing but, at times, the name service and the disk.
VITAL_STUCK_S = 20.0


class Runner:
    """One task's thread: step, report, wait, again."""

    def __init__(
        self,
        task: Task,
        status: Status,
        metrics: Metrics,
        stop: threading.Event,
        *,
        recovered: Callable[[], None] = lambda: None,
        is_vital: bool = False,
        stuck_s: float = STUCK_S,
    ) -> None:
        """`recovered` is called when a step has worked after one that failed.

        `is_vital`: when it hangs, the agent has to be started anew. A step that takes longer
        than `stuck_s` hangs.
        """
        self._stuck_s = stuck_s
        self.is_vital = is_vital
        self._recovered = recovered
        self._began_s: float | None = None
        self._task = task
        self._status = status
        self._errors = metrics.task_errors.labels(task.name)
        self._stop = stop
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name=task.name, daemon=True)

    @property
    def name(self) -> str:
        """The task's name."""
        return self._task.name

    @property
    def is_alive(self) -> bool:
        """Say whether the thread is there; it is until it is told to stop."""
        return self._thread.is_alive()

    @property
    def busy_s(self) -> float:
        """How long the step that is under way has taken so far; 0 between two steps."""
        began_s = self._began_s
        return 0.0 if began_s is None else time.monotonic() - began_s

    @property
    def is_stuck(self) -> bool:
        """Say whether the step under way hangs."""
        return self.busy_s > self._stuck_s

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
            self._began_s = time.monotonic()
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
            self._began_s = None
            self._wake.wait(pause_s)

    def _report(self, error: Exception) -> None:
        self._errors.inc()
        self._status.note_error(self._task.name, time.time())
        if isinstance(error, AgentError):
            log.warning("task failed task=%s reason=%s", self._task.name, error)
            self._status.set_problems(self._task.name, [str(error)])
        else:
            log.error("task failed task=%s", self._task.name, exc_info=error)
            self._status.set_problems(self._task.name, [f"failed: {error!r}"])


def look_after(runners: Sequence[Runner], status: Status) -> bool:
    """Report what hangs, and say whether all that must not hang is well.

    Raises TaskDied when a thread is gone: nothing brings it back but a new start.
    """
    for runner in runners:
        if not runner.is_alive:
            raise TaskDied(f"the task {runner.name} has died")
    stuck = [runner for runner in runners if runner.is_stuck]
    status.set_problems(
        "watch", [f"{runner.name} has hung for {runner.busy_s:.0f} s" for runner in stuck]
    )
    return not any(runner.is_vital for runner in stuck)
