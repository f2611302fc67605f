"""The lock on the cards, with a real agent, users, sshd and device files."""

from __future__ import annotations

import stat
from collections.abc import Callable
from functools import partial

from tests.agent.card_lab import (
    ASKED,
    CARDS,
    SELDOM,
    ask,
    device,
    getfacl,
    grant,
    has_problem,
    held_by,
    hold,
    make_card,
    make_cards,
    opened,
    repairs,
    wait_until_opened,
)
from tests.agent.conftest import Lab
from tests.lab.wait import wait_for


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
