"""Fills a running system with the demo lab and keeps its simulated nodes alive.

Usage: python -m script.demo_lab STATE URL PASSWORD_FILE, called by script/demo.
"""

from __future__ import annotations

import concurrent.futures
import datetime as dt
import json
import logging
import secrets
import signal
import sys
import time
from pathlib import Path

from script.demo_lab import agents, exporters
from script.demo_lab.bookings import Plan, plan_bookings
from script.demo_lab.client import Client, Refused
from script.demo_lab.history import write_history
from script.demo_lab.lab import NODES, PEOPLE, DemoNode

# Away from the default ports, which the real exporters of this machine have.
SENTINEL_PORT = 19641
NODE_PORT = 19100
BEAT_EVERY_S = 10

log = logging.getLogger("demo")


def address_of(node: DemoNode) -> str:
    """Return the loopback address that stands for the node."""
    return f"127.0.2.{NODES.index(node) + 1}"


def add_people(admin: Client, password_file: Path) -> str:
    """Add those who are missing; return the password that they all begin with."""
    if not password_file.exists():
        password_file.touch(mode=0o600)
        password_file.write_text("demo-" + secrets.token_urlsafe(9))
    password = password_file.read_text()
    for person in PEOPLE:
        if admin.exists(f"/api/users/{person.name}"):
            continue
        admin.call(
            "POST",
            "/api/users",
            {
                "name": person.name,
                "display_name": person.display_name,
                "email": f"{person.name}@lab.example",
                "role": person.role,
                "password": password,
            },
        )
    return password


def add_nodes(admin: Client, url: str, tokens_file: Path) -> dict[str, str]:
    """Add the missing nodes, register their agents, report devices; return the tokens."""
    tokens: dict[str, str] = {}
    if tokens_file.exists():
        tokens = json.loads(tokens_file.read_text())
    for node in NODES:
        if not admin.exists(f"/api/nodes/{node.name}"):
            admin.call(
                "POST",
                "/api/nodes",
                {
                    "name": node.name,
                    "cluster": node.cluster,
                    "tags": list(node.tags),
                    "mode": "observe" if "teaching" in node.tags else "enforce",
                },
            )
            tokens.pop(node.name, None)
        if node.name not in tokens:
            invite = admin.call("POST", f"/api/nodes/{node.name}/invites", {})
            answer = Client(url).call(
                "POST",
                "/api/agent/register",
                {
                    "code": invite["code"],
                    "hostname": node.name,
                    "address": address_of(node),
                    "agent_version": "demo",
                },
            )
            tokens[node.name] = answer["token"]
            tokens_file.touch(mode=0o600)
            tokens_file.write_text(json.dumps(tokens))
        agent = Client(url, tokens[node.name])
        agent.call(
            "PUT", "/api/agent/inventory", agents.inventory(node, SENTINEL_PORT, NODE_PORT)
        )
    return tokens


def add_coming(admin: Client, plans: list[Plan]) -> None:
    """Book what lies ahead, as an operator does for others."""
    uuids = {node.name: agents.device_uuids(node) for node in NODES}
    for plan in plans:
        if admin.call("GET", f"/api/reservations?node={plan.node}&state=coming&limit=1")[
            "items"
        ]:
            continue
        what = (
            {"whole_node": True}
            if plan.cards is None
            else {"devices": [uuids[plan.node][card] for card in plan.cards]}
        )
        body = {
            "node": plan.node,
            "holder": plan.user,
            "starts": plan.starts.isoformat(),
            "ends": plan.ends.isoformat(),
            "purpose": plan.purpose,
        }
        try:
            admin.call("POST", "/api/reservations", body | what)
        except Refused as refusal:
            # Somebody may have booked by hand in the meantime; theirs stands.
            if refusal.status != 409:
                raise


def main(state: Path, url: str, password: str) -> None:
    """Fill the system, then serve and beat until Ctrl-C."""
    logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stderr)
    admin = Client.sign_in(url, "demo", password)
    people_password = add_people(admin, state / "demo" / "people-password")
    tokens = add_nodes(admin, url, state / "demo" / "tokens.json")

    now = dt.datetime.now(dt.UTC)
    plans = plan_bookings(now, past_days=21, coming_days=5)
    begun = [plan for plan in plans if plan.starts <= now]
    count = write_history(state / "booking.toml", begun)
    log.info("bookings past and running: %d added", count)
    if count:
        add_coming(admin, [plan for plan in plans if plan.starts > now])

    states = [exporters.NodeState(node, agents.device_uuids(node)) for node in NODES]
    alive = [state_ for state_ in states if state_.node.is_up]
    try:
        for node_state in alive:
            exporters.serve(node_state, address_of(node_state.node), SENTINEL_PORT, NODE_PORT)
    except OSError as error:
        sys.exit(
            f"error: ports {SENTINEL_PORT} and {NODE_PORT} of 127.0.2.*: {error.strerror}"
            " (does another script/demo run?)"
        )
    log.info(
        "people %s sign in first with the password %s and then choose their own",
        ", ".join(person.name for person in PEOPLE),
        people_password,
    )
    log.info("the lab is running at %s; Ctrl-C ends its nodes (they go grey)", url)
    clients = {name: Client(url, token) for name, token in tokens.items()}
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        while True:
            list(pool.map(lambda item: agents.beat(clients[item.node.name], item), alive))
            time.sleep(BEAT_EVERY_S)


if __name__ == "__main__":
    # Set anew: whoever starts it in the background has it ignore Ctrl-C.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]).read_text().strip())
    except KeyboardInterrupt:
        sys.exit(0)
