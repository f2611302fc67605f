"""A system that has no thread left, for a moment: one scrape fails, and no later one."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from threading import Event, Thread

import pytest

from sentinel_exporters.collectors import ipmi
from sentinel_exporters.core import Target
from sentinel_exporters.ipmi.errors import IpmiError
from sentinel_exporters.ipmi.framing import Outside, make_request
from sentinel_exporters.ipmi.loop import Job, Line, Loop, ask_all
from sentinel_exporters.ipmi.patience import Patience
from sentinel_exporters.ipmi.target import Address, parse_target, resolve
from sentinel_exporters.ipmi.wire import connect
from tests.exporters.bmc import PASSWORD, USER, Bmc

_ARE_YOU_THERE = make_request(0x06, 0x38, b"\x8e\x02")


class NoThreads:
    """Fails to start the threads of one name."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        start = Thread.start
        self.failed = 0

        def fail(thread: Thread) -> None:
            if thread.name != name:
                start(thread)
                return
            self.failed += 1
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", fail)


def test_a_scrape_that_gets_no_thread_is_answered_and_the_next_one_reads(
    tmp_path: Path, bmc: Bmc, monkeypatch: pytest.MonkeyPatch
) -> None:
    password = tmp_path / "password"
    password.write_text(PASSWORD)
    module = {"user": USER, "password_file": password, "collectors": ["chassis"]}
    settings = ipmi.Settings.model_validate({"modules": {"default": module}})
    target = Target(bmc.target, "default", 10)
    for _ in range(2):
        assert ipmi.probe(settings, target).is_up == {"chassis": True}
    bmc.stop()
    bmc.start()
    answered = Event()
    errors: list[Exception] = []

    def done(reading: object) -> None:
        assert callable(reading)
        try:
            reading()
        except Exception as error:
            errors.append(error)
        answered.set()

    with monkeypatch.context() as patch:
        threads = NoThreads(patch, "probe-ipmi")
        assert ipmi.begin(settings, target, done)
        assert answered.wait(5)
    assert threads.failed == 1
    assert [str(error) for error in errors] == ["can't start new thread"]
    assert isinstance(errors[0], IpmiError)
    assert ipmi.probe(settings, target).is_up == {"chassis": True}


def test_a_loop_that_could_not_be_started_is_started_by_the_next_job(
    bmc: Bmc, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, address = Loop(), resolve(parse_target(bmc.target))
    with monkeypatch.context() as patch:
        threads = NoThreads(patch, "ipmi-loop")
        with pytest.raises(RuntimeError, match="can't start new thread"):
            loop.start(_job(address))
    assert threads.failed == 1
    job = _job(address)
    loop.start(job)
    (answer,) = job.wait()
    assert answer[0] == 0


def _job(address: Address) -> Job[list[bytes]]:
    line = Line(connect(address), Outside(), Patience())
    return Job(line, ask_all([_ARE_YOU_THERE]), time.monotonic() + 5)
