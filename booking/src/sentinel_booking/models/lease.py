"""Leases by which one process at a time does the due work. The work itself is the worker's."""

from __future__ import annotations

import datetime as dt

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from .database import Base, UtcDateTime


class Lease(Base):
    """Held by `owner` until `expires_at`; taken by a conditional UPDATE."""

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    owner: Mapped[str] = mapped_column(String(64))
    expires_at: Mapped[dt.datetime] = mapped_column(UtcDateTime)
