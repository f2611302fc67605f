"""A believable lab for the tests of the pages: people, nodes, bookings, alerts."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

from apiflask import APIFlask
from sqlalchemy.orm import Session

from sentinel_booking.app import create_app
from sentinel_booking.config import Config
from sentinel_booking.models import (
    SLOT_END,
    Alert,
    Claim,
    Device,
    Kind,
    Mode,
    Node,
    Reservation,
    Role,
    SshKey,
    User,
    upgrade_schema,
    utc_now,
    write,
)
from sentinel_booking.services.audit import Actor, record
from sentinel_booking.services.passwords import hash_password
from tests.booking.people import PASSWORD

HOUR = dt.timedelta(hours=1)
GIB = 2**30

PEOPLE = (
    ("admin", "", Role.ADMIN),
    ("olga", "Olga Petrova", Role.OPERATOR),
    ("alice", "Alice Chen", Role.USER),
    ("bob", "Bob Müller", Role.USER),
    ("li-wei", "李伟", Role.USER),
    ("zhang-min", "张敏", Role.USER),
    ("visitor", "", Role.READONLY),
)

# Name, cluster, tags, vendor, model, cards, memory in GiB, minutes since the last heartbeat.
NODES = (
    ("gpu-01", "training", ("h100", "nvlink"), "nvidia", "NVIDIA H100 80GB HBM3", 8, 80, 0),
    ("gpu-02", "training", ("h100", "nvlink"), "nvidia", "NVIDIA H100 80GB HBM3", 8, 80, 0),
    ("gpu-03", "training", ("a100",), "nvidia", "NVIDIA A100-SXM4-40GB", 4, 40, 47),
    ("npu-01", "ascend", ("910b",), "ascend", "Ascend 910B3", 16, 64, 0),
    ("npu-02", "ascend", ("910b",), "ascend", "Ascend 910B3", 8, 64, 0),
    ("cpu-01", "", ("big-memory",), "", "", 0, 0, 0),
)

# Alerts about a card of gpu-01: its index.
TROUBLED = {"AcceleratorUnhealthy": 3, "AcceleratorMemoryErrors": 4}

# Where sshd's drop-in and the PAM gate are not both in place.
LOCKS = {"cpu-01": "open", "npu-02": "partial"}

# Node, holder, cards (None: whole machine), hours from now until, purpose.
BOOKINGS = (
    ("gpu-01", "alice", (0, 1), -3.0, 5.0, "fine-tuning the 7B model"),
    ("gpu-01", "bob", (4, 5, 6, 7), -26.0, 22.0, "ablation study for the paper"),
    ("gpu-01", "zhang-min", (0, 1, 2, 3), 7.0, 19.0, "推理服务压测"),
    ("gpu-02", "li-wei", None, -10.0, 14.0, "预训练实验"),
    ("gpu-02", "alice", (0,), 15.0, 18.0, "evaluation"),
    ("npu-01", "alice", (8, 9), -1.0, 2.0, "port to CANN"),
    ("npu-01", "zhang-min", (0, 1, 2, 3, 4, 5), -5.0, 4.0, "MindSpore 训练"),
    ("npu-02", "olga", None, 3.0, 6.0, "firmware update"),
    ("cpu-01", "bob", None, -2.0, 1.0, "preprocessing"),
    ("gpu-01", "alice", (2,), -60.0, -50.0, "short test"),
    ("gpu-02", "alice", None, -100.0, -80.0, "benchmark"),
)


_PASSWORD_HASH = hash_password(PASSWORD)


def lab_config(folder: Path, **settings: Any) -> Config:
    """A configuration, on SQLite in that folder unless told; `settings` as in Config."""
    for name in ("secret", "scrape", "webhook"):
        (folder / name).write_text(f"{name}-for-tests-0123456789abcdef0123456789\n")
    database = {"database_url": f"sqlite:///{folder / 'booking.db'}"}
    return Config(
        secret_key_file=folder / "secret",
        scrape_token_file=folder / "scrape",
        webhook_token_file=folder / "webhook",
        **(database | settings),
    )


def make_lab(folder: Path, **settings: Any) -> APIFlask:
    """The application on a database of its own, with the lab in it."""
    app = create_app(lab_config(folder, **settings))
    with app.app_context():
        upgrade_schema()
    fill_lab(app)
    return app


def fill_lab(app: APIFlask) -> None:
    """Fill an empty database with the lab; what runs and comes is counted from now."""
    now = utc_now().replace(second=0, microsecond=0)
    with app.app_context(), write() as session:
        users = {name: _user(session, name, shown, role) for name, shown, role in PEOPLE}
        nodes = {row[0]: _node(session, row, now) for row in NODES}
        session.flush()
        for name, holder, cards, starts, ends, purpose in BOOKINGS:
            reservation = _reservation(
                cards, now + starts * HOUR, now + ends * HOUR, nodes[name]
            )
            reservation.user = users[holder]
            reservation.purpose = purpose
            if holder == "olga":
                reservation.kind = Kind.MAINTENANCE
            session.add(reservation)
        session.add(
            SshKey(
                user=users["alice"],
                public_key="ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBoV2k6x0gdLwVt6jzjH2Mxp",
                key_type="ssh-ed25519",
                bits=256,
                fingerprint="SHA256:4z1yVZ1mZ0b3kQw6mX0t9o1cJt1t2m6mQ3v7yKp8r2E",
                label="alice@laptop",
                created_at=now - 90 * 24 * HOUR,
            )
        )
        _alerts(session, now)
        actor = Actor("user", "admin", "192.0.2.7", users["admin"].id, Role.ADMIN)
        record(session, actor, "user.create", "user", "alice", after={"role": "user"})
        record(
            session,
            actor,
            "node.change",
            "node",
            "gpu-01",
            before={"mode": "observe", "tags": ["h100"]},
            after={"mode": "enforce", "tags": ["h100", "nvlink"]},
        )


def _user(session: Session, name: str, display_name: str, role: Role) -> User:
    user = User(
        name=name,
        display_name=display_name,
        email=f"{name}@lab.example",
        role=role,
        password_hash=_PASSWORD_HASH,
    )
    session.add(user)
    return user


def _node(
    session: Session,
    row: tuple[str, str, tuple[str, ...], str, str, int, int, int],
    now: dt.datetime,
) -> Node:
    name, cluster, tags, vendor, model, cards, memory_gib, silent_minutes = row
    problems = ["cannot set the ACL of /dev/nvidia3: no such file"] if name == "gpu-02" else []
    mode = "observe" if name == "cpu-01" else "enforce"
    if mode == "observe":
        problems = ["enforce: would end alice: no running reservation, 2 SSH connections"]
    node = Node(
        name=name,
        address=f"10.0.8.{len(name) + ord(name[-1])}",
        bmc_address="10.0.9.11" if name == "gpu-01" else "",
        cluster=cluster,
        tags=list(tags),
        mode=Mode.OBSERVE if name == "cpu-01" else Mode.ENFORCE,
        token_hash=f"{name:x<64}",
        registered_at=now - 40 * 24 * HOUR,
        heartbeat_at=utc_now() - dt.timedelta(minutes=silent_minutes),
        agent_version="0.1.0",
        policy_version=12,
        agent_report={
            "mode": mode,
            "policy_version": 12,
            "clock_skew_s": -3700.0 if name == "npu-02" else 0.021,
            "sessions": {"alice": 2, "bob": 1},
            "problems": problems,
            "lock": LOCKS.get(name, "locked"),
            "unclean": ["bob"] if name == "npu-02" else [],
        },
        next_slot=cards,
        cloned_at=now - 2 * HOUR if name == "npu-02" else None,
    )
    node.devices = [
        Device(
            slot=index,
            uuid=(
                gpu_uuid(name, index)
                if vendor == "nvidia"
                else f"npu-0000:{0x81 + index:02X}:00.0"
            ),
            vendor=vendor,
            index=index,
            minor=index,
            model=model,
            bus_id=f"0000:{0x11 + index:02X}:00.0",
            memory_bytes=memory_gib * GIB,
        )
        for index in range(cards)
    ]
    session.add(node)
    return node


def gpu_uuid(node: str, index: int) -> str:
    """The uuid of one of the lab's GPUs."""
    return f"GPU-{ord(node[-1]):08x}-5b1d-4c02-9f0e-{index:012x}"


def _reservation(
    cards: tuple[int, ...] | None, starts: dt.datetime, ends: dt.datetime, node: Node
) -> Reservation:
    slots = [(0, SLOT_END)] if cards is None else [(card, card + 1) for card in cards]
    return Reservation(
        node=node,
        whole_node=cards is None,
        starts=starts,
        ends=ends,
        claims=[
            Claim(node_id=node.id, slot_lo=lo, slot_hi=hi, starts=starts, ends=ends)
            for lo, hi in slots
        ],
    )


def _alerts(session: Session, now: dt.datetime) -> None:
    runbook = "https://docs.example/runbooks/"
    rows: tuple[tuple[str, str, str, str, list[str], float, float | None], ...] = (
        ("NodeOffline", "critical", "gpu-03", "gpu-03 has sent no heartbeat for 2 minutes", [],
         -0.75, None),
        ("AcceleratorHot", "warning", "gpu-01",
         "GPU 4 of gpu-01 has been above 85 °C for 5 minutes", ["alice", "bob"], -0.2, None),
        ("AcceleratorUnhealthy", "critical", "gpu-01", "Accelerator 3 of gpu-01 is unhealthy",
         [], -0.1, None),
        ("AcceleratorMemoryErrors", "warning", "gpu-01", "Card 4 of gpu-01 has memory errors",
         ["bob"], -0.1, None),
        ("DiskAlmostFull", "warning", "cpu-01", "/data of cpu-01 is full in about 6 hours",
         ["bob"], -30.0, -28.5),
        ("FanFailed", "critical", "npu-01", "Fan 3 of npu-01 does not turn", [],
         -200.0, -190.0),
    )  # fmt: skip
    for number, (name, severity, node, summary, holders, starts, ends) in enumerate(rows):
        session.add(
            Alert(
                fingerprint=f"{number:016x}",
                name=name,
                severity=severity,
                node=node,
                labels={"alertname": name, "node": node, "severity": severity}
                | ({"uuid": gpu_uuid(node, TROUBLED[name])} if name in TROUBLED else {}),
                annotations={"summary": summary, "runbook_url": runbook + name},
                holders=holders,
                starts_at=now + starts * HOUR,
                ends_at=None if ends is None else now + ends * HOUR,
            )
        )
