"""Reservations and the claims that keep two of them off one device at one time."""

from __future__ import annotations

import datetime as dt
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, CheckConstraint, ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from .database import Base, UtcDateTime, utc_now
from .node import Node
from .user import User

# A whole-node claim covers [0, SLOT_END): cards that are added later, and no cards at all.
SLOT_END = 2**20


class Kind(StrEnum):
    """A holder's use, or the operators' maintenance, which no holder can book over."""

    USE = "use"
    MAINTENANCE = "maintenance"


class Reservation(Base):
    """A holder's claim on a whole node or some of its devices over [starts, ends).

    Releasing it sets `ends` to that moment and `released_at`; one that had not begun
    is cancelled: `ends` stays, the claims become inactive. Rows are never deleted.
    """

    __tablename__ = "reservations"
    __table_args__ = (
        CheckConstraint("starts <= ends", name="interval"),
        Index("ix_reservations_node_ends", "node_id", "ends"),
        Index("ix_reservations_user_ends", "user_id", "ends"),
        # What runs or comes is found by `ends`; lists are paged by (starts, id).
        Index("ix_reservations_ends", "ends"),
        Index("ix_reservations_starts", "starts", "id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    node_id: Mapped[int] = mapped_column(ForeignKey("nodes.id"))
    kind: Mapped[Kind] = mapped_column(String(16), default=Kind.USE)
    whole_node: Mapped[bool]
    starts: Mapped[dt.datetime] = mapped_column(UtcDateTime)
    ends: Mapped[dt.datetime] = mapped_column(UtcDateTime)
    purpose: Mapped[str] = mapped_column(String(500), default="")
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utc_now)
    released_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)
    is_cancelled: Mapped[bool] = mapped_column(default=False)
    version: Mapped[int] = mapped_column(default=1)

    user: Mapped[User] = relationship()
    node: Mapped[Node] = relationship()
    claims: Mapped[list[Claim]] = relationship(
        back_populates="reservation", order_by="Claim.slot_lo"
    )


class Claim(Base):
    """A rectangle of slots [slot_lo, slot_hi) by time [starts, ends) on one node.

    Active claims of a node never overlap. The database guarantees it with an exclusion
    constraint (PostgreSQL) or triggers (SQLite), which are written in guards.py.
    """

    __tablename__ = "claims"
    __table_args__ = (
        CheckConstraint("slot_lo < slot_hi", name="slots"),
        CheckConstraint("starts <= ends", name="interval"),
        Index("ix_claims_node_ends", "node_id", "ends"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    reservation_id: Mapped[int] = mapped_column(ForeignKey("reservations.id"), index=True)
    node_id: Mapped[int] = mapped_column(ForeignKey("nodes.id"))
    slot_lo: Mapped[int]
    slot_hi: Mapped[int]
    starts: Mapped[dt.datetime] = mapped_column(UtcDateTime)
    ends: Mapped[dt.datetime] = mapped_column(UtcDateTime)
    is_active: Mapped[bool] = mapped_column(default=True)

    reservation: Mapped[Reservation] = relationship(back_populates="claims")


class IdempotencyKey(Base):
    """The answer given to a POST with Idempotency-Key, kept with what it created."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (UniqueConstraint("user_id", "key"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    key: Mapped[str] = mapped_column(String(255))
    body_hash: Mapped[str] = mapped_column(String(64))
    response: Mapped[dict[str, Any]] = mapped_column(JSON)
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utc_now, index=True)
