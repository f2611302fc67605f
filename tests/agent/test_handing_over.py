"""The handover on a real sshd: the next holder gets in when nothing of the former is left."""

from __future__ import annotations

import signal
from datetime import UTC, datetime, timedelta

from sentinel_agent.policy.model import parse_time
from tests.agent.booking_server import make_grant
from tests.agent.conftest import Lab
from tests.lab.wait import wait_for

OTHER_CARD = [{"vendor": "ascend", "uuid": "npu-0000:C2:00.0", "index": 1, "minor": 1}]
# Takes no notice of HUP and TERM and keeps forking, so that the KILL at the end is needed.
STUBBORN = "trap '' HUP TERM; while :; do sleep 0.05; done"
# A disk that takes every question and answers none but the first, which is how a FUSE server
# says that it is there (linux/fuse.h: fuse_in_header, fuse_out_header, fuse_init_out). The
# kernel ends nobody who waits for the answer, not even by KILL.
SILENT_DISK = """\
import ctypes, os, stat, struct, sys
FUSE_INIT, VERSION = 26, (7, 31)
if not os.path.exists("/dev/fuse"):
    os.mknod("/dev/fuse", stat.S_IFCHR | 0o600, os.makedev(10, 229))
opened = os.open("/dev/fuse", os.O_RDWR)
os.mkdir("/tmp/silent")
options = f"fd={opened},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
mount = ctypes.CDLL(None, use_errno=True).mount
if mount(b"silent", b"/tmp/silent", b"fuse", 0, options) != 0:
    sys.exit(os.strerror(ctypes.get_errno()))
print("mounted", flush=True)
while True:
    _, code, unique = struct.unpack_from("IIQ", os.read(opened, 1 << 17))
    if code == FUSE_INIT:
        body = struct.pack("II12xI40x", *VERSION, 4096)
        os.write(opened, struct.pack("IiQ", 16 + len(body), 0, unique) + body)
    else:
        print("asked", flush=True)
"""


def leave_something(lab: Lab, user: str, command: str = STUBBORN) -> None:
    """Log in, leave a process behind, and log out."""
    script = f"#!/bin/bash\n{command}\n"
    lab.node.write(f"/home/{user}/left", script, mode=0o755, owner=user)
    with lab.session(user, "setsid ./left >/dev/null 2>&1 </dev/null & sleep 0.2", options=()):
        wait_for("it runs", lambda: any("left" in args for args in lab.node.processes(user)))


def let_in_at(lab: Lab, user: str) -> datetime:
    """Try until the user gets in, and return when the login that worked began."""
    began = [datetime.now(UTC)]

    def try_it() -> bool:
        began[0] = datetime.now(UTC)
        return lab.is_let_in(user)

    wait_for(f"{user} gets in", try_it)
    return began[0]


def test_a_fresh_booking_waits_for_what_the_released_one_left(lab: Lab) -> None:
    lab.server.grant(make_grant("alice", lab.keys["alice"]))
    lab.start_agent(term_s=3, grace_s=1)
    leave_something(lab, "alice")
    lab.server.grant(
        make_grant("bob", lab.keys["bob"], start_s=0, reservation=2),
        make_grant("ops", lab.keys["ops"], start_s=0, reservation=3, devices=OTHER_CARD),
    )
    lab.wait_for_policy()
    # It is so from the first time that the policy is written.
    assert '"opens_at":' in lab.cache()
    assert not lab.is_let_in("bob")
    assert lab.node.processes("alice")
    wait_for("bob gets in", lambda: lab.is_let_in("bob"))
    assert lab.node.processes("alice") == []
    assert '"opens_at":' not in lab.cache()
    assert lab.server.heartbeats[-1]["unclean"] == []


def test_at_a_planned_change_the_next_one_waits_too(lab: Lab) -> None:
    first = make_grant("alice", lab.keys["alice"], end_s=4)
    lab.server.grant(
        first,
        make_grant("bob", lab.keys["bob"], reservation=2) | {"not_before": first["not_after"]},
    )
    lab.start_agent(term_s=2)
    # It is told in advance: at the start the agent may be late.
    assert '"opens_at":' in lab.cache()
    leave_something(lab, "alice")
    began = let_in_at(lab, "bob")
    assert lab.node.processes("alice") == []
    assert began >= parse_time(first["not_after"])


def test_with_a_dead_agent_the_next_one_gets_in_after_the_limit(lab: Lab) -> None:
    limit_s = 4
    first = make_grant("alice", lab.keys["alice"], end_s=4)
    lab.server.grant(
        first,
        make_grant("bob", lab.keys["bob"], reservation=2) | {"not_before": first["not_after"]},
    )
    lab.start_agent(handover_limit_s=limit_s)
    leave_something(lab, "alice")
    lab.node.stop_agent(signal.SIGKILL)
    began = let_in_at(lab, "bob")
    # The login that worked may have begun a moment before, and been asked about after.
    earliest = parse_time(first["not_after"]) + timedelta(seconds=limit_s - 1)
    assert began >= earliest
    assert lab.node.processes("alice")


def test_who_outlives_the_limit_is_reported_and_holds_nobody_up_for_longer(lab: Lab) -> None:
    limit_s = 3
    lab.server.grant(make_grant("alice", lab.keys["alice"]))
    lab.start_agent(handover_limit_s=limit_s, grace_s=0)
    lab.node.popen(["python3", "-c", SILENT_DISK], log="silent-disk")
    wait_for("the disk is there", lambda: "mounted" in lab.node.log("silent-disk"))
    lab.node.popen(["stat", "/tmp/silent/file"], user="alice")
    wait_for("alice waits for it", lambda: "asked" in lab.node.log("silent-disk"))
    bobs = make_grant("bob", lab.keys["bob"], start_s=0, reservation=2)
    lab.server.grant(bobs)
    lab.wait_for_policy()
    # As above: a moment less.
    earliest = parse_time(bobs["not_before"]) + timedelta(seconds=limit_s - 1)
    assert let_in_at(lab, "bob") >= earliest
    wait_for("it is reported", lambda: lab.server.heartbeats[-1]["unclean"] == ["alice"])
    why = "reservation 2 was opened after 3 s although processes of alice still run"
    wait_for("it says why", lambda: f"enforce: {why}" in lab.agent_problems())
    lab.server.grant()
    wait_for("it is over", lambda: lab.server.heartbeats[-1]["unclean"] == [])


def test_what_is_only_observed_holds_nobody_back(lab: Lab) -> None:
    lab.server.grant(make_grant("alice", lab.keys["alice"]), mode="observe")
    lab.start_agent()
    leave_something(lab, "alice")
    lab.server.grant(
        make_grant("bob", lab.keys["bob"], start_s=0, reservation=2), mode="observe"
    )
    lab.wait_for_policy()
    assert lab.is_let_in("bob")
    # What has begun stays open, also when the node begins to enforce.
    lab.server.grant(make_grant("bob", lab.keys["bob"], reservation=2), mode="enforce")
    lab.wait_for_policy()
    assert lab.is_let_in("bob")


def test_a_restart_of_the_agent_forgets_no_former_holder(lab: Lab) -> None:
    lab.server.grant(make_grant("alice", lab.keys["alice"]))
    lab.start_agent()
    leave_something(lab, "alice")
    lab.node.stop_agent(signal.SIGKILL)
    lab.server.grant(make_grant("bob", lab.keys["bob"], start_s=0, reservation=2))
    lab.start_agent(term_s=3)
    assert '"opens_at":' in lab.cache()
    assert not lab.is_let_in("bob")
    # And once more, while it waits.
    lab.node.stop_agent(signal.SIGKILL)
    assert not lab.is_let_in("bob")
    lab.node.start_agent()
    wait_for("bob gets in", lambda: lab.is_let_in("bob"))
    assert lab.node.processes("alice") == []


def test_a_session_goes_on_while_the_holders_next_card_is_waited_for(lab: Lab) -> None:
    """Bob is connected for one card when his reservation of alice's card begins."""
    lab.server.grant(
        make_grant("alice", lab.keys["alice"]),
        make_grant("bob", lab.keys["bob"], reservation=2, devices=OTHER_CARD),
    )
    lab.start_agent(term_s=3)
    leave_something(lab, "alice")
    with lab.session("bob") as session:
        lab.server.grant(make_grant("bob", lab.keys["bob"], start_s=0, reservation=3))
        lab.wait_for_policy()
        assert not lab.is_let_in("bob")
        wait_for("it is opened", lambda: lab.is_let_in("bob"))
        assert session.is_open()
