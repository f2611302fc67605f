"""Processes that hide whose they are, or that they run at all: the end reaches them too."""

from __future__ import annotations

from tests.agent.booking_server import make_grant
from tests.agent.conftest import Lab
from tests.lab.wait import wait_for

# Its first thread ends, and the kernel calls the process a zombie; the other one goes on.
HEADLESS = """\
import ctypes, os, signal, threading, time
for number in (signal.SIGHUP, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
if os.fork():
    os._exit(0)
os.setsid()
with open("headless", "w") as file:
    file.write(str(os.getpid()))
threading.Thread(target=time.sleep, args=(1000,)).start()
SYS_EXIT = {"x86_64": 60}.get(os.uname().machine, 93)
ctypes.CDLL(None).syscall(SYS_EXIT, 0)
"""


def runs(lab: Lab, pid: str) -> bool:
    return (lab.node.root / "proc" / pid / "task").exists()


def test_a_process_whose_first_thread_has_ended_is_ended(lab: Lab) -> None:
    lab.server.grant(make_grant("alice", lab.keys["alice"]))
    lab.start_agent()
    lab.node.write("/home/alice/headless.py", HEADLESS, owner="alice")
    start = lab.node.ssh("alice", lab.keys["alice"], "python3 headless.py >out 2>&1 <&-")
    assert start.returncode == 0
    written = lab.node.root / "home/alice/headless"
    pid = wait_for("it has written who it is", written.read_text)
    status = lab.node.root / "proc" / pid / "status"
    wait_for("it looks like a zombie", lambda: "zombie" in status.read_text())
    assert runs(lab, pid)
    lab.server.grant()
    wait_for("it is ended", lambda: not runs(lab, pid), 12)
