"""The lab with people signed in, for tests of forms.

What those fill in, read off the answer, and look up in the database is here too.
"""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path

import pytest
from apiflask import APIFlask
from sqlalchemy import select

from sentinel_booking.models import Node, Reservation, db
from tests.booking.page_lab import make_lab
from tests.booking.page_visitor import Visitor, tags

HOUR = dt.timedelta(hours=1)


def signed_in(lab: APIFlask, name: str) -> Visitor:
    visitor = Visitor(lab)
    assert visitor.sign_in(name).status_code == 303
    return visitor


@pytest.fixture
def lab(tmp_path: Path) -> APIFlask:
    return make_lab(tmp_path)


@pytest.fixture
def alice(lab: APIFlask) -> Visitor:
    return signed_in(lab, "alice")


@pytest.fixture
def admin(lab: APIFlask) -> Visitor:
    return signed_in(lab, "admin")


def cards(lab: APIFlask, node: str) -> list[str]:
    with lab.app_context():
        found = db.session.scalars(select(Node).where(Node.name == node)).one()
        return [device.uuid for device in found.devices]


def newest(lab: APIFlask) -> Reservation:
    with lab.app_context():
        return db.session.scalars(
            select(Reservation).order_by(Reservation.id.desc()).limit(1)
        ).one()


def local(time: dt.datetime, hours: int = 8) -> str:
    """What app.js sends from a browser so many hours east of UTC."""
    zone = dt.timezone(hours * HOUR)
    return time.astimezone(zone).isoformat(timespec="seconds")


def shown_secret(html: str, element: str) -> str:
    found = re.search(rf'<code id="{element}">(.+?)</code>', html)
    assert found is not None
    return re.sub("</?mark>", "", found.group(1))


def advice_forms(html: str) -> list[dict[str, str | list[str]]]:
    """Return the fields of the forms inside the refusal."""
    note = html.split('role="alert"', 1)[1]
    forms = []
    for form in re.findall(r"<form.*?</form>", note, re.DOTALL):
        if "lanes-card" in form or "book-form" in form or "pop-panel" in form:
            break
        fields: dict[str, str | list[str]] = {}
        for tag, attributes in tags(form):
            if tag == "input" and attributes.get("type") == "hidden":
                name, value = attributes["name"] or "", attributes.get("value") or ""
                fields[name] = [value] if name == "device" else value
        if "ends" in fields:
            forms.append(fields)
    return forms
