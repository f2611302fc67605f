"""Nodes, their devices, what Prometheus scrapes there, and the invites to register."""

from __future__ import annotations

import datetime as dt
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from .database import Base, UtcDateTime, utc_now


class Mode(StrEnum):
    """observe: report what would be refused. enforce: refuse it."""

    OBSERVE = "observe"
    ENFORCE = "enforce"


class Node(Base):
    """A server that people book."""

    __tablename__ = "nodes"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(63), unique=True)
    # Host name or IP address under which Prometheus and people reach it.
    address: Mapped[str] = mapped_column(String(253), default="")
    bmc_address: Mapped[str] = mapped_column(String(253), default="")
    cluster: Mapped[str] = mapped_column(String(63), default="")
    tags: Mapped[list[str]] = mapped_column(JSON, default=list)
    mode: Mapped[Mode] = mapped_column(String(16), default=Mode.OBSERVE)
    # False keeps it out of NodeOffline, for a machine that is known to be away.
    is_monitored: Mapped[bool] = mapped_column(default=True)
    # Bumped by every change of the node's claims: lock, and ETag of its calendar.
    booking_seq: Mapped[int] = mapped_column(default=0)
    # Bumped by every change of what the node's policy says.
    policy_version: Mapped[int] = mapped_column(default=1)
    # SHA-256 of the agent's token, which is 256 random bits; None before registration.
    token_hash: Mapped[str | None] = mapped_column(String(64), unique=True)
    # That of a token which was given out and not used yet; its first use ends the other one.
    next_token_hash: Mapped[str | None] = mapped_column(String(64), unique=True, index=True)
    registered_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)
    heartbeat_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)
    agent_version: Mapped[str] = mapped_column(String(32), default="")
    # What the agent last reported: mode, policy version held, clock skew, problems, …
    agent_report: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    # The last boots that were heard since the registration, as domain/boots.py keeps them.
    boots: Mapped[list[dict[str, Any]]] = mapped_column(
        JSON, default=list, server_default=text("'[]'")
    )
    # When one of them came back: two machines use one token. None again by registering anew.
    cloned_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)
    next_slot: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utc_now)
    # Removed nodes stay, for the history of their reservations; their name is freed.
    removed_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)

    devices: Mapped[list[Device]] = relationship(back_populates="node", order_by="Device.slot")
    targets: Mapped[list[Target]] = relationship(
        back_populates="node", cascade="all, delete-orphan", order_by="Target.job"
    )


class Device(Base):
    """One accelerator chip. `slot` is given once and never used again on its node."""

    __tablename__ = "devices"
    __table_args__ = (UniqueConstraint("node_id", "uuid"), UniqueConstraint("node_id", "slot"))

    id: Mapped[int] = mapped_column(primary_key=True)
    node_id: Mapped[int] = mapped_column(ForeignKey("nodes.id"))
    slot: Mapped[int]
    uuid: Mapped[str] = mapped_column(String(96))
    vendor: Mapped[str] = mapped_column(String(16))
    # The driver's number now (NVML index, Ascend logic id); it can change at a reboot.
    index: Mapped[int]
    # The number in /dev/nvidiaN or /dev/davinciN; None where it is not known.
    minor: Mapped[int | None]
    model: Mapped[str] = mapped_column(String(100), default="")
    bus_id: Mapped[str] = mapped_column(String(32), default="")
    memory_bytes: Mapped[int | None] = mapped_column(BigInteger)
    # False once the node no longer reports it; its history stays.
    is_present: Mapped[bool] = mapped_column(default=True)

    node: Mapped[Node] = relationship(back_populates="devices")


class Target(Base):
    """Something Prometheus scrapes on a node; `/sd/<job>` lists them."""

    __tablename__ = "targets"
    __table_args__ = (UniqueConstraint("node_id", "job"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    node_id: Mapped[int] = mapped_column(ForeignKey("nodes.id"))
    job: Mapped[str] = mapped_column(String(63), index=True)
    # "host:port".
    address: Mapped[str] = mapped_column(String(260))

    node: Mapped[Node] = relationship(back_populates="targets")


class Invite(Base):
    """A one-time code with which a node's agent registers; only its SHA-256 is kept."""

    __tablename__ = "invites"

    id: Mapped[int] = mapped_column(primary_key=True)
    node_id: Mapped[int] = mapped_column(ForeignKey("nodes.id"), index=True)
    code_hash: Mapped[str] = mapped_column(String(64), unique=True)
    created_by: Mapped[str] = mapped_column(String(32))
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utc_now)
    expires_at: Mapped[dt.datetime] = mapped_column(UtcDateTime)
    used_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)

    node: Mapped[Node] = relationship()
