"""The loop, end to end: book, log in, be measured, be locked out, be told."""

from __future__ import annotations

import datetime as dt
import subprocess
import time
from typing import Any

import requests

from tests.e2e.browser import signed_in
from tests.e2e.lab_node import LabNode
from tests.lab.api import Api
from tests.lab.mail import MailBox
from tests.lab.node import Node
from tests.lab.system import System
from tests.lab.wait import wait_for

ALICE_PASSWORD = "alice-has-a-long-password"
BOB_PASSWORD = "bob-has-a-long-password"


def test_book_log_in_be_measured_be_locked_out_be_told(
    system: System, lab_node: LabNode, mailbox: MailBox
) -> None:
    node = lab_node.node

    # 1. An administrator adds alice and makes an invite code for a node. Who is not listed
    #    cannot sign in.
    admin = Api(system.url, "admin", system.admin_password)
    assert sign_in_status(system, "alice", ALICE_PASSWORD) == 401
    for name, password in (("alice", ALICE_PASSWORD), ("bob", BOB_PASSWORD)):
        body = {"name": name, "role": "user", "password": password}
        assert admin.post("/api/users", body).status_code == 201
    assert sign_in_status(system, "mallory", "whatever-it-is-0") == 401
    assert admin.post("/api/nodes", {"name": node.name, "mode": "enforce"}).status_code == 201
    invite = admin.post(f"/api/nodes/{node.name}/invites", {}).json()

    # 2. The agent registers with the code, reports its devices and starts its heartbeat.
    registered_at = time.monotonic()
    register(node, system, invite["code"])
    lab_node.start_agent()
    uuids = wait_for("the eight cards are reported", lambda: card_uuids(admin, node.name))
    assert len(uuids) == 8
    wait_for("the heartbeat", lambda: node_state(admin, node.name).get("heartbeat_at"))

    # 3. Prometheus scrapes the node within 15 s; nobody edited a file.
    up = f'up{{node="{node.name}",job=~"node|sentinel"}} == 1'
    wait_for("both targets are up", lambda: len(system.query(up)) == 2, timeout_s=15)
    assert time.monotonic() - registered_at < 15

    # 4. alice adds her key and books cards 0 and 1 from now for an hour.
    alice_key = node.make_key("alice")
    bob_key = node.make_key("bob")
    alice = Api(system.url, "alice", ALICE_PASSWORD)
    bob = Api(system.url, "bob", BOB_PASSWORD)
    for person, key in ((alice, alice_key), (bob, bob_key)):
        public = key.with_suffix(".pub").read_text()
        assert person.post("/api/me/keys", {"public_key": public}).status_code == 201
    #    By the API first, and released again: both ways must work.
    booked = alice.post("/api/reservations", wanted(node, uuids[:2]))
    assert booked.status_code == 201, booked.text
    by_api = booked.json()["id"]
    assert alice.post(f"/api/reservations/{by_api}/release").status_code == 200

    with signed_in(system.url, "alice", ALICE_PASSWORD) as page:
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
            series = system.query(f'sentinel_reservation_device{{node="{node.name}"}}')
            assert {item["metric"]["uuid"] for item in series} == set(uuids[:2])
            assert {item["metric"]["user"] for item in series} == {"alice"}

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
    wait_for("the NodeOffline mail", lambda: mailbox.find("NodeOffline", node.name), 60)
    assert mailbox.find("RECOVERED", node.name) == []
    firing = wait_for("the alert is listed", lambda: alerts(admin, node.name, "firing"))
    assert firing[0]["name"] == "NodeOffline"
    with signed_in(system.url, "alice", ALICE_PASSWORD) as page:
        page.goto(f"{system.url}/alerts")
        assert "NodeOffline" in page.inner_text("main")
        assert node.name in page.inner_text("main")
    lab_node.start_exporters()
    lab_node.start_agent()
    wait_for("the recovery mail", lambda: mailbox.find("RECOVERED", node.name), 120)
    wait_for("the alert is resolved", lambda: alerts(admin, node.name, "resolved"))


class OpenSession:
    """An ssh session with a terminal that a person has left open."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def __enter__(self) -> OpenSession:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait()

    def wait_for_end(self) -> str:
        """Return what the terminal showed once the session has been ended from outside."""
        output, _ = self._process.communicate(timeout=30)
        return output


def open_session(node: Node, user: str, key: Any) -> OpenSession:
    """Log in with a terminal and stay."""
    process = subprocess.Popen(
        [*node.ssh_argv(user, key, "-tt"), "echo ready; exec sleep 600"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "ready"
    return OpenSession(process)


def sign_in_status(system: System, name: str, password: str) -> int:
    body = {"name": name, "password": password}
    return requests.post(f"{system.url}/api/auth/login", json=body, timeout=10).status_code


def register(node: Node, system: System, code: str) -> None:
    node.register_agent(system.url, code)


def wanted(node: Node, uuids: list[str] | None) -> dict[str, Any]:
    ends = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    what: dict[str, Any] = {"whole_node": True} if uuids is None else {"devices": uuids}
    return {"node": node.name, "ends": ends.isoformat(), **what}


def node_state(api: Api, name: str) -> dict[str, Any]:
    state: dict[str, Any] = api.get(f"/api/nodes/{name}").json()
    return state


def card_uuids(api: Api, name: str) -> list[str]:
    devices = sorted(node_state(api, name)["devices"], key=lambda device: device["index"])
    return [device["uuid"] for device in devices]


def running(api: Api, node: str) -> dict[str, Any]:
    found = api.get("/api/reservations", node=node, state="running").json()["items"]
    assert len(found) == 1
    one: dict[str, Any] = found[0]
    return one


def alerts(api: Api, node: str, state: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api.get("/api/alerts", node=node, state=state).json()["items"]
    return [alert for alert in found if alert["name"] == "NodeOffline"]


def has_session(system: System, user: str) -> bool:
    found = system.query(f'sum(ssh_sessions{{user="{user}"}})')
    return [item["value"][1] for item in found] == ["1"]


def parse(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text)
