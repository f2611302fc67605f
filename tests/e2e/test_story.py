"""The loop, end to end: book, log in, be measured, be locked out, be told."""

from __future__ import annotations

import time

from tests.e2e.browser import signed_in
from tests.e2e.lab_node import LabNode
from tests.e2e.steps import (
    PASSWORDS,
    add_key,
    add_person,
    alerts,
    booked_cards,
    has_session,
    join,
    node_state,
    open_session,
    parse,
    running,
    sign_in_first,
    sign_in_status,
    wanted,
)
from tests.lab.mail import MailBox
from tests.lab.system import System
from tests.lab.wait import wait_for


def test_book_log_in_be_measured_be_locked_out_be_told(
    system: System, lab_node: LabNode, mailbox: MailBox
) -> None:
    node = lab_node.node

    # 1. An administrator adds alice and makes an invite code for a node. Who is not listed
    #    cannot sign in.
    admin = sign_in_first(system, "admin", system.admin_password)
    assert sign_in_status(system, "alice", PASSWORDS["alice"]) == 401
    alice, bob = (add_person(admin, system, name) for name in ("alice", "bob"))
    assert sign_in_status(system, "mallory", "whatever-it-is-0") == 401

    # 2. The agent registers with the code, reports its devices and starts its heartbeat.
    registered_at = time.monotonic()
    uuids = join(system, admin, lab_node)
    wait_for("the heartbeat", lambda: node_state(admin, node.name).get("heartbeat_at"))

    # 3. Prometheus scrapes the node within 15 s; nobody edited a file.
    up = f'up{{node="{node.name}",job=~"node|sentinel"}} == 1'
    wait_for("both targets are up", lambda: len(system.query(up)) == 2, timeout_s=15)
    assert time.monotonic() - registered_at < 15

    # 4. alice adds her key and books cards 0 and 1 from now for an hour.
    alice_key, bob_key = add_key(alice, node), add_key(bob, node)
    #    By the API first, and released again: both ways must work.
    booked = alice.post("/api/reservations", wanted(node, uuids[:2]))
    assert booked.status_code == 201, booked.text
    by_api = booked.json()["id"]
    assert alice.post(f"/api/reservations/{by_api}/release").status_code == 200

    with signed_in(system.url, "alice", PASSWORDS["alice"]) as page:
        page.goto(f"{system.url}/book?node={node.name}")
        for index in (0, 1):
            page.get_by_role("checkbox", name=f"Card {index}").check()
        page.get_by_role("button", name="1 h", exact=True).click()
        page.get_by_role("button", name="Book", exact=True).click()
        page.wait_for_url("**/reservations**")
        booked_at = time.monotonic()

        #    bob is told what is in the way, and when it is next free.
        mine = running(alice, node.name)
        for body in (wanted(node, [uuids[1]]), wanted(node, None)):
            refused = bob.post("/api/reservations", body)
            assert refused.status_code == 409
            problem = refused.json()
            assert [item["reservation"] for item in problem["conflicts"]] == [mine["id"]]
            assert problem["conflicts"][0]["holder"] == "alice"
            assert parse(problem["next_free"]) >= parse(mine["ends"])

        # 5. alice is in within 5 s of the booking, with her cards; bob is not.
        echo = "echo $ASCEND_RT_VISIBLE_DEVICES $ASCEND_VISIBLE_DEVICES"
        wait_for("alice's login", lambda: node.ssh("alice", alice_key, "true").returncode == 0)
        assert time.monotonic() - booked_at < 5
        assert node.ssh("alice", alice_key, echo).stdout == "0,1 0,1\n"
        refused_login = node.ssh("bob", bob_key, "true")
        assert refused_login.returncode == 255
        assert "Permission denied" in refused_login.stderr
        assert node.ssh("alice", bob_key, "true").returncode == 255

        # 6. Prometheus has her session, the 8 cards, and the two booked ones.
        with open_session(node, "alice", alice_key) as session:
            wait_for("her session is counted", lambda: has_session(system, "alice"))
            cards = f'accelerator_info{{node="{node.name}",vendor="ascend"}}'
            assert {item["metric"]["uuid"] for item in system.query(cards)} == set(uuids)
            temperatures = f'accelerator_temperature_celsius{{node="{node.name}"}}'
            assert len(system.query(temperatures)) == 8
            wait_for(
                "the booked cards are series",
                lambda: (
                    booked_cards(system, node.name) == {(uuid, "alice") for uuid in uuids[:2]}
                ),
            )

            # 7. She releases on the page: no new login; the open session is warned and ended.
            page.goto(f"{system.url}/reservations")
            page.get_by_role("button", name="Release", exact=True).click()
            page.get_by_role("button", name="Release now").click()
            released_at = time.monotonic()
            wait_for(
                "a new login is refused",
                lambda: node.ssh("alice", alice_key, "true").returncode == 255,
                timeout_s=5,
            )
            assert time.monotonic() - released_at < 5
            output = session.wait_for_end()
            assert "reservation" in output
        assert wait_for("no process of hers is left", lambda: not node.processes("alice"))

    # 8. The node goes silent: the operators are mailed, the page lists it; then it recovers.
    lab_node.stop_services()
    mails = wait_for("the mail", lambda: mailbox.find("CRITICAL", node.name, "offline"), 60)
    assert "NodeOffline" in mailbox.text(mails[0])
    assert mails[0]["To"] == "ops@example.org"
    assert mailbox.find("RECOVERED", node.name) == []
    firing = wait_for("the alert is listed", lambda: alerts(admin, node.name, "firing"))
    assert firing[0]["name"] == "NodeOffline"
    with signed_in(system.url, "alice", PASSWORDS["alice"]) as page:
        page.goto(f"{system.url}/alerts")
        assert "NodeOffline" in page.inner_text("main")
        assert node.name in page.inner_text("main")
    lab_node.start_exporters()
    lab_node.start_agent()
    wait_for("the recovery mail", lambda: mailbox.find("RECOVERED", node.name), 120)
    wait_for("the alert is resolved", lambda: alerts(admin, node.name, "resolved"))
