"""Something under the agent hangs, and sessions are ended all the same."""

from __future__ import annotations

from tests.agent.booking_server import make_grant
from tests.agent.card_lab import getfacl, make_card
from tests.agent.conftest import Lab
from tests.lab.wait import wait_for

# A disk that answers nothing, under the agent's files: a FUSE file system without a server.
DEAD_DISK = """\
import ctypes, os, stat, sys, time
if not os.path.exists("/dev/fuse"):
    os.mknod("/dev/fuse", stat.S_IFCHR | 0o600, os.makedev(10, 229))
opened = os.open("/dev/fuse", os.O_RDWR)
options = f"fd={opened},rootmode=40000,user_id=0,group_id=0".encode()
mount = ctypes.CDLL(None, use_errno=True).mount
if mount(b"dead", b"/var/lib/sentinel", b"fuse", 0, options) != 0:
    sys.exit(os.strerror(ctypes.get_errno()))
print("it hangs", flush=True)
time.sleep(1000)
"""


def test_a_disk_that_hangs_keeps_nobody_from_being_ended(lab: Lab) -> None:
    lab.node.write("/etc/dead-disk.py", DEAD_DISK)
    lab.server.grant(
        make_grant("alice", lab.keys["alice"]), make_grant("bob", lab.keys["bob"], end_s=8)
    )
    lab.start_agent()
    with lab.session("alice") as alice, lab.session("bob") as bob:
        lab.node.popen(["python3", "/etc/dead-disk.py"], log="dead-disk")
        wait_for("the disk hangs", lambda: "it hangs" in lab.node.log("dead-disk"))
        lab.server.grant(make_grant("bob", lab.keys["bob"], end_s=8))
        wait_for("alice is ended", lambda: not alice.is_open())
        # By the policy that was in force before, or the next: it ends by itself.
        wait_for("bob is ended", lambda: not bob.is_open())
        assert not lab.node.processes("alice") + lab.node.processes("bob")
        beats = len(lab.server.heartbeats)
        wait_for("it reports", lambda: len(lab.server.heartbeats) > beats + 1)


def test_a_disk_that_hangs_keeps_no_new_card_open_and_nobody_logged_in(lab: Lab) -> None:
    """What a new card's file was before it is changed is for the disk."""
    lab.node.write("/etc/dead-disk.py", DEAD_DISK)
    lab.server.grant(make_grant("alice", lab.keys["alice"]))
    lab.start_agent()
    with lab.session("alice") as alice:
        lab.node.popen(["python3", "/etc/dead-disk.py"], log="dead-disk")
        wait_for("the disk hangs", lambda: "it hangs" in lab.node.log("dead-disk"))
        make_card(lab, "davinci1")
        wait_for("the card is closed", lambda: "other::---" in getfacl(lab, "davinci1"))
        lab.server.grant()
        wait_for("alice is ended", lambda: not alice.is_open())
        why = "enforce: cannot write /var/lib/sentinel/cards.json: the disk does not answer"
        wait_for("it is reported", lambda: why in lab.agent_problems())


def test_an_inventory_that_hangs_keeps_nobody_from_being_ended(lab: Lab) -> None:
    lab.server.grant(make_grant("alice", lab.keys["alice"]))
    lab.start_agent(inventory_command=["sleep", "1000"], inventory_timeout_s=900)
    with lab.session("alice") as alice:
        lab.server.grant()
        wait_for("alice is ended", lambda: not alice.is_open())


def test_a_server_whose_name_cannot_be_found_keeps_nobody_from_being_ended(lab: Lab) -> None:
    """The cached policy holds while every look-up of the server's name goes unanswered."""
    lab.server.grant(make_grant("alice", lab.keys["alice"], end_s=9))
    lab.start_agent()
    lab.node.stop_agent()
    # Nobody answers there, so that each look-up takes as long as resolv.conf allows.
    lab.node.write("/etc/resolv.conf", "nameserver 192.0.2.1\noptions timeout:30 attempts:5\n")
    lab.node.run(["ip", "route", "add", "192.0.2.0/24", "via", lab.node.host_address])
    lab.node.write_agent_config(
        "http://booking.test:8800", reconcile_s=0.3, grace_s=1, term_s=0.5,
        inventory_command=["cat", "/etc/sentinel/inventory.json"],
    )  # fmt: skip
    lab.node.start_agent()
    with lab.session("alice") as alice:
        wait_for("alice is ended", lambda: not alice.is_open())
    # It is still waiting for the first answer.
    assert "no answer" not in lab.node.log("agent")
