"""Sign-ins: opening one by password, looking it up, ending it. Tokens are tokens.py's job."""

from __future__ import annotations

import datetime as dt
import uuid
from dataclasses import dataclass

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from ..errors import NotSignedIn
from ..models import Role, SignIn, User, db, utc_now, write
from .audit import Actor, record
from .passwords import hash_password, is_hash_outdated, is_password

# A lock of a user's row that a new reservation's foreign key passes (FOR NO KEY UPDATE): the
# booking holds the node and would wait for the user, we hold the user and wait for the node.
LOCK = {"key_share": True}


@dataclass(frozen=True)
class SignedIn:
    """A person with a sign-in that is valid now; the role is the one in force now."""

    sid: str
    user_id: int
    name: str
    display_name: str
    role: Role
    locale: str | None
    must_change_password: bool


def open_sign_in(name: str, password: str, ip: str, lifetime: dt.timedelta) -> SignedIn:
    """Check name and password and open a sign-in.

    Raises NotSignedIn, with the same words for an unknown name, a wrong password and a
    deactivated user, and after the same time.
    """
    user = db.session.scalars(select(User).where(User.name == name)).one_or_none()
    # Outside the write transaction: hashing takes tens of milliseconds.
    is_right = is_password(password, user.password_hash if user else None)
    if user is None or not is_right or not user.is_active:
        # An unknown name may be a password typed into the wrong field: it is not recorded.
        known = user.name if user else "(unknown)"
        with write() as session:
            record(
                session, Actor(kind="user", name=known, ip=ip), "sign_in.refuse", "user", known
            )
        raise NotSignedIn("The name or the password is wrong.")
    user_id = user.id
    new_hash = hash_password(password) if is_hash_outdated(user.password_hash) else None
    checked_hash = user.password_hash
    with write() as session:
        # Read again under the lock: whoever deactivates the user or sets another password
        # ends the sign-ins that are there, and this one must not slip in behind.
        user = session.get_one(User, user_id, with_for_update=LOCK)
        if not user.is_active or user.password_hash != checked_hash:
            raise NotSignedIn("The name or the password is wrong.")
        if new_hash is not None:
            user.password_hash = new_hash
        sign_in = SignIn(
            sid=uuid.uuid4().hex, user_id=user.id, expires_at=utc_now() + lifetime, ip=ip
        )
        session.add(sign_in)
        actor = Actor(kind="user", name=user.name, ip=ip, user_id=user.id, role=user.role)
        record(session, actor, "sign_in.open", "user", user.name)
        return _signed_in(sign_in.sid, user)


def find_sign_in(sid: str) -> SignedIn | None:
    """Return the sign-in unless it is revoked or over, or its user deactivated."""
    row = db.session.execute(
        select(SignIn.sid, User)
        .join(User, User.id == SignIn.user_id)
        .where(
            SignIn.sid == sid,
            SignIn.revoked_at.is_(None),
            SignIn.expires_at > utc_now(),
            User.is_active.is_(True),
        )
    ).one_or_none()
    return None if row is None else _signed_in(row[0], row[1])


def end_sign_in(sid: str, actor: Actor) -> None:
    """Revoke one sign-in: its access and refresh tokens are refused from now on."""
    with write() as session:
        ended = session.execute(
            update(SignIn)
            .where(SignIn.sid == sid, SignIn.revoked_at.is_(None))
            .values(revoked_at=utc_now())
            .returning(SignIn.sid)
        ).all()
        if ended:
            record(session, actor, "sign_in.end", "user", actor.name)


def end_sign_ins_of(session: Session, user_id: int, keep_sid: str | None = None) -> None:
    """Revoke a user's sign-ins, but `keep_sid`, in the caller's transaction."""
    session.execute(
        update(SignIn)
        .where(SignIn.user_id == user_id, SignIn.revoked_at.is_(None), SignIn.sid != keep_sid)
        .values(revoked_at=utc_now())
        if keep_sid is not None
        else update(SignIn)
        .where(SignIn.user_id == user_id, SignIn.revoked_at.is_(None))
        .values(revoked_at=utc_now())
    )


def forget_old_sign_ins() -> int:
    """Delete sign-ins that are over; the audit trail keeps that they were. For the worker."""
    with write() as session:
        gone = session.execute(
            delete(SignIn).where(SignIn.expires_at < utc_now()).returning(SignIn.sid)
        ).all()
        return len(gone)


def _signed_in(sid: str, user: User) -> SignedIn:
    return SignedIn(
        sid=sid,
        user_id=user.id,
        name=user.name,
        display_name=user.display_name,
        role=Role(user.role),
        locale=user.locale,
        must_change_password=user.must_change_password,
    )
