"""A person's SSH keys: listing, adding, removing. Reading a key is domain/ssh_keys.py's job."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from ..domain.ssh_keys import PublicKey, clean_label, read_public_key
from ..errors import Conflict, NotFound
from ..models import SshKey, User, db, write
from .audit import Actor, record
from .policy_version import bump_policy_of_user
from .sign_ins import LOCK

# Each key is a line that sshd reads at every login, and a part of each node's policy.
MAX_KEYS = 50


def list_keys(user_id: int) -> Sequence[SshKey]:
    """Return the user's keys, the oldest first."""
    return db.session.scalars(
        select(SshKey).where(SshKey.user_id == user_id).order_by(SshKey.id)
    ).all()


def add_key(actor: Actor, user_id: int, pasted: str, label: str | None = None) -> SshKey:
    """Add a key; without a label, its comment becomes one.

    Raises InvalidInput or PrivateKeyGiven for what is not a usable public key, Conflict
    when the key is somebody's already (without saying whose) or there are too many.
    """
    key = read_public_key(pasted)
    with write() as session:
        # Locks the user's row, so that two additions cannot both be the last one allowed.
        user = session.get_one(User, user_id, with_for_update=LOCK)
        n_keys = session.scalars(
            select(func.count()).select_from(SshKey).where(SshKey.user_id == user_id)
        ).one()
        if n_keys >= MAX_KEYS:
            raise Conflict(f"You have {MAX_KEYS} keys; remove one first.")
        row = SshKey(
            user_id=user.id,
            public_key=key.text,
            key_type=key.key_type,
            bits=key.bits,
            fingerprint=key.fingerprint,
            label=clean_label(label) if label is not None else key.comment,
        )
        _insert(session, row, key)
        record(session, actor, "key.add", "key", row.id, after=_public(row, user.name))
        bump_policy_of_user(session, user_id)
    return row


def remove_key(actor: Actor, user_id: int, key_id: int) -> None:
    """Remove one of the user's keys. Raises NotFound when it is not theirs."""
    with write() as session:
        # Also against a booking at the same moment, whose node's policy must be renewed.
        session.get_one(User, user_id, with_for_update=LOCK)
        row = session.scalars(
            select(SshKey).where(SshKey.id == key_id, SshKey.user_id == user_id)
        ).one_or_none()
        if row is None:
            raise NotFound("You have no such key.")
        record(session, actor, "key.remove", "key", row.id, before=_public(row, row.user.name))
        session.delete(row)
        bump_policy_of_user(session, user_id)


def _insert(session: Session, row: SshKey, key: PublicKey) -> None:
    session.add(row)
    try:
        session.flush()
    except IntegrityError as error:
        # The unique fingerprint decides, also between two requests at the same moment.
        raise Conflict(
            f"The key {key.fingerprint} is registered already; a key belongs to one person."
        ) from error


def _public(row: SshKey, owner: str) -> dict[str, object]:
    return {
        "owner": owner,
        "key_type": row.key_type,
        "fingerprint": row.fingerprint,
        "label": row.label,
    }
