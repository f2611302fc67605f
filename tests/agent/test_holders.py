"""Who has a device open, or mapped, however it was opened."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sentinel_agent.cards.holders import Finder, Holder
from tests.lab.node import why_not

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
            Holder(pid, 0, frozenset({FULL}))
        ]
        assert finder.stuck == {stuck}
        answer.set()
    finder.find({FULL}, lambda uid: uid < 0)
    assert finder.stuck == frozenset()


def test_an_error_of_the_search_is_not_taken_for_an_answer() -> None:
    def fail(uid: int) -> bool:
        raise LookupError("the directory is odd")

    with pytest.raises(LookupError, match="odd"):
        Finder().find({FULL}, fail, [os.getpid()])
