"""The history of alerts that Alertmanager has posted. Rules and routing live elsewhere."""

from __future__ import annotations

import datetime as dt
from typing import Any

from sqlalchemy import JSON, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from .database import Base, UtcDateTime, utc_now


class Alert(Base):
    """One firing of one alert. A repeated post of the same firing changes this row.

    Fingerprint and start together name a firing: RECOVERED mails list again alerts that
    recovered minutes before, and those must not become new rows.
    """

    __tablename__ = "alerts"
    __table_args__ = (
        UniqueConstraint("fingerprint", "starts_at"),
        Index("ix_alerts_starts", "starts_at"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    name: Mapped[str] = mapped_column(String(200))
    severity: Mapped[str] = mapped_column(String(32), default="")
    # The node's name as the alert's label says it; an alert may concern no node.
    node: Mapped[str] = mapped_column(String(63), default="", index=True)
    labels: Mapped[dict[str, Any]] = mapped_column(JSON)
    annotations: Mapped[dict[str, Any]] = mapped_column(JSON)
    # Names of those who held the node when the alert arrived.
    holders: Mapped[list[str]] = mapped_column(JSON, default=list)
    starts_at: Mapped[dt.datetime] = mapped_column(UtcDateTime)
    # None while it fires.
    ends_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)
    received_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utc_now)
    updated_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utc_now)
