"""Who has a device open, or mapped, however it was opened."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from sentinel_agent.cards.holders import STALLS_MAX, Finder, Holder
from tests.agent.hanging_lab import hanging
from tests.lab.node import why_not
from tests.lab.wait import wait_for

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

# These have no driver to disturb, and hardly anybody has them open.
ZERO, FULL, NULL = os.makedev(1, 5), os.makedev(1, 7), os.makedev(1, 3)


@contextmanager
def process(script: str, *prefix: str) -> Iterator[int]:
    """Run a script that holds something; it says when it does, and waits to be ended."""
    source = "import ctypes, mmap, os, sys, threading, time\n" + textwrap.dedent(script)
    source += "\nprint('ready', flush=True)\ntime.sleep(600)"
    with subprocess.Popen(
        [*prefix, sys.executable, "-c", source], stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            yield child.pid
        finally:
            child.kill()


def everybody(_: int) -> bool:
    return True


def devices_of(pid: int) -> set[int]:
    found = Finder().find({ZERO, FULL}, everybody, [pid])
    assert [holder.pid for holder in found] in ([], [pid])
    return set().union(*(holder.devices for holder in found))


HELD = {
    "open": ("held = os.open('/dev/full', os.O_RDWR)", FULL),
    "open for reading": ("held = os.open('/dev/zero', os.O_RDONLY)", ZERO),
    "mapped, with the descriptor closed": (
        """
        opened = os.open('/dev/zero', os.O_RDWR)
        held = mmap.mmap(opened, 4096, flags=mmap.MAP_PRIVATE)
        os.close(opened)
        """,
        ZERO,
    ),
    "open under a name that is gone": (
        """
        name = f'/tmp/holders-test-{os.getpid()}'
        os.mknod(name, 0o20600, os.makedev(1, 7))
        held = os.open(name, os.O_RDWR)
        os.unlink(name)
        """,
        FULL,
    ),
    "open in a thread with files of its own": (
        """
        ready = threading.Event()
        def hold():
            assert ctypes.CDLL(None).unshare(0x400) == 0  # CLONE_FILES
            os.open('/dev/full', os.O_RDWR)
            ready.set()
            time.sleep(600)
        threading.Thread(target=hold, daemon=True).start()
        ready.wait()
        """,
        FULL,
    ),
}


@pytest.mark.parametrize("how", HELD)
def test_a_device_is_found_that_is(how: str) -> None:
    script, device = HELD[how]
    with process(script) as pid:
        assert devices_of(pid) == {device}


def test_a_device_is_found_in_another_mount_namespace_under_another_name(
    tmp_path: Path,
) -> None:
    name = tmp_path / "elsewhere"
    name.touch()
    script = f"held = os.open({str(name)!r}, os.O_RDWR)"
    bind = f'mount --bind /dev/full {name} && exec "$0" "$@"'
    with process(script, "unshare", "--mount", "sh", "-c", bind) as pid:
        assert devices_of(pid) == {FULL}


def test_a_device_is_found_when_the_first_thread_has_ended() -> None:
    script = """
        held = os.open('/dev/full', os.O_RDWR)
        opened = os.open('/dev/zero', os.O_RDWR)
        mapped = mmap.mmap(opened, 4096, flags=mmap.MAP_PRIVATE)
        os.close(opened)
        def live_on():
            while open('/proc/self/status').read().split('State:')[1].split()[0] != 'Z':
                time.sleep(0.01)
            print('ready', flush=True)
            time.sleep(600)
        threading.Thread(target=live_on).start()
        ctypes.CDLL(None).syscall({'x86_64': 60}.get(os.uname().machine, 93), 0)
        """
    with process(script) as pid:
        assert devices_of(pid) == {FULL, ZERO}


def test_what_a_process_does_not_hold_is_not_found() -> None:
    with process("os.close(os.open('/dev/full', os.O_RDWR))") as pid:
        assert devices_of(pid) == set()
        assert Finder().find({NULL}, lambda uid: uid != 0, [pid]) == []
        assert Finder().find(set(), everybody, [pid]) == []
    assert devices_of(pid) == set()


def test_a_process_that_keeps_us_waiting_is_passed_over() -> None:
    """The first that is asked about takes for ever; the one after it is found all the same."""
    is_asked, answer = threading.Event(), threading.Event()

    def hang_once(uid: int) -> bool:
        if not is_asked.is_set():
            is_asked.set()
            answer.wait()
        return True

    finder = Finder(stall_s=0.2)
    script = "held = os.open('/dev/full', os.O_RDWR)"
    with process("") as stuck, process(script) as pid:
        assert finder.find({FULL}, hang_once, [stuck, pid]) == [
            Holder(stuck, 0, frozenset(), may_hold_more=True),
            Holder(pid, 0, frozenset({FULL})),
        ]
        assert finder.stuck == {stuck}
        answer.set()
        wait_for("it is looked at again", lambda: not finder.stuck)
        assert finder.find({FULL}, everybody, [stuck]) == []


def test_a_process_that_hangs_may_hold_anything_until_it_goes_on(tmp_path: Path) -> None:
    finder = Finder(stall_s=0.2)
    with hanging(tmp_path / "disk", files=("/dev/full",)) as (pid, go_on):
        for _ in range(3):
            threads = threading.active_count()
            (found,) = finder.find({FULL, ZERO}, everybody, [pid])
            assert (found.pid, found.may_hold_more) == (pid, True)
            assert finder.stuck == {pid}
        # It is not waited for again.
        assert threading.active_count() == threads
        go_on()
        wait_for("it goes on", lambda: not finder.stuck)
        whole = [Holder(pid, 0, frozenset({FULL}))]
        assert finder.find({FULL, ZERO}, everybody, [pid]) == whole
        assert finder.find({ZERO}, everybody, [pid]) == []


# So many descriptors, in tables of several threads, that a look at them takes some seconds.
SLOW = """
import resource
most = min(20_000, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
done = threading.Semaphore(0)
def have_own(open_them):
    def run():
        assert ctypes.CDLL(None).unshare(0x400) == 0  # CLONE_FILES
        open_them()
        done.release()
        time.sleep(600)
    threading.Thread(target=run, daemon=True).start()
    done.acquire()
def fill():
    for _ in range(most - 20):
        os.dup(0)
def hold():
    os.open('/dev/full', os.O_RDWR)
"""
FILL = "for _ in range(400_000 // most): have_own(fill)\n"


def test_a_process_that_is_only_slow_to_look_at_is_seen_in_full() -> None:
    stall_s = 0.3
    with process(SLOW + FILL + "have_own(hold)") as pid:
        began = time.monotonic()
        found = Finder(stall_s).find({FULL, ZERO}, everybody, [pid])
        assert time.monotonic() - began > 2 * stall_s
        assert found == [Holder(pid, 0, frozenset({FULL}))]
        # But not whatever time it takes.
        found = Finder(stall_s, slow_s=0).find({FULL, ZERO}, everybody, [pid])
        assert found == [Holder(pid, 0, frozenset(), may_hold_more=True)]


def test_what_was_seen_of_a_process_counts_without_the_rest() -> None:
    stall_s = 0.3
    with process(SLOW + "hold()\n" + FILL) as pid:
        finder = Finder(stall_s, slow_s=0)
        found = finder.find({FULL, ZERO}, everybody, [pid])
        assert found == [Holder(pid, 0, frozenset({FULL}), may_hold_more=True)]
        # All that is asked for is seen at once.
        wait_for("it is not looked at any more", lambda: not finder.stuck)
        began = time.monotonic()
        found = finder.find({FULL}, everybody, [pid])
        assert time.monotonic() - began < stall_s
        assert found == [Holder(pid, 0, frozenset({FULL}))]


def test_processes_that_are_left_to_the_next_search_may_hold_something() -> None:
    answer = threading.Event()

    def hang(uid: int) -> bool:
        if threading.current_thread() is not threading.main_thread():
            answer.wait()
        return True

    finder = Finder(stall_s=0.1)
    with ExitStack() as stack:
        pids = [stack.enter_context(process("")) for _ in range(STALLS_MAX + 2)]
        found = finder.find({FULL}, hang, pids)
        assert found == [Holder(pid, 0, frozenset(), may_hold_more=True) for pid in pids]
        assert finder.stuck == set(pids[:STALLS_MAX])
        answer.set()
        wait_for("they go on", lambda: not finder.stuck)
        assert finder.find({FULL}, hang, pids) == []


def test_an_error_of_the_search_is_not_taken_for_an_answer() -> None:
    def fail(uid: int) -> bool:
        raise LookupError("the directory is odd")

    with pytest.raises(LookupError, match="odd"):
        Finder().find({FULL}, fail, [os.getpid()])
