"""People, their SSH keys and their sign-ins. A person who has no row here cannot sign in."""

from __future__ import annotations

import datetime as dt
from enum import StrEnum

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column, relationship

from .database import Base, UtcDateTime, utc_now


class Role(StrEnum):
    """What a person may do; each role may do what the ones after it may.

    admin: everything. operator: nodes, invites, other people's reservations.
    user: own keys and reservations. readonly: look.
    """

    ADMIN = "admin"
    OPERATOR = "operator"
    USER = "user"
    READONLY = "readonly"


class User(Base):
    """A listed person. `name` is also the Unix account on the nodes."""

    __tablename__ = "users"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(32), unique=True)
    display_name: Mapped[str] = mapped_column(String(100), default="")
    email: Mapped[str | None] = mapped_column(String(254))
    role: Mapped[Role] = mapped_column(String(16))
    password_hash: Mapped[str] = mapped_column(String(200))
    must_change_password: Mapped[bool] = mapped_column(default=False)
    is_active: Mapped[bool] = mapped_column(default=True)
    locale: Mapped[str | None] = mapped_column(String(8))
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utc_now)

    keys: Mapped[list[SshKey]] = relationship(back_populates="user", order_by="SshKey.id")


class SshKey(Base):
    """A public key. The fingerprint is unique: a key belongs to one person only."""

    __tablename__ = "ssh_keys"

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    # "ssh-ed25519 AAAA…": type and blob, without the comment.
    public_key: Mapped[str] = mapped_column(String(4096))
    key_type: Mapped[str] = mapped_column(String(64))
    bits: Mapped[int]
    # "SHA256:…" as ssh-keygen -l prints it.
    fingerprint: Mapped[str] = mapped_column(String(64), unique=True)
    label: Mapped[str] = mapped_column(String(100), default="")
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utc_now)

    user: Mapped[User] = relationship(back_populates="keys")


class SignIn(Base):
    """One sign-in. Its access and refresh tokens carry `sid`; logging out revokes both."""

    __tablename__ = "sign_ins"

    sid: Mapped[str] = mapped_column(String(32), primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utc_now)
    expires_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, index=True)
    revoked_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)
    ip: Mapped[str] = mapped_column(String(45), default="")
