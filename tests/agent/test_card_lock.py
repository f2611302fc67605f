"""The lock on the cards, with a real agent, users, sshd and device files.

No accelerator is needed: a card's file is that of a harmless device under the card's name,
which opens, and is mapped, like any other.
"""

from __future__ import annotations

import os
import stat
import urllib.request
from collections.abc import Callable, Mapping
from functools import partial

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
    """Return the device as a policy names it; NVIDIA's index is never its minor number here."""
    vendor, number = (
        ("ascend", int(card[7:])) if "davinci" in card else ("nvidia", int(card[6:]))
    )
    index = number if vendor == "ascend" else number + 4
    return {"vendor": vendor, "uuid": f"{vendor}-{number}", "index": index, "minor": number}


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
    except OSError:
        continue
    if any(file.st_rdev == {os.makedev(1, CARDS[card])} for file in files):
        print(pwd.getpwuid(os.stat(f"/proc/{{pid}}").st_uid).pw_name)
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


def test_each_opens_the_cards_that_are_booked_and_no_others(lab: Lab) -> None:
    make_cards(lab)
    for name in ("watcher", "sentinel-exporter", "carol"):
        lab.node.add_user(name)
    lab.server.grant(
        grant(lab, "alice", "nvidia1", "davinci0"), grant(lab, "bob", "nvidia0", reservation=2)
    )
    lab.start_agent(ignored_users=["watcher"], **SELDOM)
    wait_until_opened(lab, "alice", "nvidia1", "davinci0")
    assert opened(lab, "bob") == ["nvidia0"]
    assert opened(lab, "carol") == []
    for name in ("ops", "watcher", "sentinel-exporter"):
        assert opened(lab, name) == list(CARDS), name
    assert set(getfacl(lab, "nvidia1")) == {
        "# owner: root", "# group: root", "user::rw-", "user:alice:rw-", "user:watcher:rw-",
        "user:sentinel-exporter:rw-", "group::---", "group:breakglass:rw-", "mask::rw-",
        "other::---", "",
    }  # fmt: skip
    for name in ("nvidiactl", "nvidia-uvm", "davinci_manager"):
        assert stat.S_IMODE((lab.node.root / "dev" / name).stat().st_mode) == 0o666


def test_whoever_holds_the_whole_node_opens_every_card(lab: Lab) -> None:
    make_cards(lab)
    lab.server.grant(grant(lab, "alice"))
    lab.start_agent(**SELDOM)
    wait_until_opened(lab, "alice", *CARDS)
    assert opened(lab, "bob") == []


def test_a_live_session_gets_and_loses_cards_with_its_bookings(lab: Lab) -> None:
    make_cards(lab)
    first = grant(lab, "alice", "nvidia0")
    lab.server.grant(first)
    lab.start_agent(**SELDOM)
    with lab.session("alice", ASKED) as session:
        wait_for("the booked card opens", partial(ask, session, "nvidia0"))
        assert not ask(session, "davinci1")
        lab.server.grant(first, grant(lab, "alice", "davinci1", reservation=2))
        wait_for("the second card opens", partial(ask, session, "davinci1"))
        lab.server.grant(grant(lab, "alice", "davinci1", reservation=2))
        wait_for("the first card closes", lambda: not ask(session, "nvidia0"))
        assert ask(session, "davinci1")
        assert session.is_open()


def chmod_600(lab: Lab) -> None:
    (lab.node.root / "dev/nvidia0").chmod(0o600)


def chmod_666(lab: Lab) -> None:
    (lab.node.root / "dev/nvidia0").chmod(0o666)


def make_anew(lab: Lab) -> None:
    (lab.node.root / "dev/nvidia0").unlink()
    make_card(lab, "nvidia0")


def let_bob_in(lab: Lab) -> None:
    lab.node.run(["setfacl", "-m", "u:bob:rw,g:users:rw", "/dev/nvidia0"])


def take_all_off(lab: Lab) -> None:
    lab.node.run(["setfacl", "-b", "/dev/nvidia0"])


def give_to_bob(lab: Lab) -> None:
    lab.node.run(["chown", "bob:users", "/dev/nvidia0"])


def put_another_in_its_place(lab: Lab) -> None:
    make_card(lab, "new", CARDS["nvidia0"])
    (lab.node.root / "dev/new").replace(lab.node.root / "dev/nvidia0")


def test_whatever_changes_a_card_is_put_right_at_once(lab: Lab) -> None:
    make_cards(lab)
    lab.server.grant(grant(lab, "alice", "nvidia0"))
    lab.start_agent(metrics_listen=f"{lab.node.address}:9642", **SELDOM)
    wait_until_opened(lab, "alice", "nvidia0")
    right = getfacl(lab, "nvidia0")
    changes: list[Callable[[Lab], None]] = [
        chmod_600, chmod_666, make_anew, let_bob_in, take_all_off, give_to_bob,
        put_another_in_its_place,
    ]  # fmt: skip
    for count, change in enumerate(changes):
        assert repairs(lab) == count
        change(lab)
        wait_for(change.__name__, lambda: getfacl(lab, "nvidia0") == right)
        wait_for("it is counted", partial(lambda so_far: repairs(lab) == so_far, count + 1))
    chmod_666(lab)
    wait_for("it is repaired again", lambda: getfacl(lab, "nvidia0") == right)
    # By kind, not by time: a fight over a file must not fill the log.
    assert lab.node.log("agent").count("card repaired card=nvidia0 why=tampered") == 1
    assert lab.node.log("agent").count("card repaired card=nvidia0 why=made anew") == 1
    wait_for("all is well", lambda: not has_problem(lab, "enforce: "))


def test_what_is_no_device_is_left_alone_and_reported(lab: Lab) -> None:
    make_cards(lab)
    lab.node.write("/etc/passwd-of-the-site", "x", mode=0o640)
    lab.server.grant(grant(lab, "alice", "nvidia0", "nvidia1"))
    lab.start_agent(metrics_listen=f"{lab.node.address}:9642", **SELDOM)
    wait_until_opened(lab, "alice", "nvidia0", "nvidia1")
    dev = lab.node.root / "dev"
    (dev / "nvidia0").unlink()
    (dev / "nvidia0").symlink_to("/etc/passwd-of-the-site")
    (dev / "nvidia1").unlink()
    (dev / "nvidia1").touch(mode=0o644)
    for text in (
        "/dev/nvidia0 is a symbolic link and no device: left alone",
        "/dev/nvidia1 is a file and no device: left alone",
    ):
        wait_for(text, partial(has_problem, lab, text))
    assert stat.S_IMODE((dev / "nvidia1").stat().st_mode) == 0o644
    assert "user:alice" not in lab.node.run(["getfacl", "/etc/passwd-of-the-site"]).stdout
    assert repairs(lab) == 2
    assert lab.node.log("agent").count("card refused") == 2
    for card in ("nvidia0", "nvidia1"):
        (dev / card).unlink()
        make_card(lab, card)
    wait_until_opened(lab, "alice", "nvidia0", "nvidia1")
    wait_for("all is well", lambda: not has_problem(lab, "enforce: "))


def test_a_card_that_cannot_be_set_is_reported_for_as_long(lab: Lab) -> None:
    make_cards(lab)
    # Neither can be changed: one is in a file system that cannot be written, one in one
    # that knows no ACLs.
    for number, options in (("0", ["-t", "tmpfs"]), ("1", ["-t", "ramfs"])):
        lab.node.run(["mkdir", f"/run/other{number}"])
        lab.node.run(["mount", *options, "none", f"/run/other{number}"])
    for number, minor in (("0", "7"), ("1", "5")):
        lab.node.run(["mknod", "-m", "666", f"/run/other{number}/card", "c", "1", minor])
        lab.node.run(["mount", "--bind", f"/run/other{number}/card", f"/dev/nvidia{number}"])
    lab.node.run(["mount", "-o", "remount,ro", "/run/other0"])
    lab.server.grant(grant(lab, "alice", "davinci0"))
    lab.start_agent()
    for card, why in (("nvidia0", "Read-only file system"), ("nvidia1", "not supported")):
        text = f"/dev/{card} cannot be set to u::rw-"
        wait_for(card, partial(has_problem, lab, text))
        assert any(text in one and why in one for one in lab.agent_problems())
    wait_until_opened(lab, "alice", "nvidia0", "nvidia1", "davinci0")
    lab.node.run(["umount", "/dev/nvidia0", "/dev/nvidia1"])
    wait_until_opened(lab, "alice", "davinci0")
    wait_for("all is well", lambda: not has_problem(lab, "enforce: "))


def test_an_unknown_minor_number_opens_nothing_and_is_reported(lab: Lab) -> None:
    make_cards(lab)
    unknown = device("nvidia1") | {"minor": None, "index": 0}
    lab.server.grant(grant(lab, "alice", "davinci0", devices=[unknown, device("davinci0")]))
    lab.start_agent()
    wait_until_opened(lab, "alice", "davinci0")
    why = "nvidia-1 of reservation 1 has no minor number"
    wait_for("it is reported", partial(has_problem, lab, why))


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
        sizes = [0, 1, 2]

        def is_standing_still() -> bool:
            sizes.append((lab.node.root / "tmp/alive").stat().st_size)
            return len(set(sizes[-3:])) == 1

        wait_for("the one that is always another process is ended", is_standing_still)
        assert sizes[-1] > 0
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


def test_switching_it_off_gives_the_files_back_as_they_were(lab: Lab) -> None:
    make_cards(lab)
    lab.node.run(["groupadd", "HwHiAiUser"])
    lab.node.run(["chown", "bob:HwHiAiUser", "/dev/davinci0"])
    lab.node.run(["chmod", "660", "/dev/davinci0"])
    lab.node.run(["setfacl", "-m", "u:bob:r,g:users:rw,m::r", "/dev/nvidia1"])
    before = {card: getfacl(lab, card) for card in CARDS}
    state = lab.node.root / "var/lib/sentinel/cards.json"

    def are_as_before() -> bool:
        return {card: getfacl(lab, card) for card in CARDS} == before

    lab.server.grant(grant(lab, "alice", "nvidia0"))
    lab.start_agent()
    wait_until_opened(lab, "alice", "nvidia0")
    assert getfacl(lab, "davinci0") != before["davinci0"]
    # By the mode, and back again.
    lab.server.grant(grant(lab, "alice", "nvidia0"), mode="observe")
    wait_for("they are given back", are_as_before)
    wait_for("nothing is kept", lambda: not state.exists())
    lab.server.grant(grant(lab, "alice", "nvidia0"))
    wait_until_opened(lab, "alice", "nvidia0")
    # By the setting, for an agent that finds them changed by one before it.
    lab.node.stop_agent()
    assert not are_as_before()
    lab.start_agent(cards=False)
    wait_for("they are given back", are_as_before)
    lab.node.stop_agent()
    # By the uninstaller, after the agent has ended.
    lab.start_agent()
    wait_until_opened(lab, "alice", "nvidia0")
    lab.node.stop_agent()
    give_back = (
        "from pathlib import Path; from sentinel_agent.cards.origins import Origins; "
        "origins = Origins(Path('/var/lib/sentinel')); origins.load(); "
        "print(origins.give_back())"
    )
    for _ in range(2):
        assert lab.node.run([lab.node.agent_argv()[0], "-c", give_back]).stdout == "[]\n"
        assert are_as_before()


def test_in_observe_it_is_said_who_would_be_ended_and_nothing_is_changed(lab: Lab) -> None:
    make_cards(lab)
    before = {card: getfacl(lab, card) for card in CARDS}
    hold(lab, "bob", "nvidia1")
    hold(lab, "ops", "nvidia1")
    lab.server.grant(grant(lab, "alice", "nvidia1"), mode="observe")
    lab.start_agent()
    text = "would end what has cards open that are not booked: bob (nvidia1)"
    wait_for("it is reported", partial(has_problem, lab, text))
    assert sum("card" in problem for problem in lab.agent_problems()) == 1
    assert held_by(lab, "nvidia1") == ["bob", "ops"]
    assert {card: getfacl(lab, card) for card in CARDS} == before


def test_a_restart_without_the_server_takes_nothing_from_anybody(lab: Lab) -> None:
    make_cards(lab)
    lab.server.grant(grant(lab, "alice", "nvidia0"))
    lab.start_agent()
    wait_until_opened(lab, "alice", "nvidia0")
    hold(lab, "alice", "nvidia0", "exec sleep 1001")
    lab.node.stop_agent()
    lab.server.stop()
    # It was down when something opened a card, and somebody came in.
    chmod_666(lab)
    hold(lab, "bob", "nvidia0")
    lab.node.start_agent()
    wait_for("bob is ended", lambda: held_by(lab, "nvidia0") == ["alice"])
    assert opened(lab, "alice") == ["nvidia0"]


def test_without_a_policy_a_card_that_is_made_anew_is_opened_to_nobody(lab: Lab) -> None:
    make_cards(lab)
    lab.server.grant(grant(lab, "alice", "nvidia0", "nvidia1"))
    lab.start_agent()
    wait_until_opened(lab, "alice", "nvidia0", "nvidia1")
    lab.node.stop_agent()
    lab.server.stop()
    (lab.node.root / "var/lib/sentinel/policy.json").unlink()
    make_anew(lab)
    lab.node.start_agent()
    wait_until_opened(lab, "alice", "nvidia1")
    assert opened(lab, "ops") == list(CARDS)


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


def load_nvidia(lab: Lab, *, modify: int) -> None:
    """Have /proc say what it says where NVIDIA's driver runs two cards."""
    lab.node.run(["mount", "-t", "tmpfs", "none", "/proc/driver"])
    lab.node.run(["mkdir", "-p", *(f"/proc/driver/nvidia/gpus/0000:0{n}:00.0" for n in "12")])
    for number in "12":
        path = lab.node.root / f"proc/driver/nvidia/gpus/0000:0{number}:00.0/information"
        path.write_text(f"Model: \t\t NVIDIA H100\nDevice Minor: \t {2 - int(number)}\n")
    (lab.node.root / "proc/driver/nvidia/params").write_text(
        f"ModifyDeviceFiles: {modify}\nDeviceFileUID: 0\nDeviceFileGID: 44\n"
        "DeviceFileMode: 432\n"
    )


def test_files_that_nvidias_tools_were_told_not_to_make_are_made(lab: Lab) -> None:
    load_nvidia(lab, modify=0)
    lab.server.grant(grant(lab, "alice", "nvidia1"), mode="observe")
    lab.start_agent()
    dev = lab.node.root / "dev"

    def listed() -> dict[str, tuple[str, int, int]]:
        return {
            path.name: (stat.filemode(found.st_mode), found.st_gid, found.st_rdev & 0xFFFFF)
            for path in dev.glob("nvidia*")
            for found in [path.stat()]
        }

    usual = {
        "nvidiactl": ("crw-rw----", 44, os.makedev(195, 255)),
        "nvidia0": ("crw-rw----", 44, os.makedev(195, 0)),
        "nvidia1": ("crw-rw----", 44, os.makedev(195, 1)),
    }
    wait_for("they are made as the driver's tools would", lambda: listed() == usual)
    for card in ("nvidia0", "nvidia1"):
        (dev / card).unlink()
    lab.server.grant(grant(lab, "alice", "nvidia1"))
    wait_for("alice is let to hers", lambda: "user:alice:rw-" in getfacl(lab, "nvidia1"))
    wait_for("nobody to the other", lambda: "group::---" in getfacl(lab, "nvidia0"))
    assert not any(line.startswith("user:alice") for line in getfacl(lab, "nvidia0"))
    (dev / "nvidia1").unlink()
    wait_for("it is made again", lambda: "user:alice:rw-" in getfacl(lab, "nvidia1"))
    lab.server.grant(mode="observe")
    wait_for("they are what the tools would make", lambda: listed() == usual)
    wait_for("all is well", lambda: not has_problem(lab, "enforce: "))


def test_tools_that_open_the_cards_again_are_reported(lab: Lab) -> None:
    load_nvidia(lab, modify=1)
    lab.server.grant(mode="observe")
    lab.start_agent()
    beats = len(lab.server.heartbeats)
    wait_for("it reports", lambda: len(lab.server.heartbeats) > beats + 1)
    why = "enforce: NVIDIA's tools open the device files again"
    assert not has_problem(lab, why)
    lab.server.grant()
    wait_for("it is reported", partial(has_problem, lab, why))
    assert list((lab.node.root / "dev").glob("nvidia*")) == []
