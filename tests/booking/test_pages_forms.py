"""What the forms do: post, be told beside the field, keep what was typed, go on by redirect."""

from __future__ import annotations

import datetime as dt
import re
import subprocess
from pathlib import Path

import pytest
from apiflask import APIFlask
from sqlalchemy import select

from sentinel_booking.models import Invite, Node, Reservation, SshKey, User, db, utc_now
from tests.booking.page_lab import make_lab
from tests.booking.page_visitor import Visitor, tags, visible_text
from tests.booking.people import PASSWORD

HOUR = dt.timedelta(hours=1)


@pytest.fixture
def lab(tmp_path: Path) -> APIFlask:
    return make_lab(tmp_path)


@pytest.fixture
def alice(lab: APIFlask) -> Visitor:
    return signed_in(lab, "alice")


@pytest.fixture
def admin(lab: APIFlask) -> Visitor:
    return signed_in(lab, "admin")


def signed_in(lab: APIFlask, name: str) -> Visitor:
    visitor = Visitor(lab)
    assert visitor.sign_in(name).status_code == 303
    return visitor


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


# ------------------------------------------------------------------ signing in


@pytest.mark.parametrize(
    ("wanted", "leads_to"),
    [
        ("/keys", "/keys"),
        ("/book?node=gpu-01&device=a%2Fb", "/book?node=gpu-01&device=a%2Fb"),
        ("https://evil.example/", "/"),
        ("//evil.example/", "/"),
        ("/\\evil.example/", "/"),
        ("/\t/evil.example/", "/"),
        ("\\/evil.example", "/"),
        ("javascript:alert(1)", "/"),
        ("keys", "/"),
        ("", "/"),
    ],
)
def test_signing_in_leads_to_a_page_of_our_own(
    lab: APIFlask, wanted: str, leads_to: str
) -> None:
    assert Visitor(lab).sign_in("alice", then=wanted).location == leads_to


def test_a_wrong_password_is_told_and_the_name_kept(lab: APIFlask) -> None:
    answer = Visitor(lab).sign_in("alice", "wrong", then="/keys")
    assert answer.status_code == 401
    assert "The name or the password is wrong." in answer.text
    assert 'value="alice"' in answer.text
    assert 'name="next" value="/keys"' in answer.text
    assert "wrong-password" not in answer.text


def test_too_many_tries_are_refused_on_the_page(lab: APIFlask) -> None:
    answers = [Visitor(lab).sign_in("alice", "wrong") for _ in range(11)]
    assert [answer.status_code for answer in answers] == [401] * 10 + [429]
    assert "Too many attempts; try again in" in answers[-1].text


def test_signing_out_ends_the_sign_in(alice: Visitor) -> None:
    cookie = alice.cookie("sentinel_access")
    answer = alice.post("/logout")
    assert answer.location == "/login"
    assert alice.cookie("sentinel_access") is None
    alice._client.set_cookie("sentinel_access", cookie or "")
    assert alice.get("/").location == "/login"


def test_the_language_before_signing_in_is_the_browsers(lab: APIFlask) -> None:
    visitor = Visitor(lab, "en")
    answer = visitor.get("/login?lang=zh&next=/keys")
    assert answer.location == "/login?next=/keys"
    assert "登录" in visitor.get("/login?next=/keys").text
    assert visitor.get("/login?lang=fr").status_code == 200


def test_the_chosen_language_goes_with_the_person(lab: APIFlask, alice: Visitor) -> None:
    answer = alice.post("/language", {"locale": "zh", "next": "/keys?x=1"})
    assert answer.location == "/keys?x=1"
    assert "什么是公钥？" in alice.get("/keys").text
    # From another browser that asks for English.
    assert "什么是公钥？" in signed_in(lab, "alice").get("/keys").text
    alice.post("/language", {"locale": "tlh", "next": "//evil.example"})
    assert "什么是公钥？" in alice.get("/keys").text


# ------------------------------------------------------------------ passwords


def test_who_must_change_the_password_sees_nothing_else_before(
    lab: APIFlask, admin: Visitor
) -> None:
    page = admin.post("/admin/users/bob/password")
    assert page.status_code == 201
    given = shown_secret(page.text, "password")
    bob = Visitor(lab)
    bob.sign_in("bob", given)
    for path in ("/", "/book", "/keys", "/reservations"):
        assert bob.get(path).location == "/me/password"
    form = bob.get("/me/password")
    assert "Somebody else has set your password" in form.text
    assert 'href="/keys"' not in form.text
    new = {"old": given, "new": "a long new password", "again": "a long new password"}
    assert bob.post("/me/password", new).location == "/"
    assert bob.get("/").status_code == 200


@pytest.mark.parametrize(
    ("old", "new", "again", "told"),
    [
        (
            "wrong",
            "a long new password",
            "a long new password",
            "Is not your present password.",
        ),
        (PASSWORD, "short", "short", "Must have at least 10 characters."),
        (PASSWORD, "a long new password", "another password", "The two new passwords differ."),
        (PASSWORD, PASSWORD, PASSWORD, "Must differ from the old one."),
    ],
)
def test_a_refused_password_is_told_beside_its_field_and_never_sent_back(
    alice: Visitor, old: str, new: str, again: str, told: str
) -> None:
    answer = alice.post("/me/password", {"old": old, "new": new, "again": again})
    assert answer.status_code == 422
    assert told in visible_text(answer.text)
    assert 'aria-invalid="true"' in answer.text
    for typed in (old, new, again):
        assert f'value="{typed}"' not in answer.text


# ------------------------------------------------------------------ booking


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


# ------------------------------------------------------------------ reservations


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


# ------------------------------------------------------------------ keys


def test_a_key_is_added_listed_and_removed(
    lab: APIFlask, alice: Visitor, tmp_path: Path
) -> None:
    key = make_key(tmp_path, "alice@desk")
    assert alice.post("/keys", {"public_key": key, "label": ""}).location == "/keys"
    page = alice.get("/keys").text
    listed = subprocess.run(
        ["ssh-keygen", "-l", "-f", tmp_path / "key.pub"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert listed.split()[1] in page
    assert "alice@desk" in page
    with lab.app_context():
        key_id = db.session.scalars(select(SshKey.id).order_by(SshKey.id.desc())).first()
    again = alice.post("/keys", {"public_key": key})
    assert again.status_code == 409
    assert "is registered already" in visible_text(again.text)
    assert alice.post(f"/keys/{key_id}/remove").location == "/keys"
    assert listed.split()[1] not in alice.get("/keys").text.replace("Key removed", "")


def test_a_private_key_is_refused_and_not_sent_back(alice: Visitor, tmp_path: Path) -> None:
    make_key(tmp_path, "alice@desk")
    private = (tmp_path / "key").read_text()
    answer = alice.post("/keys", {"public_key": private, "label": "mine"})
    assert answer.status_code == 422
    assert "This is a private key, which must never leave your computer." in answer.text
    for line in private.splitlines():
        assert line not in answer.text


@pytest.mark.parametrize(
    ("pasted", "told"),
    [
        ("", "Empty."),
        ("hello", "Not an SSH public key; one begins with a type such as ssh-ed25519."),
        ("ssh-ed25519 AAAA", "The key inside is not of the type ssh-ed25519"),
    ],
)
def test_a_refused_key_is_told_beside_the_field_and_kept(
    alice: Visitor, pasted: str, told: str
) -> None:
    answer = alice.post("/keys", {"public_key": pasted, "label": "kept"})
    assert answer.status_code == 422
    assert told in visible_text(answer.text)
    assert f">{pasted}</textarea>" in answer.text
    assert 'value="kept"' in answer.text


# ------------------------------------------------------------------ nodes and users


def test_a_node_is_added_changed_invited_and_removed(lab: APIFlask) -> None:
    olga = signed_in(lab, "olga")
    form = {"name": "gpu-09", "cluster": "new", "tags": "a, b  c", "mode": "enforce"}
    assert olga.post("/nodes/add", form).location == "/nodes/gpu-09"
    page = visible_text(olga.get("/nodes/gpu-09").text)
    assert "Not registered" in page
    assert "no: no alert when it is offline" in page
    answer = olga.post("/nodes/gpu-09/edit", {**form, "tags": "x", "is_monitored": "1"})
    assert answer.location == "/nodes/gpu-09"
    with lab.app_context():
        node = db.session.scalars(select(Node).where(Node.name == "gpu-09")).one()
        assert (node.cluster, node.tags, node.mode, node.is_monitored) == (
            "new", ["x"], "enforce", True,
        )  # fmt: skip
    invite = olga.post("/nodes/gpu-09/invite")
    assert invite.status_code == 201
    code = shown_secret(invite.text, "code")
    for command in ("install", "register"):
        assert f"SENTINEL_AGENT_CODE={code} sentinel-agent {command} --server " in invite.text
    with lab.app_context():
        kept = db.session.scalars(select(Invite)).one()
        assert code not in kept.code_hash
    assert code not in olga.get("/nodes/gpu-09").text
    assert olga.post("/nodes/gpu-09/remove").location == "/nodes"
    assert olga.get("/nodes/gpu-09").status_code == 404


@pytest.mark.parametrize(
    ("public_url", "option", "warning"),
    [
        ("https://booking.example", "", ""),
        ("http://booking.example:8800", " --plain-http", "is not encrypted"),
        ("http://10.0.0.1:8800", " --plain-http", "is not encrypted"),
        ("http://127.0.0.1:8800", "", "leads every other machine to itself"),
        ("http://[::1]:8800", "", "leads every other machine to itself"),
        ("http://localhost:8800", "", "leads every other machine to itself"),
    ],
)
def test_an_invites_commands_are_such_as_the_agent_takes(
    tmp_path: Path, public_url: str, option: str, warning: str
) -> None:
    lab = make_lab(tmp_path, public_url=public_url)
    page = signed_in(lab, "olga").post("/nodes/gpu-01/invite").text
    code = shown_secret(page, "code")
    began = f"SENTINEL_AGENT_CODE={code} sentinel-agent"
    server = f"--server {public_url}{option}"
    assert shown_secret(page, "command") == (
        f"{began} install {server} --breakglass USER=PUBKEYFILE"
    )
    assert shown_secret(page, "register") == f"{began} register {server}"
    for said in ("is not encrypted", "leads every other machine to itself"):
        assert (said in visible_text(page)) is (said == warning)


def test_a_node_with_bookings_is_not_removed(lab: APIFlask) -> None:
    olga = signed_in(lab, "olga")
    answer = olga.post("/nodes/gpu-01/remove")
    assert answer.status_code == 409
    assert "gpu-01 has 3 reservations that run or come" in visible_text(answer.text)


def test_a_refused_node_keeps_what_was_typed(lab: APIFlask) -> None:
    olga = signed_in(lab, "olga")
    form = {"name": "Bad Name", "cluster": "c", "address": "not an address", "mode": "x"}
    answer = olga.post("/nodes/add", form)
    assert answer.status_code == 422
    text = visible_text(answer.text)
    assert "Lower-case letters, digits" in text
    assert "Not a host name or an IP address." in text
    assert 'value="Bad Name"' in answer.text
    assert 'value="not an address"' in answer.text
    assert olga.post("/nodes/add", {"name": "gpu-01"}).status_code == 409


def test_a_user_is_added_with_a_password_shown_once(lab: APIFlask, admin: Visitor) -> None:
    form = {"name": "dora", "display_name": "Dora", "email": "", "role": "user"}
    answer = admin.post("/admin/users/add", form)
    assert answer.status_code == 201
    assert answer.headers["Cache-Control"] == "no-store"
    password = shown_secret(answer.text, "password")
    assert len(password) >= 16
    assert password not in admin.get("/admin/users").text
    assert password not in admin.get("/admin/audit").text
    dora = Visitor(lab)
    assert dora.sign_in("dora", password).status_code == 303
    assert dora.get("/").location == "/me/password"


def test_a_closed_account_is_out_at_once(lab: APIFlask, admin: Visitor) -> None:
    bob = signed_in(lab, "bob")
    form = {"display_name": "Bob", "email": "", "role": "user"}
    assert admin.post("/admin/users/bob", form).location == "/admin/users"
    assert bob.get("/").status_code == 303
    assert bob.sign_in("bob").status_code == 401


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"name": "Root!"}, "Must begin with a small letter"),
        ({"name": "root"}, "Belongs to the system; choose another one."),
        ({"role": "emperor"}, "Choose a role."),
        ({"display_name": "x" * 101}, "At most 100 characters."),
        ({"email": "a\tb"}, "One line of printable characters only."),
        ({"name": "alice"}, "There is a user named alice already."),
    ],
)
def test_a_refused_user_keeps_what_was_typed(
    admin: Visitor, change: dict[str, str], told: str
) -> None:
    form = {"name": "dora", "display_name": "Dora", "email": "d@lab.example", "role": "user"}
    answer = admin.post("/admin/users/add", {**form, **change})
    assert answer.status_code in (409, 422)
    assert told in visible_text(answer.text)
    if "display_name" not in change:
        assert 'value="Dora"' in answer.text


def test_the_last_administrator_stays(admin: Visitor) -> None:
    answer = admin.post("/admin/users/admin", {"role": "user", "is_active": "1"})
    assert answer.status_code == 409
    assert "admin is the last active admin" in visible_text(answer.text)


# ------------------------------------------------------------------ reading pages


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


def make_key(folder: Path, comment: str) -> str:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", folder / "key"],
        check=True,
    )
    return (folder / "key.pub").read_text()
