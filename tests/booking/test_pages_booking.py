"""The booking form: it posts, tells beside the field, keeps what was typed, gives advice."""

from __future__ import annotations

import datetime as dt
import re

import pytest
from apiflask import APIFlask
from sqlalchemy import select

from sentinel_booking.models import Node, Reservation, db, utc_now
from tests.booking.page_forms import (
    HOUR,
    advice_forms,
    alice,
    cards,
    lab,
    local,
    newest,
    signed_in,
)
from tests.booking.page_visitor import Visitor, tags, visible_text

__all__ = ["alice", "lab"]  # fixtures


def test_booking_some_cards_from_now_with_a_local_time(lab: APIFlask, alice: Visitor) -> None:
    uuids = cards(lab, "npu-02")
    ends = (utc_now() + HOUR).replace(second=0, microsecond=0)
    answer = alice.post(
        "/book",
        {
            "node": "npu-02",
            "what": "cards",
            "device": uuids[2:4],
            "begin": "now",
            "starts": "",
            "ends": local(ends),
            "purpose": "训练 & <test>",
            "form_id": "f1",
        },
    )
    assert answer.status_code == 303
    assert answer.location == "/reservations"
    made = newest(lab)
    assert made.ends == ends
    assert abs(made.starts - utc_now()) < dt.timedelta(seconds=30)
    assert made.purpose == "训练 & <test>"
    page = visible_text(alice.get("/reservations").text)
    assert "Booked: npu-02, Cards 2, 3," in page
    assert "训练 & <test>" in page


def test_pressing_the_button_twice_books_once(lab: APIFlask, alice: Visitor) -> None:
    form = {
        "node": "npu-02",
        "what": "whole",
        "begin": "now",
        "ends": local(utc_now() + HOUR),
        "form_id": "the same",
    }
    first, second = alice.post("/book", form), alice.post("/book", form)
    assert first.status_code == second.status_code == 303
    with lab.app_context():
        made = db.session.scalars(
            select(Reservation)
            .join(Node)
            .where(Node.name == "npu-02", Reservation.kind == "use")
        ).all()
    assert len(made) == 1


def test_without_scripts_a_time_is_read_as_utc_as_the_form_says(
    lab: APIFlask, alice: Visitor
) -> None:
    page = alice.get("/book?node=npu-02").text
    assert "Time zone: UTC" in visible_text(page)
    ends = (utc_now() + HOUR).replace(second=0, microsecond=0)
    form = {"node": "npu-02", "what": "whole", "begin": "now", "form_id": "f"}
    assert alice.post("/book", {**form, "ends": ends.strftime("%Y-%m-%dT%H:%M")}).location
    assert newest(lab).ends == ends


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"device": []}, "Name at least one device, or the whole node."),
        ({"ends": ""}, "Say until when."),
        ({"ends": "tomorrow"}, "This is not a time."),
        ({"ends": "2020-01-01T00:00+08:00"}, "Must lie behind the start."),
        ({"begin": "later", "starts": "2020-01-01T00:00Z"}, "Lies in the past."),
        ({"begin": "later", "starts": "x"}, "This is not a time."),
        ({"ends": "2199-01-01T00:00Z"}, "A reservation lasts 336 hours at most."),
        ({"purpose": "x" * 501}, "At most 500 characters."),
        ({"device": ["GPU-nowhere"]}, "Not a device of npu-02."),
    ],
)
def test_a_refused_booking_keeps_what_was_typed(
    lab: APIFlask, alice: Visitor, change: dict[str, str | list[str]], told: str
) -> None:
    uuid = cards(lab, "npu-02")[5]
    form: dict[str, str | list[str]] = {
        "node": "npu-02",
        "what": "cards",
        "device": [uuid],
        "begin": "now",
        "ends": local(utc_now() + HOUR),
        "purpose": "kept",
        "form_id": "f",
    }
    before = newest(lab).id
    answer = alice.post("/book", {**form, **change})
    assert answer.status_code == 422
    assert told in visible_text(answer.text)
    assert newest(lab).id == before
    kept = {attributes.get("name"): attributes for tag, attributes in tags(answer.text)}
    if "purpose" not in change:
        assert kept["purpose"]["value"] == "kept"
    if "device" not in change:
        checked = re.search(rf'value="{re.escape(uuid)}"( checked)?', answer.text)
        assert checked is not None
        assert checked.group(1)


def test_a_conflict_says_who_and_when_and_books_the_advice_by_one_button(
    lab: APIFlask, alice: Visitor
) -> None:
    uuids = cards(lab, "gpu-01")
    now = utc_now()
    # Card 2 is free now; zhang-min has it from 7 h on, until 19 h.
    wanted: dict[str, str | list[str]] = {
        "node": "gpu-01",
        "what": "cards",
        "device": [uuids[2]],
        "begin": "now",
        "ends": local(now + 10 * HOUR),
        "purpose": "mine",
        "form_id": "f",
    }
    answer = alice.post("/book", wanted)
    assert answer.status_code == 409
    text = visible_text(answer.text)
    assert "zhang-min" in text
    assert "推理服务压测" in text
    assert "Book the next free time" in text
    assert "Book a shorter time, until" in text
    later, shorter = advice_forms(answer.text)
    assert alice.post("/book", shorter).location == "/reservations"
    made = newest(lab)
    assert abs(made.ends - (now + 7 * HOUR)) < dt.timedelta(minutes=2)
    assert made.purpose == "mine"
    assert alice.post("/book", later).location == "/reservations"
    made = newest(lab)
    assert abs(made.starts - (now + 19 * HOUR)) < dt.timedelta(minutes=2)
    assert abs((made.ends - made.starts) - 10 * HOUR) < dt.timedelta(seconds=5)


def test_operators_book_for_others_and_for_maintenance_and_users_do_not(
    lab: APIFlask, alice: Visitor
) -> None:
    form = {
        "node": "npu-02",
        "what": "whole",
        "begin": "now",
        "ends": local(utc_now() + HOUR),
        "holder": "bob",
        "form_id": "f",
    }
    assert alice.post("/book", form).status_code == 403
    assert 'name="holder"' not in alice.get("/book").text
    olga = signed_in(lab, "olga")
    assert 'name="holder"' in olga.get("/book").text
    assert olga.post("/book", form).status_code == 303
    with lab.app_context():
        made = db.session.merge(newest(lab))
        assert made.user.name == "bob"
    wrong = olga.post("/book", {**form, "holder": "nobody-here", "form_id": "g"})
    assert "There is no such user." in visible_text(wrong.text)


def test_a_cell_of_the_matrix_leads_to_a_form_filled_in_for_it(
    lab: APIFlask, alice: Visitor
) -> None:
    uuid = cards(lab, "npu-02")[6]
    link = re.search(
        rf'href="(/book\?node=npu-02&amp;device={re.escape(uuid)}|/book\?[^"]*%3A0[^"]*)"',
        alice.get("/").text,
    )
    assert link is not None
    page = alice.get(f"/book?node=npu-02&device={uuid}").text
    assert f'value="{uuid}" checked' in page
    assert page.count("checked") == 3  # the card, "cards", "now"
