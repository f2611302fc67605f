"""People: adding, changing, listing. Sign-ins and keys have services of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from ..domain.user_names import check_user_name
from ..errors import Conflict, InvalidInput, NotFound
from ..models import Role, User, db, write
from .audit import Actor, record
from .passwords import MAX_CHARS, MIN_CHARS, generate_password, hash_password, is_password
from .policy_version import bump_policy_of_user
from .sign_ins import LOCK, end_sign_ins_of

_PUBLIC_FIELDS = ("display_name", "email", "role", "is_active", "locale")


def list_users(after: str = "", limit: int = 50) -> Sequence[User]:
    """Return up to `limit` users whose names come after `after`, by name."""
    return db.session.scalars(
        select(User).where(User.name > after).order_by(User.name).limit(limit)
    ).all()


def get_user(name: str) -> User:
    """Return the user. Raises NotFound."""
    return _find(db.session(), name)


def count_users() -> int:
    """How many users there are, deactivated ones included."""
    return db.session.scalars(select(func.count()).select_from(User)).one()


def create_user(
    actor: Actor,
    *,
    name: str,
    role: Role,
    display_name: str = "",
    email: str | None = None,
    password: str | None = None,
    must_change_password: bool = True,
) -> tuple[User, str | None]:
    """Add a user; without a password one is generated and returned, this once.

    Raises InvalidInput for a name or password that is refused, Conflict for a name taken.
    """
    check_user_name(name)
    generated = generate_password() if password is None else None
    if password is not None:
        check_password(password, name)
    password_hash = hash_password(password or generated or "")
    with write() as session:
        user = User(
            name=name,
            display_name=display_name,
            email=email,
            role=role,
            password_hash=password_hash,
            must_change_password=must_change_password,
        )
        session.add(user)
        try:
            session.flush()
        except IntegrityError as error:
            raise Conflict(f"There is a user named {name} already.") from error
        record(session, actor, "user.create", "user", name, after=_public(user))
    return user, generated


def change_user(actor: Actor, name: str, changes: Mapping[str, object]) -> User:
    """Change some of display_name, email, role, is_active, password.

    A password set by somebody else must be changed at the next sign-in. A new password, or
    deactivating, ends the user's sign-ins; (de)activating changes the nodes' policies.
    Raises NotFound, InvalidInput for a password, Conflict when no active admin would be left.
    """
    changes = dict(changes)
    password = changes.pop("password", None)
    new_hash: str | None = None
    if isinstance(password, str):
        check_password(password, name)
        new_hash = hash_password(password)
    with write() as session:
        admins = _lock_active_admins(session)
        user = _find(session, name, is_locked=True)
        before = _public(user)
        if user.id in admins and len(admins) == 1 and _ends_admin(changes):
            raise Conflict(f"{name} is the last active admin; make somebody else one first.")
        was_active = user.is_active
        for field, value in changes.items():
            setattr(user, field, value)
        if new_hash is not None:
            user.password_hash = new_hash
            user.must_change_password = actor.user_id != user.id
        if new_hash is not None or not user.is_active:
            end_sign_ins_of(session, user.id)
        if user.is_active != was_active:
            bump_policy_of_user(session, user.id)
        _record_change(session, actor, user, before, is_password_new=new_hash is not None)
    return user


def change_profile(actor: Actor, user_id: int, changes: Mapping[str, object]) -> User:
    """Change one's own display_name, email or locale."""
    with write() as session:
        user = session.get_one(User, user_id, with_for_update=LOCK)
        before = _public(user)
        for field, value in changes.items():
            setattr(user, field, value)
        _record_change(session, actor, user, before)
    return user


def change_own_password(actor: Actor, user_id: int, sid: str, old: str, new: str) -> None:
    """Replace one's password and end one's other sign-ins.

    Raises InvalidInput when the old one is wrong or the new one is refused.
    """
    user = db.session.get_one(User, user_id)
    name, old_hash = user.name, user.password_hash
    if not is_password(old, old_hash):
        raise InvalidInput.field("old", "is not your present password")
    if new == old:
        raise InvalidInput.field("new", "must differ from the old one")
    check_password(new, name, field="new")
    new_hash = hash_password(new)
    with write() as session:
        user = session.get_one(User, user_id, with_for_update=LOCK)
        if user.password_hash != old_hash:
            raise Conflict("The password was changed at the same moment; try again.")
        user.password_hash = new_hash
        user.must_change_password = False
        end_sign_ins_of(session, user_id, keep_sid=sid)
        _record_change(session, actor, user, _public(user), is_password_new=True)


def check_password(password: str, name: str, field: str = "password") -> None:
    """Raise InvalidInput for a password that is too short, too long or the name itself."""
    if len(password) < MIN_CHARS:
        raise InvalidInput.field(field, f"must have at least {MIN_CHARS} characters")
    if len(password) > MAX_CHARS:
        raise InvalidInput.field(field, f"must have at most {MAX_CHARS} characters")
    if password.lower() == name:
        raise InvalidInput.field(field, "must not be the name")


def _find(session: Session, name: str, *, is_locked: bool = False) -> User:
    query = select(User).where(User.name == name)
    user = session.scalars(
        query.with_for_update(key_share=True) if is_locked else query
    ).one_or_none()
    if user is None:
        raise NotFound("There is no such user.")
    return user


def _lock_active_admins(session: Session) -> set[int]:
    """Lock them all, in id order: two admins cannot demote each other at the same moment."""
    return set(
        session.scalars(
            select(User.id)
            .where(User.role == Role.ADMIN, User.is_active.is_(True))
            .order_by(User.id)
            .with_for_update(key_share=True)
        )
    )


def _ends_admin(changes: Mapping[str, object]) -> bool:
    return changes.get("role", Role.ADMIN) != Role.ADMIN or not changes.get("is_active", True)


def _record_change(
    session: Session,
    actor: Actor,
    user: User,
    before: Mapping[str, object],
    *,
    is_password_new: bool = False,
) -> None:
    """Record what differs; nothing when nothing does. A password is only said to be new."""
    now = _public(user)
    changed = [field for field in now if now[field] != before[field]]
    if not changed and not is_password_new:
        return
    after = {field: now[field] for field in changed}
    if is_password_new:
        after["password"] = "(new)"  # noqa: S105  says that, not what
    record(
        session,
        actor,
        "user.change",
        "user",
        user.name,
        before={field: before[field] for field in changed},
        after=after,
    )


def _public(user: User) -> dict[str, object]:
    return {field: getattr(user, field) for field in _PUBLIC_FIELDS}
