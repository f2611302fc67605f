"""Cards for tests of their lock: device files under their names, and who opens and holds them.

No accelerator is needed: a card's file is that of a harmless device under the card's name,
which opens, and is mapped, like any other.
"""

from __future__ import annotations

import os
import stat
import urllib.request
from collections.abc import Mapping

from tests.agent.booking_server import make_grant
from tests.agent.conftest import Lab, Session
from tests.lab.node import Setting
from tests.lab.wait import wait_for

# Card to the device that stands in for it: full, zero, urandom and random.
CARDS = {"nvidia0": 7, "nvidia1": 5, "davinci0": 9, "davinci1": 8}
# Rounds come so seldom that whatever happens sooner, the watch on /dev has brought about.
SELDOM: Mapping[str, Setting] = {"reconcile_s": 60}
DAY_S = 24 * 3600


def make_cards(lab: Lab, mode: int = 0o666) -> None:
    """Make the cards' files as the drivers do, and some that all cards share."""
    for card, minor in CARDS.items():
        make_card(lab, card, minor, mode)
    for name in ("nvidiactl", "nvidia-uvm", "davinci_manager"):
        make_card(lab, name, 3, 0o666)


def make_card(lab: Lab, card: str, minor: int | None = None, mode: int = 0o666) -> None:
    path = lab.node.root / "dev" / card
    number = os.makedev(1, CARDS[card] if minor is None else minor)
    os.mknod(path, stat.S_IFCHR | mode, number)
    path.chmod(mode)


def device(card: str) -> dict[str, object]:
    """Return the device as a policy names it; the index is never its minor number here."""
    vendor, number = (
        ("ascend", int(card[7:])) if "davinci" in card else ("nvidia", int(card[6:]))
    )
    uuid = f"{vendor}-{number}"
    return {"vendor": vendor, "uuid": uuid, "index": number + 4, "minor": number}


def grant(lab: Lab, user: str, *cards: str, **more: object) -> dict[str, object]:
    """Return the user's grant of these cards, the whole node for none."""
    end_s = float(str(more.pop("end_s", DAY_S)))
    start_s = float(str(more.pop("start_s", -60)))
    return make_grant(
        user, lab.keys["alice"], start_s=start_s, end_s=end_s,
        **({"devices": [device(card) for card in cards], "whole_node": not cards} | more),
    )  # fmt: skip


def opened(lab: Lab, user: str) -> list[str]:
    """Return which of the cards a new process of the user can open for reading and writing."""
    script = "for card; do (exec 3<>/dev/$card) 2>/dev/null && echo $card; done; :"
    return lab.node.run(["sh", "-c", script, "sh", *CARDS], user=user).stdout.split()


def wait_until_opened(lab: Lab, user: str, *cards: str) -> None:
    wait_for(f"{user} opens {cards}", lambda: opened(lab, user) == list(cards))


def getfacl(lab: Lab, card: str) -> list[str]:
    """Return the lines of getfacl, none where there is no file."""
    argv = ["getfacl", "--absolute-names", "--no-effective", f"/dev/{card}"]
    done = lab.node.run(argv, check=False)
    return done.stdout.split("\n")[1:]


def hold(lab: Lab, user: str, card: str, script: str = "exec sleep 1000") -> None:
    """Start a process that opens the card, and says so before it goes on with the script."""
    name = f"{user}-{card}-{len(list(lab.node.folder.iterdir()))}"
    # Forked: a command of ours that stops takes its nsenter with it.
    command = ["setsid", "--fork", "bash", "-c", f"exec 3<>/dev/{card}; echo held; {script}"]
    lab.node.popen(command, user=user, log=name)
    wait_for(f"{user} holds {card}", lambda: "held" in lab.node.log(name))


def held_by(lab: Lab, card: str) -> list[str]:
    """Return the names of those who have processes with the card open, by fuser's look."""
    script = f"""
import os, pwd
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        files = [os.stat(f"/proc/{{pid}}/fd/{{fd}}") for fd in os.listdir(f"/proc/{{pid}}/fd")]
        uid = os.stat(f"/proc/{{pid}}").st_uid
    except OSError:  # it ended meanwhile
        continue
    if any(file.st_rdev == {os.makedev(1, CARDS[card])} for file in files):
        print(pwd.getpwuid(uid).pw_name)
"""
    return sorted(lab.node.run(["python3", "-c", script]).stdout.split())


def ask(session: Session, card: str) -> bool:
    """Say whether the shell of a live session can open the card now."""
    assert session.process.stdin is not None
    count = session.text().count(f"{card} ")
    session.process.stdin.write(f"{card}\n".encode())
    session.process.stdin.flush()
    wait_for("the shell answers", lambda: session.text().count(f"{card} ") > count)
    return session.text().rpartition(f"{card} ")[2].startswith("opened")


# A shell that opens what it is told to.
ASKED = (
    "while read card; do if (exec 3<>/dev/$card) 2>/dev/null; then echo $card opened; "
    "else echo $card refused; fi; done"
)


def repairs(lab: Lab) -> int:
    with urllib.request.urlopen(f"http://{lab.node.address}:9642/metrics") as answer:
        text = answer.read().decode()
    (line,) = (
        one for one in text.splitlines() if one.startswith("sentinel_agent_card_repairs_t")
    )
    return int(float(line.split()[1]))


def has_problem(lab: Lab, text: str) -> bool:
    return any(text in problem for problem in lab.agent_problems())
