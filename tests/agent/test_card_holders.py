"""Whoever loses a card, and what of theirs still holds it."""

from __future__ import annotations

import time
from functools import partial

from tests.agent.card_lab import (
    SELDOM,
    grant,
    has_problem,
    held_by,
    hold,
    make_cards,
    opened,
    wait_until_opened,
)
from tests.agent.conftest import Lab
from tests.lab.wait import wait_for

# Who is another process every millisecond has ended when there was none for so long.
STANDING_S = 0.5
# What holds a card, and must not get away with it.
HOLDERS = {
    "holds it": "exec sleep 1001",
    "ignores being asked": "trap '' TERM HUP; while :; do sleep 1; done",
    "is stopped": "kill -STOP $$",
    "keeps forking": "trap '' TERM; while :; do (sleep 0.01; :) & done",
    "is always another process": (
        "exec python3 -c 'import os, signal\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "while True:\n"
        ' os.close(os.open("/tmp/alive", os.O_WRONLY | os.O_APPEND | os.O_CREAT))\n'
        ' os.truncate("/tmp/alive", os.stat("/tmp/alive").st_size + 1)\n'
        " if os.fork(): os._exit(0)'"
    ),
    "has it mapped": (
        "exec python3 -c 'import mmap, os, time\n"
        'opened = os.open("/dev/nvidia1", os.O_RDWR)\n'
        "held = mmap.mmap(opened, 4096, flags=mmap.MAP_PRIVATE)\n"
        "os.closerange(3, 100)\n"
        "time.sleep(1001)'"
    ),
}


def test_who_loses_a_card_loses_what_holds_it_and_nothing_else(lab: Lab) -> None:
    make_cards(lab)
    users = {f"holder{number}": what for number, what in enumerate(HOLDERS)}
    for user in (*users, "sentinel-exporter"):
        lab.node.add_user(user)
        lab.keys[user] = lab.keys["alice"]
    # Before the agent came, whoever wanted opened what they wanted.
    hold(lab, "bob", "nvidia1")
    hold(lab, "ops", "nvidia1", "exec sleep 2000")
    hold(lab, "sentinel-exporter", "nvidia1", "exec sleep 2000")
    spared = ["ops", "sentinel-exporter"]
    both = [
        grant(lab, user, "nvidia1", reservation=number) for number, user in enumerate(users, 1)
    ]
    other = [
        grant(lab, user, "davinci0", reservation=number)
        for number, user in enumerate(users, 10)
    ]
    lab.server.grant(*both, *other)
    lab.start_agent(**SELDOM)
    wait_for("bob, who never had it, is ended", lambda: held_by(lab, "nvidia1") == spared)
    wait_until_opened(lab, "holder0", "nvidia1", "davinci0")
    for user, what in users.items():
        hold(lab, user, "nvidia1", HOLDERS[what])
        hold(lab, user, "davinci0", "exec sleep 3000")
    with lab.session("holder0") as session:
        lab.server.grant(*other)
        wait_for("nobody else has it open", lambda: held_by(lab, "nvidia1") == spared)
        wait_for("it is said", lambda: "your reservation of nvidia1 is over" in session.text())
        # Who is always another process is never seen: it is known by what it does.
        alive = lab.node.root / "tmp/alive"
        last = (0, time.monotonic())

        def is_standing_still() -> bool:
            nonlocal last
            size = alive.stat().st_size
            if size != last[0]:
                last = (size, time.monotonic())
            return time.monotonic() - last[1] > STANDING_S

        wait_for("the one that is always another process is ended", is_standing_still)
        assert last[0] > 0
        assert session.is_open()
    for user, what in users.items():
        wait_for(
            f"only its other process is left of the user who {what}",
            partial(lambda user: lab.node.processes(user) == ["sleep 3000"], user),
        )
    assert held_by(lab, "davinci0") == sorted(users)
    assert held_by(lab, "nvidia1") == spared
    wait_for("all is well", lambda: not has_problem(lab, "enforce: "))


def test_the_next_holder_waits_for_the_card_and_not_for_the_user(lab: Lab) -> None:
    make_cards(lab)
    stays = grant(lab, "alice", "davinci0", reservation=2)
    lab.server.grant(grant(lab, "alice", "nvidia0"), stays)
    lab.start_agent(term_s=1)
    wait_until_opened(lab, "alice", "nvidia0", "davinci0")
    hold(lab, "alice", "nvidia0", "trap '' TERM; while :; do sleep 1; done")
    hold(lab, "alice", "davinci0", "exec sleep 3000")
    seen: list[list[str]] = []
    lab.server.grant(stays, grant(lab, "bob", "nvidia0", reservation=3))
    wait_for("it is closed", lambda: "nvidia0" not in opened(lab, "alice"))

    def is_bobs() -> bool:
        seen.append(held_by(lab, "nvidia0"))
        return opened(lab, "bob") == ["nvidia0"] and lab.is_let_in("bob", "alice")

    wait_for("bob has it", is_bobs)
    # At no time did both have it.
    assert seen[-1] == []
    assert lab.node.processes("alice") == ["sleep 3000"]


# Opens a card, and becomes a uid that was lent to the user's container, as podman's do.
CONTAINER = """
import ctypes, os, time
held = os.open("/dev/nvidia0", os.O_RDWR)
assert ctypes.CDLL(None).unshare(0x10000000) == 0  # CLONE_NEWUSER
print("pid", os.getpid(), flush=True)
while not open("/proc/self/uid_map").read().strip():
    time.sleep(0.01)
os.setresuid(5, 5, 5)
print("held", flush=True)
time.sleep(1001)
"""


def test_what_a_container_of_the_user_holds_is_the_users(lab: Lab) -> None:
    make_cards(lab)
    held = grant(lab, "alice", "nvidia0")
    other = grant(lab, "alice", "davinci0", reservation=2)
    lab.server.grant(held, other)
    lab.start_agent(**SELDOM)
    wait_until_opened(lab, "alice", "nvidia0", "davinci0")
    lab.node.popen(["python3", "-u", "-c", CONTAINER], user="alice", log="container")
    wait_for("it waits for its uids", lambda: "pid" in lab.node.log("container"))
    pid = lab.node.log("container").split()[1]
    lab.node.run(["sh", "-c", f"echo 0 100000 10 > /proc/{pid}/uid_map"])
    wait_for("it holds the card", lambda: "held" in lab.node.log("container"))
    # Somebody else's loss has all holders looked up; alice's right covers her container.
    hold(lab, "alice", "davinci0", "exec sleep 3000")
    lab.server.grant(held)
    wait_for("the other card is free", lambda: lab.node.processes("alice") == [])
    assert lab.node.run(["ps", "-o", "uid=", "-p", pid]).stdout.strip() == "100005"
    lab.server.grant(other)
    wait_for("it is ended", lambda: not (lab.node.root / "proc" / pid).exists())
    wait_for("all is well", lambda: not has_problem(lab, "enforce: "))
