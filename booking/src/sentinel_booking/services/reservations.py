"""Booking, changing and releasing: each use case one transaction under the node's lock.

What overlaps is judged in domain/conflicts.py and refused a second time by the database.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from ..domain.booking_rules import (
    State,
    choice_problems,
    interval_problems,
    new_end_problems,
    purpose_problems,
    settle_start,
)
from ..domain.conflicts import Interval, Slots, merge_slots
from ..errors import (
    Conflict,
    FieldProblem,
    InvalidInput,
    NotAllowed,
    NotFound,
)
from ..models import (
    SLOT_END,
    Claim,
    Device,
    Kind,
    Node,
    Reservation,
    utc_now,
)
from .audit import Actor
from .booked import Wish, lock_node, lock_node_of, refuse_overlap
from .booking_permits import (
    check_holder,
    check_may_book,
    check_may_create,
    check_version,
    limits_of,
    lock_holder,
)
from .idempotency import Once, find_answer, keep_answer
from .reservation_trail import note_change
from .reservation_view import (
    ReservationView,
    from_json,
    read_views,
    to_json,
    with_details,
)
from .transactions import run_write

# Later than anything that can be booked.
_ANY_TIME = dt.datetime.max.replace(tzinfo=dt.UTC)


@dataclass(frozen=True)
class Wanted:
    """A reservation that somebody asks for; times are aware.

    Either `device_uuids` or `whole_node`. `starts` None: now. `holder` None: whoever asks.
    """

    node: str
    ends: dt.datetime
    device_uuids: tuple[str, ...] = ()
    whole_node: bool = False
    starts: dt.datetime | None = None
    purpose: str = ""
    holder: str | None = None
    kind: Kind = Kind.USE


def create_reservation(
    actor: Actor, wanted: Wanted, idempotency_key: str | None = None, body_hash: str = ""
) -> ReservationView:
    """Book. Who: users; for another holder, or for maintenance: operators.

    A start that has just gone by becomes now. Repeated with the same key and body hash, it
    returns the first answer and books nothing.
    Raises InvalidInput with every problem, NotAllowed, SlotTaken with advice, Unavailable.
    """
    check_may_create(actor, wanted.holder, wanted.kind)
    purpose = wanted.purpose.strip()
    problems = choice_problems(wanted.device_uuids, whole_node=wanted.whole_node)
    problems += purpose_problems(purpose)
    once = None
    if idempotency_key is not None and actor.user_id is not None:
        once = Once(actor.user_id, idempotency_key, body_hash)
        problems += once.problems()
    if problems:
        raise InvalidInput("The reservation cannot be made.", fields=problems)

    def book(session: Session) -> ReservationView:
        user = lock_holder(session, wanted.holder or actor.name)
        node = lock_node(session, wanted.node)
        # Behind the lock: whoever waited for it begins when the wait is over.
        now = utc_now()
        if once is not None and (answer := find_answer(session, once)) is not None:
            session.rollback()
            return from_json(answer)
        if node is None:
            raise InvalidInput.field("node", "there is no such node")
        holder = check_holder(user)
        limits = limits_of(wanted.kind)
        interval = Interval(settle_start(wanted.starts, now), wanted.ends)
        problems = interval_problems(interval, now, limits)
        slots = _find_slots(session, node, wanted, problems)
        if problems:
            raise InvalidInput("The reservation cannot be made.", fields=problems)
        latest_start = _ANY_TIME if limits is None else now + limits.max_advance
        refuse_overlap(session, node, Wish(slots, interval, latest_start))
        item = Reservation(
            user=holder,
            node=node,
            kind=wanted.kind,
            whole_node=wanted.whole_node,
            starts=interval.starts,
            ends=interval.ends,
            purpose=purpose,
            created_at=now,
            claims=[
                Claim(
                    node_id=node.id,
                    slot_lo=part.lo,
                    slot_hi=part.hi,
                    starts=interval.starts,
                    ends=interval.ends,
                )
                for part in slots
            ],
        )
        session.add(item)
        session.flush()
        view = note_change(session, actor, item, now, action="reservation.create", before=None)
        if once is not None:
            keep_answer(session, once, to_json(view))
        return view

    return run_write(book)


def release_reservation(actor: Actor, reservation_id: int) -> ReservationView:
    """End a running reservation now, or cancel a coming one. Who: its holder, operators.

    Repeating it, or releasing what has ended, changes nothing.
    Raises NotFound, NotAllowed, Unavailable.
    """

    def release(session: Session) -> ReservationView:
        item, now = _lock_reservation(session, actor, reservation_id)
        before = read_views(session, [item], now)[0]
        if before.state == State.PAST:
            session.rollback()
            return before
        item.released_at = now
        item.version += 1
        if before.state == State.RUNNING:
            item.ends = now
            for claim in item.claims:
                claim.ends = now
            action = "reservation.release"
        else:
            item.is_cancelled = True
            for claim in item.claims:
                claim.is_active = False
            action = "reservation.cancel"
        return note_change(session, actor, item, now, action=action, before=before)

    return run_write(release)


def change_reservation(
    actor: Actor,
    reservation_id: int,
    if_match: int | None,
    ends: dt.datetime | None = None,
    purpose: str | None = None,
) -> ReservationView:
    """Extend, shorten or describe a reservation that has not ended. Who: its holder, operators.

    `if_match` is the version that the caller has seen; `ends` and `purpose` None: unchanged.
    Raises NotFound, NotAllowed, PreconditionRequired, PreconditionFailed, InvalidInput with
    every problem, Conflict when it has ended, SlotTaken when somebody comes next, Unavailable.
    """

    def change(session: Session) -> ReservationView:
        item, now = _lock_reservation(session, actor, reservation_id)
        check_may_book(actor)
        before = read_views(session, [item], now)[0]
        check_version(item, if_match)
        if before.state == State.PAST:
            raise Conflict("The reservation has ended.")
        new_ends = item.ends if ends is None else ends
        new_purpose = item.purpose if purpose is None else purpose.strip()
        interval = Interval(item.starts, new_ends)
        problems = [] if purpose is None else purpose_problems(new_purpose)
        if new_ends != item.ends:
            problems += new_end_problems(interval, now, limits_of(Kind(item.kind)))
        if problems:
            raise InvalidInput("The reservation cannot be changed so.", fields=problems)
        if (new_ends, new_purpose) == (item.ends, item.purpose):
            session.rollback()
            return before
        if new_ends > item.ends:
            slots = tuple(Slots(claim.slot_lo, claim.slot_hi) for claim in item.claims)
            refuse_overlap(session, item.node, Wish(slots, interval, None, item.id))
        item.ends = new_ends
        for claim in item.claims:
            claim.ends = new_ends
        item.purpose = new_purpose
        item.version += 1
        return note_change(
            session, actor, item, now, action="reservation.change", before=before
        )

    return run_write(change)


def _lock_reservation(
    session: Session, actor: Actor, reservation_id: int
) -> tuple[Reservation, dt.datetime]:
    """Lock its node, and return it with the time at which it is judged."""
    node = lock_node_of(session, reservation_id)
    if node is None:
        raise NotFound(f"There is no reservation {reservation_id}.")
    now = utc_now()
    item = session.scalars(
        with_details(select(Reservation).where(Reservation.id == reservation_id))
    ).one()
    if item.user_id != actor.user_id and not actor.is_operator:
        raise NotAllowed("Only its holder and operators may change a reservation.")
    return item, now


def _find_slots(
    session: Session, node: Node, wanted: Wanted, problems: list[FieldProblem]
) -> tuple[Slots, ...]:
    """Return the slots that are wanted; adds to `problems` the devices that are not there."""
    if wanted.whole_node:
        return (Slots(0, SLOT_END),)
    devices: Sequence[Device] = session.scalars(
        select(Device).where(Device.node_id == node.id, Device.uuid.in_(wanted.device_uuids))
    ).all()
    by_uuid = {device.uuid: device for device in devices}
    for number, uuid in enumerate(wanted.device_uuids):
        device = by_uuid.get(uuid)
        if device is None:
            problems.append(FieldProblem(f"devices.{number}", f"not a device of {node.name}"))
        elif not device.is_present:
            problems.append(
                FieldProblem(f"devices.{number}", f"{node.name} does not report it at present")
            )
    return tuple(merge_slots(device.slot for device in devices))
