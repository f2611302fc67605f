"""Who may book, for whom, and within which limits. Books nothing."""

from __future__ import annotations

import datetime as dt

from sqlalchemy import select
from sqlalchemy.orm import Session

from ..config import current_config
from ..domain.booking_rules import Limits
from ..errors import InvalidInput, NotAllowed, PreconditionFailed, PreconditionRequired
from ..models import Kind, Reservation, Role, User
from .audit import Actor


def limits_of(kind: Kind) -> Limits | None:
    """Maintenance has no limits: a machine may be away for longer than anybody may book."""
    if kind == Kind.MAINTENANCE:
        return None
    config = current_config()
    return Limits(
        max_length=dt.timedelta(hours=config.max_reservation_hours),
        max_advance=dt.timedelta(days=config.max_advance_days),
    )


def check_may_book(actor: Actor) -> None:
    """Raise NotAllowed for whoever may only look."""
    if actor.role not in (Role.USER, Role.OPERATOR, Role.ADMIN):
        raise NotAllowed("Your role may look, but not book.")


def check_may_create(actor: Actor, holder: str | None, kind: Kind) -> None:
    """Raise NotAllowed for what only operators book; `holder` None: whoever asks."""
    check_may_book(actor)
    if actor.is_operator:
        return
    if holder not in (None, actor.name):
        raise NotAllowed("Only operators book for somebody else.")
    if kind != Kind.USE:
        raise NotAllowed("Only operators book maintenance.")


def check_version(item: Reservation, if_match: int | None) -> None:
    """Raise PreconditionRequired without a version, PreconditionFailed for an old one."""
    if if_match is None:
        raise PreconditionRequired("Send If-Match with the ETag of what you have seen.")
    if if_match != item.version:
        raise PreconditionFailed("The reservation was changed since: read it again.")


def lock_holder(session: Session, name: str) -> User | None:
    """Return the user, whose account and keys nobody changes until the booking is done.

    Whoever changes them reads which nodes the user has booked, to renew their policies: a
    booking that is not committed yet would be missed. Before the node's lock, because those
    changes take the two in this order.
    """
    return session.scalar(select(User).where(User.name == name).with_for_update(read=True))


def check_holder(holder: User | None) -> User:
    """Return who is to hold it. Raises InvalidInput for somebody who may not."""
    if holder is None:
        raise InvalidInput.field("holder", "there is no such user")
    if not holder.is_active:
        raise InvalidInput.field("holder", "the account is closed")
    if holder.role == Role.READONLY:
        raise InvalidInput.field("holder", "the role may look, but not book")
    return holder
