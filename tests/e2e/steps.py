"""Steps that the end-to-end tests share, as a person or a script would take them."""

from __future__ import annotations

import datetime as dt
import subprocess
from pathlib import Path
from typing import Any

import requests

from tests.e2e.lab_node import LabNode
from tests.lab.api import Api
from tests.lab.node import Node
from tests.lab.system import System
from tests.lab.wait import wait_for

# What each person's password is once they have chosen their own.
PASSWORDS = {name: f"{name}-has-a-long-password" for name in ("admin", "alice", "bob")}


def sign_in(system: System, name: str) -> Api:
    """Sign somebody in who has chosen a password."""
    return Api(system.url, name, PASSWORDS[name])


def sign_in_first(system: System, name: str, given: str) -> Api:
    """Sign in with a password that somebody else has set, and choose another, as one must."""
    first = Api(system.url, name, given)
    assert first.get("/api/nodes").status_code == 403
    assert first.post("/api/me/password", {"old": given, "new": PASSWORDS[name]}).ok
    return sign_in(system, name)


def add_person(admin: Api, system: System, name: str) -> Api:
    """Put somebody on the list of those who may sign in, and sign them in."""
    answer = admin.post("/api/users", {"name": name, "role": "user"})
    assert answer.status_code == 201
    return sign_in_first(system, name, answer.json()["generated_password"])


def add_key(person: Api, node: Node) -> Path:
    """Make a key pair, give booking its public half and return the private one's path."""
    key = node.make_key(person.name)
    public = key.with_suffix(".pub").read_text()
    assert person.post("/api/me/keys", {"public_key": public}).status_code == 201
    return key


def join(system: System, admin: Api, lab_node: LabNode) -> list[str]:
    """Add the node, register its agent with an invite; return its eight cards' uuids."""
    node = lab_node.node
    assert admin.post("/api/nodes", {"name": node.name, "mode": "enforce"}).status_code == 201
    invite = admin.post(f"/api/nodes/{node.name}/invites", {}).json()
    lab_node.register_agent(system.url, invite["code"])
    lab_node.start_agent()
    uuids = wait_for("the eight cards are reported", lambda: card_uuids(admin, node.name))
    assert len(uuids) == 8
    return uuids


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


def booked_cards(system: System, node: str) -> set[tuple[str, str]]:
    """Return the node's booked cards as Prometheus knows them: uuid and user."""
    series = system.query(f'sentinel_reservation_device{{node="{node}"}}')
    return {(item["metric"]["uuid"], item["metric"]["user"]) for item in series}


def has_session(system: System, user: str) -> bool:
    found = system.query(f'sum(ssh_sessions{{user="{user}"}})')
    return [item["value"][1] for item in found] == ["1"]


def parse(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text)
