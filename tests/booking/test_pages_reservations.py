"""Releasing and extending by the forms of the reservations' page."""

from __future__ import annotations

from apiflask import APIFlask
from sqlalchemy import select

from sentinel_booking.models import Node, Reservation, User, db, utc_now
from tests.booking.page_forms import HOUR, advice_forms, alice, lab, local, signed_in
from tests.booking.page_visitor import Visitor, visible_text

__all__ = ["alice", "lab"]  # fixtures


def of_alice(lab: APIFlask, node: str, running: bool = True) -> Reservation:
    with lab.app_context():
        now = utc_now()
        query = (
            select(Reservation)
            .join(Node)
            .join(User)
            .where(Node.name == node, User.name == "alice", Reservation.ends > now)
        )
        query = query.where(Reservation.starts <= now if running else Reservation.starts > now)
        return db.session.scalars(query).one()


def test_releasing_ends_a_running_one_and_cancels_a_coming_one(
    lab: APIFlask, alice: Visitor
) -> None:
    running, coming = of_alice(lab, "npu-01"), of_alice(lab, "gpu-02", running=False)
    page = alice.get("/reservations").text
    assert f'action="/reservations/{running.id}/release"' in page
    answer = alice.post(f"/reservations/{running.id}/release")
    assert answer.location == "/reservations"
    alice.post(f"/reservations/{coming.id}/release")
    text = visible_text(alice.get("/reservations").text)
    assert "Released: gpu-02, Card 0." in text
    assert "cancelled" in text
    with lab.app_context():
        assert db.session.get_one(Reservation, running.id).ends <= utc_now()
        assert db.session.get_one(Reservation, coming.id).is_cancelled


def test_nobody_releases_or_extends_what_is_not_theirs(lab: APIFlask) -> None:
    theirs = of_alice(lab, "npu-01")
    bob = signed_in(lab, "bob")
    assert bob.post(f"/reservations/{theirs.id}/release").status_code == 403
    refused = bob.post(f"/reservations/{theirs.id}/extend", {"add_s": "3600", "version": "1"})
    assert refused.status_code == 403
    with lab.app_context():
        assert db.session.get_one(Reservation, theirs.id).ends == theirs.ends


def test_extending_by_a_step_and_to_a_time(lab: APIFlask, alice: Visitor) -> None:
    item = of_alice(lab, "npu-01")
    path = f"/reservations/{item.id}/extend"
    assert alice.post(path, {"add_s": "3600", "version": "1", "ends": "x"}).status_code == 303
    assert of_alice(lab, "npu-01").ends == item.ends + HOUR
    wanted = item.ends + 5 * HOUR
    assert alice.post(path, {"ends": local(wanted), "version": "2"}).status_code == 303
    assert of_alice(lab, "npu-01").ends == wanted
    # Not one of the steps that the page offers.
    assert alice.post(path, {"add_s": "999999999", "version": "3"}).status_code == 422


def test_a_page_that_is_out_of_date_changes_nothing(lab: APIFlask, alice: Visitor) -> None:
    item = of_alice(lab, "npu-01")
    path = f"/reservations/{item.id}/extend"
    alice.post(path, {"add_s": "3600", "version": "1"})
    answer = alice.post(path, {"add_s": "3600", "version": "1"})
    assert answer.status_code == 412
    assert "was changed since" in visible_text(answer.text)
    assert of_alice(lab, "npu-01").ends == item.ends + HOUR


def test_an_extension_into_the_next_booking_offers_the_longest_possible(
    lab: APIFlask, alice: Visitor
) -> None:
    item = of_alice(lab, "gpu-01")
    answer = alice.post(
        f"/reservations/{item.id}/extend", {"add_s": "14400", "version": str(item.version)}
    )
    assert answer.status_code == 409
    assert "zhang-min" in visible_text(answer.text)
    (form,) = advice_forms(answer.text)
    assert alice.post(f"/reservations/{item.id}/extend", form).status_code == 303
    assert of_alice(lab, "gpu-01").ends == item.ends + 2 * HOUR
