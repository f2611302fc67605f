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

# A container without root, as in test_identities.py. Its root leaves a setuid program outside.
LENT = 200000
CONTAINER = """\
import ctypes, os, shutil, sys, time
assert ctypes.CDLL(None).unshare(0x10000000) == 0
print("pid", os.getpid(), flush=True)
while open("/proc/self/uid_map").read() == "":
    time.sleep(0.05)
os.setresuid(5, 5, 5)
shutil.copy(os.path.realpath(sys.executable), "/var/lib/hers/python")
os.chmod("/var/lib/hers/python", 0o4755)
print("left", flush=True)
"""
BORROWED = """\
import os, time
uid = os.geteuid()
os.setresuid(uid, uid, uid)
if os.fork():
    os._exit(0)
os.setsid()
print("runs", os.getpid(), flush=True)
time.sleep(1000)
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
    wait_for("it is ended", lambda: not runs(lab, pid))


def test_a_uid_lent_to_the_user_hides_nothing_outside_of_containers(lab: Lab) -> None:
    """What a container's root has made setuid runs on the node itself, under the lent uid."""
    lab.node.write("/etc/subuid", f"alice:{LENT}:65536\n")
    lab.server.grant(make_grant("alice", lab.keys["alice"]))
    lab.start_agent()
    lab.node.run(["install", "-d", "-m", "0777", "/var/lib/hers"])
    lab.node.popen(["python3", "-u", "-c", CONTAINER], user="alice", log="container")
    wait_for("it waits for its uids", lambda: "pid" in lab.node.log("container"))
    container = lab.node.log("container").split()[1]
    lab.node.run(["sh", "-c", f"echo 0 {LENT} 10 > /proc/{container}/uid_map"])
    wait_for("the program is there", lambda: "left" in lab.node.log("container"))
    lab.node.popen(["/var/lib/hers/python", "-c", BORROWED], user="alice", log="borrowed")
    wait_for("it runs", lambda: "runs" in lab.node.log("borrowed"))
    pid = lab.node.log("borrowed").split()[1]
    assert lab.node.run(["ps", "-o", "uid=", "-p", pid]).stdout.strip() == str(LENT + 5)
    lab.server.grant()
    wait_for("it is ended", lambda: not runs(lab, pid))
