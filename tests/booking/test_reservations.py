"""Booking, changing and releasing at the services, on both databases."""

from __future__ import annotations

import dataclasses
import datetime as dt
import itertools
import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from apiflask import APIFlask
from sqlalchemy import func, insert, select, text, update

from sentinel_booking.config import Config
from sentinel_booking.domain.booking_rules import START_TOLERANCE, State
from sentinel_booking.errors import (
    Conflict,
    InvalidInput,
    NotAllowed,
    NotFound,
    PreconditionFailed,
    PreconditionRequired,
)
from sentinel_booking.models import (
    SLOT_END,
    AuditEntry,
    Claim,
    Device,
    IdempotencyKey,
    Kind,
    Node,
    Reservation,
    Role,
    SshKey,
    User,
    db,
    utc_now,
    write,
)
from sentinel_booking.services.audit import SYSTEM, Actor
from sentinel_booking.services.booked import SlotTaken
from sentinel_booking.services.keys import remove_key
from sentinel_booking.services.reservation_list import get_reservation
from sentinel_booking.services.reservations import (
    Wanted,
    change_reservation,
    create_reservation,
    release_reservation,
)
from tests.booking.bookings import (
    HOUR,
    add_actor,
    add_node,
    add_reservation,
    broken_invariants,
    soon,
)
from tests.booking.programs import until


@dataclasses.dataclass(frozen=True)
class Lab:
    """A node with four cards, and some people."""

    app: APIFlask
    uuids: list[str]
    alice: Actor
    bob: Actor
    olga: Actor  # an operator
    rita: Actor  # may only look

    def wish(self, *slots: int, start: float = 0, end: float = 1) -> Wanted:
        """Some cards tomorrow, hours counted from soon(); without a card: the whole node."""
        return Wanted(
            node="n1",
            starts=soon(start),
            ends=soon(end),
            device_uuids=tuple(self.uuids[slot] for slot in slots),
            whole_node=not slots,
        )


@pytest.fixture
def lab(app: APIFlask) -> Iterator[Lab]:
    uuids = add_node(app)
    people = {
        name: add_actor(app, name, role)
        for name, role in (
            ("alice", Role.USER),
            ("bob", Role.USER),
            ("olga", Role.OPERATOR),
            ("rita", Role.READONLY),
        )
    }
    with app.app_context():
        yield Lab(app, uuids, **people)
        assert broken_invariants() == []


def node_row() -> Node:
    db.session.rollback()
    return db.session.scalars(select(Node)).one()


def audit_actions() -> list[str]:
    db.session.rollback()
    return list(
        db.session.scalars(
            select(AuditEntry.action)
            .where(AuditEntry.object_type == "reservation")
            .order_by(AuditEntry.id)
        )
    )


def fields(caught: pytest.ExceptionInfo[InvalidInput]) -> list[str]:
    return [problem.field for problem in caught.value.fields]


# --- creating


def test_a_booking_is_shown_as_it_was_asked_for(lab: Lab) -> None:
    wish = dataclasses.replace(lab.wish(2, 0), purpose="  train  ")
    made = create_reservation(lab.alice, wish)
    assert (made.node, made.holder, made.kind) == ("n1", "alice", Kind.USE)
    assert (made.starts, made.ends) == (wish.starts, wish.ends)
    assert made.device_uuids == (lab.uuids[0], lab.uuids[2])
    assert (made.whole_node, made.purpose, made.state) == (False, "train", State.COMING)
    assert (made.version, made.is_cancelled, made.released_at) == (1, False, None)
    assert get_reservation(made.id) == made


def test_neighbouring_cards_are_one_claim_and_others_are_several(lab: Lab) -> None:
    create_reservation(lab.alice, lab.wish(3, 0, 1))
    create_reservation(lab.alice, lab.wish(start=5, end=6))
    rows = db.session.execute(select(Claim.slot_lo, Claim.slot_hi).order_by(Claim.id)).all()
    assert [tuple(row) for row in rows] == [(0, 2), (3, 4), (0, SLOT_END)]


def test_without_a_start_it_begins_now(lab: Lab) -> None:
    before = utc_now()
    wish = dataclasses.replace(lab.wish(0), starts=None)
    made = create_reservation(lab.alice, wish)
    assert before <= made.starts <= utc_now()
    assert made.state == State.RUNNING


def test_a_start_of_a_moment_ago_becomes_now_and_an_older_one_is_refused(lab: Lab) -> None:
    before = utc_now()
    wish = dataclasses.replace(lab.wish(0), starts=before - dt.timedelta(seconds=30))
    assert create_reservation(lab.alice, wish).starts >= before
    old = dataclasses.replace(lab.wish(1), starts=before - START_TOLERANCE - HOUR)
    with pytest.raises(InvalidInput) as caught:
        create_reservation(lab.alice, old)
    assert fields(caught) == ["starts"]


def test_what_is_beyond_the_configured_limits_is_refused(lab: Lab, config: Config) -> None:
    long = dataclasses.replace(
        lab.wish(0), ends=soon() + (config.max_reservation_hours + 1) * HOUR
    )
    far = dt.timedelta(days=config.max_advance_days + 2)
    early = dataclasses.replace(lab.wish(0), starts=soon() + far, ends=soon(1) + far)
    for wish, field in ((long, "ends"), (early, "starts")):
        with pytest.raises(InvalidInput) as caught:
            create_reservation(lab.alice, wish)
        assert fields(caught) == [field]


def test_maintenance_may_last_as_long_as_it_must(lab: Lab) -> None:
    wish = dataclasses.replace(
        lab.wish(), kind=Kind.MAINTENANCE, ends=soon() + dt.timedelta(days=400)
    )
    assert create_reservation(lab.olga, wish).kind == Kind.MAINTENANCE
    with pytest.raises(SlotTaken):
        create_reservation(lab.alice, lab.wish(1))


def test_unknown_absent_and_repeated_devices_are_named_each(lab: Lab) -> None:
    with write() as session:
        session.execute(update(Device).where(Device.slot == 3).values(is_present=False))
    wish = dataclasses.replace(
        lab.wish(0), device_uuids=(lab.uuids[0], "GPU-other", lab.uuids[3])
    )
    with pytest.raises(InvalidInput) as caught:
        create_reservation(lab.alice, wish)
    assert fields(caught) == ["devices.1", "devices.2"]
    with pytest.raises(InvalidInput) as caught:
        create_reservation(lab.alice, lab.wish(0, 0))
    assert fields(caught) == ["devices.1"]


def test_a_device_of_another_node_is_not_this_nodes(lab: Lab) -> None:
    others = add_node(lab.app, "n2")
    with pytest.raises(InvalidInput) as caught:
        create_reservation(
            lab.alice, dataclasses.replace(lab.wish(0), device_uuids=(others[0],))
        )
    assert fields(caught) == ["devices.0"]


def test_a_node_without_cards_can_be_booked_as_a_whole(lab: Lab) -> None:
    add_node(lab.app, "cpu", devices=0)
    wish = dataclasses.replace(lab.wish(), node="cpu")
    assert create_reservation(lab.alice, wish).whole_node
    with pytest.raises(SlotTaken):
        create_reservation(lab.bob, wish)


def test_an_unknown_or_removed_node_is_refused(lab: Lab) -> None:
    with write() as session:
        session.execute(update(Node).values(removed_at=utc_now()))
    for name in ("nowhere", "n1"):
        with pytest.raises(InvalidInput) as caught:
            create_reservation(lab.alice, dataclasses.replace(lab.wish(0), node=name))
        assert fields(caught) == ["node"]


def test_who_may_only_look_cannot_book_nor_be_booked_for(lab: Lab) -> None:
    with pytest.raises(NotAllowed):
        create_reservation(lab.rita, lab.wish(0))
    with pytest.raises(NotAllowed):
        create_reservation(SYSTEM, lab.wish(0))
    with pytest.raises(InvalidInput) as caught:
        create_reservation(lab.olga, dataclasses.replace(lab.wish(0), holder="rita"))
    assert fields(caught) == ["holder"]


def test_only_operators_book_for_others_and_for_maintenance(lab: Lab) -> None:
    for_bob = dataclasses.replace(lab.wish(0), holder="bob")
    upkeep = dataclasses.replace(lab.wish(1), kind=Kind.MAINTENANCE)
    for wish in (for_bob, upkeep):
        with pytest.raises(NotAllowed):
            create_reservation(lab.alice, wish)
    assert create_reservation(lab.olga, for_bob).holder == "bob"
    assert create_reservation(lab.olga, upkeep).holder == "olga"
    mine = dataclasses.replace(lab.wish(2), holder="alice")
    assert create_reservation(lab.alice, mine).holder == "alice"


def test_a_closed_account_and_a_stranger_hold_nothing(lab: Lab) -> None:
    with write() as session:
        session.execute(update(User).where(User.name == "bob").values(is_active=False))
    for holder in ("bob", "nobody"):
        with pytest.raises(InvalidInput) as caught:
            create_reservation(lab.olga, dataclasses.replace(lab.wish(0), holder=holder))
        assert fields(caught) == ["holder"]
    with pytest.raises(InvalidInput):
        create_reservation(lab.bob, lab.wish(0))


def test_the_view_says_whether_the_holder_has_a_key(lab: Lab) -> None:
    made = create_reservation(lab.alice, lab.wish(0))
    assert made.holder_has_key is False
    add_key(lab.alice)
    assert get_reservation(made.id).holder_has_key is True


def add_key(who: Actor) -> int:
    """Give somebody an SSH key; returns its id."""
    with write() as session:
        key = SshKey(
            user_id=who.user_id,
            public_key=f"ssh-ed25519 {who.name}",
            key_type="ssh-ed25519",
            bits=256,
            fingerprint=f"SHA256:{who.name}",
        )
        session.add(key)
        session.flush()
        return key.id


def test_a_refused_booking_leaves_no_trace(lab: Lab) -> None:
    create_reservation(lab.alice, lab.wish(0))
    before = (node_row().booking_seq, node_row().policy_version, audit_actions())
    for wish in (lab.wish(0), lab.wish(), dataclasses.replace(lab.wish(1), ends=soon(-48))):
        with pytest.raises(Conflict if wish.ends == soon(1) else InvalidInput):
            create_reservation(lab.bob, wish)
    assert (node_row().booking_seq, node_row().policy_version, audit_actions()) == before
    assert db.session.scalar(select(func.count(Reservation.id))) == 1


def test_every_change_moves_the_calendar_and_the_policy(lab: Lab) -> None:
    versions = [(node_row().booking_seq, node_row().policy_version)]
    made = create_reservation(lab.alice, lab.wish(0))
    versions.append((node_row().booking_seq, node_row().policy_version))
    change_reservation(lab.alice, made.id, 1, ends=soon(2))
    versions.append((node_row().booking_seq, node_row().policy_version))
    release_reservation(lab.alice, made.id)
    versions.append((node_row().booking_seq, node_row().policy_version))
    first_seq, first_policy = versions[0]
    assert versions == [(first_seq + n, first_policy + n) for n in range(4)]


# --- conflicts


def test_cards_and_the_whole_node_exclude_each_other(lab: Lab) -> None:
    pairs = itertools.product([(0,), (0, 1), ()], [(0,), (1, 0, 3), ()])
    for hour, (first, second) in enumerate(pairs):
        create_reservation(lab.alice, lab.wish(*first, start=hour, end=hour + 1))
        with pytest.raises(SlotTaken):
            create_reservation(lab.bob, lab.wish(*second, start=hour, end=hour + 1))


def test_neighbours_in_time_and_on_other_cards_do_not_conflict(lab: Lab) -> None:
    create_reservation(lab.alice, lab.wish(0, 1, start=2, end=4))
    create_reservation(lab.bob, lab.wish(0, start=1, end=2))
    create_reservation(lab.bob, lab.wish(1, start=4, end=5))
    create_reservation(lab.bob, lab.wish(2, 3, start=2, end=4))
    create_reservation(lab.bob, lab.wish(start=0, end=1))


def test_a_refusal_says_who_when_and_what_would_fit(lab: Lab) -> None:
    mine = create_reservation(lab.alice, lab.wish(0, 1, start=2, end=4))
    create_reservation(lab.bob, lab.wish(start=5, end=6))
    create_reservation(lab.bob, lab.wish(3, start=2, end=5))
    with pytest.raises(SlotTaken) as caught:
        create_reservation(lab.bob, lab.wish(0, start=1, end=3))
    (conflict,) = caught.value.conflicts
    assert (conflict.reservation, conflict.holder) == (mine.id, "alice")
    assert (conflict.starts, conflict.ends) == (mine.starts, mine.ends)
    assert conflict.devices == tuple(lab.uuids[:2])
    # Two hours fit neither before the first nor between the two.
    assert caught.value.next_free == soon(6)
    assert caught.value.max_end == soon(2)
    assert caught.value.extra["max_end"] == soon(2).isoformat().replace("+00:00", "Z")


def test_a_gap_too_short_to_book_is_not_offered(lab: Lab) -> None:
    create_reservation(lab.alice, lab.wish(0))
    with pytest.raises(SlotTaken) as caught:
        create_reservation(lab.bob, lab.wish(0, start=-1 / 120))
    assert caught.value.max_end is None


def test_the_advice_can_be_booked(lab: Lab) -> None:
    create_reservation(lab.alice, lab.wish(0, 1, start=2, end=4))
    wish = lab.wish(1, 2, start=1, end=3)
    with pytest.raises(SlotTaken) as caught:
        create_reservation(lab.bob, wish)
    advice = caught.value
    assert advice.next_free is not None
    assert advice.max_end is not None
    create_reservation(lab.bob, dataclasses.replace(wish, ends=advice.max_end))
    later = dataclasses.replace(wish, starts=advice.next_free, ends=advice.next_free + 2 * HOUR)
    create_reservation(lab.bob, later)


def test_there_is_no_advice_beyond_what_may_be_booked(lab: Lab, config: Config) -> None:
    long_away = soon() + dt.timedelta(days=config.max_advance_days + 30)
    add_reservation(lab.app, lab.olga, soon(-1), long_away)
    with pytest.raises(SlotTaken) as caught:
        create_reservation(lab.alice, lab.wish(0))
    assert (caught.value.next_free, caught.value.max_end) == (None, None)


def test_cancelled_and_released_time_is_free_again(lab: Lab) -> None:
    coming = create_reservation(lab.alice, lab.wish(0))
    release_reservation(lab.alice, coming.id)
    create_reservation(lab.bob, lab.wish(0))
    running = create_reservation(
        lab.alice, dataclasses.replace(lab.wish(1), starts=None, ends=soon(3))
    )
    release_reservation(lab.alice, running.id)
    create_reservation(lab.bob, dataclasses.replace(lab.wish(1), starts=None))


def test_what_our_check_did_not_see_the_database_refuses(lab: Lab, config: Config) -> None:
    # Another program writes past our lock, and commits while the booking is under way.
    if config.database_url.startswith("sqlite"):
        pytest.skip("SQLite has one writer at a time; test_net.py holds its triggers")
    other = db.engine.connect()
    reservation = add_reservation(lab.app, lab.bob, soon(), soon())
    other.execute(
        insert(Claim).values(
            reservation_id=reservation,
            node_id=1,
            slot_lo=0,
            slot_hi=1,
            starts=soon(),
            ends=soon(1),
            is_active=True,
        )
    )
    other.execute(text("UPDATE reservations SET ends = :ends"), {"ends": soon(1)})
    other.execute(text("DELETE FROM claims WHERE starts = ends"))
    refused: list[Exception] = []

    def book() -> None:
        with lab.app.app_context():
            try:
                create_reservation(lab.alice, lab.wish(0))
            except Exception as error:  # the test looks at it below
                refused.append(error)

    thread = threading.Thread(target=book)
    thread.start()
    _wait_for_a_lock(lab)
    other.commit()
    other.close()
    thread.join()
    (error,) = refused
    assert isinstance(error, SlotTaken)
    assert error.conflicts[0].holder == "bob"


def _wait_for_a_lock(lab: Lab) -> None:
    """Return when some connection to the database waits for another's transaction."""
    with db.engine.connect() as connection:
        query = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
        until(
            lambda: connection.execute(query).scalar_one() > 0,
            lambda: "nobody waits for a lock",
        )


def test_a_booking_and_a_change_of_its_holder_wait_for_each_other(
    lab: Lab, config: Config
) -> None:
    # The change renews the policies of the nodes that the holder has booked: it must see
    # the booking, or the booking the change.
    if config.database_url.startswith("sqlite"):
        pytest.skip("SQLite has one writer at a time")
    key = add_key(lab.bob)
    results: list[object] = []

    def run(use_case: Callable[[], object]) -> None:
        with lab.app.app_context():
            try:
                results.append(use_case())
            except InvalidInput as error:
                results.append(error.fields[0].field)

    closing = update(User).where(User.name == "alice").values(is_active=False)
    booking = select(User.id).where(User.name == "bob").with_for_update(read=True)
    for statement, use_case, expected in (
        (closing, partial(create_reservation, lab.alice, lab.wish(0)), "holder"),
        (booking, partial(remove_key, lab.bob, lab.bob.user_id or 0, key), None),
    ):
        with db.engine.connect() as other:
            other.execute(statement)
            thread = threading.Thread(target=run, args=(use_case,))
            thread.start()
            _wait_for_a_lock(lab)
            other.commit()
        thread.join()
        assert results.pop() == expected


# --- repeating a request


def test_a_repeated_request_gets_the_first_answer_and_books_once(lab: Lab) -> None:
    wish = lab.wish(0)
    first = create_reservation(lab.alice, wish, "key", "hash")
    seq = node_row().booking_seq
    change_reservation(lab.alice, first.id, 1, purpose="changed since")
    assert create_reservation(lab.alice, wish, "key", "hash") == first
    assert node_row().booking_seq == seq + 1
    assert audit_actions() == ["reservation.create", "reservation.change"]


def test_a_key_cannot_be_used_for_another_body(lab: Lab) -> None:
    create_reservation(lab.alice, lab.wish(0), "key", "hash")
    with pytest.raises(InvalidInput) as caught:
        create_reservation(lab.alice, lab.wish(1), "key", "other hash")
    assert fields(caught) == ["Idempotency-Key"]


def test_a_key_belongs_to_one_person(lab: Lab) -> None:
    first = create_reservation(lab.alice, lab.wish(0), "key", "hash")
    second = create_reservation(lab.bob, lab.wish(1), "key", "hash")
    assert first.id != second.id


def test_a_refused_request_may_be_repeated_with_its_key(lab: Lab) -> None:
    taken = create_reservation(lab.bob, lab.wish(0))
    with pytest.raises(SlotTaken):
        create_reservation(lab.alice, lab.wish(0), "key", "hash")
    release_reservation(lab.bob, taken.id)
    create_reservation(lab.alice, lab.wish(0), "key", "hash")


def test_the_first_answer_outlives_the_node(lab: Lab) -> None:
    first = create_reservation(lab.alice, lab.wish(0), "key", "hash")
    with write() as session:
        session.execute(update(Node).values(removed_at=utc_now()))
    assert create_reservation(lab.alice, lab.wish(0), "key", "hash") == first


def test_a_key_that_no_header_carries_is_refused(lab: Lab) -> None:
    for key in ("", "x" * 256, "tab\tkey", "schlüssel"):
        with pytest.raises(InvalidInput) as caught:
            create_reservation(lab.alice, lab.wish(0), key, "hash")
        assert fields(caught) == ["Idempotency-Key"]


def test_one_key_sent_many_times_at_once_books_once(lab: Lab) -> None:
    others = add_node(lab.app, "n2")
    wishes = [
        (lab.wish(0), "hash"),
        (
            dataclasses.replace(lab.wish(0), node="n2", device_uuids=(others[0],)),
            "other hash",
        ),
    ] * 6
    answers: list[object] = []
    gate = threading.Barrier(len(wishes))

    def book(wish: Wanted, body_hash: str) -> None:
        with lab.app.app_context():
            gate.wait()
            try:
                answers.append(create_reservation(lab.alice, wish, "key", body_hash).id)
            except InvalidInput as error:
                answers.append(error.fields[0].field)

    threads = [threading.Thread(target=book, args=wish) for wish in wishes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    db.session.rollback()
    made = db.session.scalars(select(Reservation.id)).one()
    assert sorted(answers, key=str) == [made] * 6 + ["Idempotency-Key"] * 6
    assert db.session.scalar(select(func.count(IdempotencyKey.id))) == 1


# --- releasing


def test_releasing_a_running_one_ends_it_now(lab: Lab) -> None:
    number = add_reservation(
        lab.app, lab.alice, utc_now() - HOUR, utc_now() + HOUR, slots=[0, 2]
    )
    before = utc_now()
    released = release_reservation(lab.alice, number)
    assert before <= released.ends <= utc_now()
    assert released.released_at == released.ends
    assert (released.state, released.is_cancelled) == (State.PAST, False)
    assert audit_actions() == ["reservation.release"]


def test_releasing_a_coming_one_cancels_it(lab: Lab) -> None:
    made = create_reservation(lab.alice, lab.wish(0, 2))
    released = release_reservation(lab.alice, made.id)
    assert (released.state, released.is_cancelled) == (State.PAST, True)
    assert (released.starts, released.ends) == (made.starts, made.ends)
    assert released.released_at is not None
    assert audit_actions() == ["reservation.create", "reservation.cancel"]


def test_releasing_again_changes_nothing(lab: Lab) -> None:
    ended = add_reservation(lab.app, lab.alice, soon(-72), soon(-70), slots=[0])
    running = add_reservation(lab.app, lab.alice, soon(-25), soon(9), slots=[0])
    coming = create_reservation(lab.alice, lab.wish(1)).id
    for number in (running, coming):
        release_reservation(lab.alice, number)
    state = (node_row().booking_seq, node_row().policy_version, audit_actions())
    for number in (ended, running, coming):
        before = get_reservation(number)
        assert release_reservation(lab.alice, number) == before
    assert (node_row().booking_seq, node_row().policy_version, audit_actions()) == state


def test_only_the_holder_and_operators_release_or_change(lab: Lab) -> None:
    made = create_reservation(lab.alice, lab.wish(0))
    for stranger in (lab.bob, lab.rita, SYSTEM):
        with pytest.raises(NotAllowed):
            release_reservation(stranger, made.id)
        with pytest.raises(NotAllowed):
            change_reservation(stranger, made.id, 1, purpose="x")
    assert change_reservation(lab.olga, made.id, 1, purpose="x").purpose == "x"
    assert release_reservation(lab.olga, made.id).is_cancelled


def test_a_holder_who_may_no_longer_book_can_still_release(lab: Lab) -> None:
    number = add_reservation(lab.app, lab.rita, soon(), soon(1))
    with pytest.raises(NotAllowed):
        change_reservation(lab.rita, number, 1, ends=soon(2))
    assert release_reservation(lab.rita, number).is_cancelled


def test_what_does_not_exist_is_not_found(lab: Lab) -> None:
    with pytest.raises(NotFound):
        get_reservation(4711)
    with pytest.raises(NotFound):
        release_reservation(lab.olga, 4711)
    with pytest.raises(NotFound):
        change_reservation(lab.olga, 4711, 1, purpose="x")


# --- changing


def test_an_extension_and_a_shortening_keep_start_and_cards(lab: Lab) -> None:
    made = create_reservation(lab.alice, lab.wish(0, 1, 3, end=4))
    longer = change_reservation(lab.alice, made.id, 1, ends=soon(6))
    shorter = change_reservation(lab.alice, made.id, 2, ends=soon(1), purpose=" done ")
    assert (longer.ends, longer.version) == (soon(6), 2)
    assert (shorter.ends, shorter.version, shorter.purpose) == (soon(1), 3, "done")
    assert (shorter.starts, shorter.devices) == (made.starts, made.devices)
    create_reservation(lab.bob, lab.wish(0, 1, 3, start=1, end=2))


def test_the_audit_shows_before_and_after(lab: Lab) -> None:
    made = create_reservation(lab.alice, lab.wish(0))
    change_reservation(lab.olga, made.id, 1, ends=soon(2))
    entries = db.session.scalars(select(AuditEntry).order_by(AuditEntry.id)).all()
    created, changed = (e for e in entries if e.object_type == "reservation")
    assert (created.actor, created.before, changed.actor) == ("alice", None, "olga")
    assert changed.before is not None
    assert changed.after is not None
    assert changed.before == created.after
    assert changed.object_id == str(made.id)
    differing = {key for key, value in changed.after.items() if value != changed.before[key]}
    assert differing == {"ends"}


def test_an_extension_stops_where_the_next_one_begins(lab: Lab) -> None:
    mine = create_reservation(lab.alice, lab.wish(0, 1))
    other = create_reservation(lab.bob, lab.wish(1, start=3, end=4))
    with pytest.raises(SlotTaken) as caught:
        change_reservation(lab.alice, mine.id, 1, ends=soon(3.5))
    assert [item.reservation for item in caught.value.conflicts] == [other.id]
    assert (caught.value.max_end, caught.value.next_free) == (soon(3), None)
    assert change_reservation(lab.alice, mine.id, 1, ends=soon(3)).ends == soon(3)


def test_a_change_needs_the_version_that_is_there(lab: Lab) -> None:
    made = create_reservation(lab.alice, lab.wish(0))
    with pytest.raises(PreconditionRequired):
        change_reservation(lab.alice, made.id, None, purpose="x")
    change_reservation(lab.alice, made.id, 1, purpose="x")
    with pytest.raises(PreconditionFailed):
        change_reservation(lab.alice, made.id, 1, purpose="y")
    assert get_reservation(made.id).purpose == "x"


def test_a_change_to_what_is_there_already_is_none(lab: Lab) -> None:
    made = create_reservation(lab.alice, lab.wish(0))
    same = change_reservation(lab.alice, made.id, 1, ends=made.ends, purpose=made.purpose)
    assert same == made
    assert audit_actions() == ["reservation.create"]


def test_an_end_that_has_passed_and_one_too_far_away_are_refused(
    lab: Lab, config: Config
) -> None:
    number = add_reservation(lab.app, lab.alice, utc_now() - HOUR, utc_now() + HOUR)
    too_far = utc_now() + config.max_reservation_hours * HOUR
    for ends in (utc_now() - dt.timedelta(minutes=5), too_far):
        with pytest.raises(InvalidInput) as caught:
            change_reservation(lab.alice, number, 1, ends=ends)
        assert fields(caught) == ["ends"]


def test_what_has_ended_cannot_be_changed(lab: Lab) -> None:
    ended = add_reservation(lab.app, lab.alice, soon(-72), soon(-70))
    cancelled = create_reservation(lab.alice, lab.wish(0)).id
    release_reservation(lab.alice, cancelled)
    for number, version in ((ended, 1), (cancelled, 2)):
        with pytest.raises(Conflict):
            change_reservation(lab.alice, number, version, ends=soon(5))
