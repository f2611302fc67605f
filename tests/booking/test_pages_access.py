"""Who may open which page and send which form; every page of the application is listed."""

from __future__ import annotations

import pytest
from apiflask import APIFlask

from sentinel_booking.models import Role
from tests.booking.page_lab import make_lab
from tests.booking.page_visitor import Visitor

# For each page: an address of it and the least role that may open it; None: anybody.
PAGES: dict[str, tuple[str, Role | None]] = {
    "/": ("/", Role.READONLY),
    "/login": ("/login", None),
    "/me/password": ("/me/password", Role.READONLY),
    "/book": ("/book", Role.USER),
    "/reservations": ("/reservations", Role.READONLY),
    "/keys": ("/keys", Role.USER),
    "/nodes": ("/nodes", Role.READONLY),
    "/nodes/<name>": ("/nodes/gpu-01", Role.READONLY),
    "/nodes/add": ("/nodes/add", Role.OPERATOR),
    "/nodes/<name>/edit": ("/nodes/gpu-01/edit", Role.OPERATOR),
    "/alerts": ("/alerts", Role.READONLY),
    "/runbooks/<name>": ("/runbooks/NodeOffline", Role.READONLY),
    "/admin/users": ("/admin/users", Role.ADMIN),
    "/admin/users/add": ("/admin/users/add", Role.ADMIN),
    "/admin/users/<name>": ("/admin/users/alice", Role.ADMIN),
    "/admin/audit": ("/admin/audit", Role.ADMIN),
}

# The same for forms. The addresses name what is not there, so that nothing is changed.
FORMS: dict[str, tuple[str, Role | None]] = {
    "/login": ("/login", None),
    "/logout": ("/logout", Role.READONLY),
    "/language": ("/language", Role.READONLY),
    "/me/password": ("/me/password", Role.READONLY),
    "/book": ("/book", Role.USER),
    "/reservations/<int:reservation_id>/release": ("/reservations/99999/release", Role.USER),
    "/reservations/<int:reservation_id>/extend": ("/reservations/99999/extend", Role.USER),
    "/keys": ("/keys", Role.USER),
    "/keys/<int:key_id>/remove": ("/keys/99999/remove", Role.USER),
    "/nodes/add": ("/nodes/add", Role.OPERATOR),
    "/nodes/<name>/edit": ("/nodes/none/edit", Role.OPERATOR),
    "/nodes/<name>/mode": ("/nodes/none/mode", Role.OPERATOR),
    "/nodes/<name>/invite": ("/nodes/none/invite", Role.OPERATOR),
    "/nodes/<name>/revoke": ("/nodes/none/revoke", Role.OPERATOR),
    "/nodes/<name>/remove": ("/nodes/none/remove", Role.OPERATOR),
    "/admin/users/add": ("/admin/users/add", Role.ADMIN),
    "/admin/users/<name>": ("/admin/users/nobody", Role.ADMIN),
    "/admin/users/<name>/password": ("/admin/users/nobody/password", Role.ADMIN),
}

PERSON_OF_ROLE = {
    Role.ADMIN: "admin",
    Role.OPERATOR: "olga",
    Role.USER: "alice",
    Role.READONLY: "visitor",
}
RANKS = [Role.READONLY, Role.USER, Role.OPERATOR, Role.ADMIN]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> APIFlask:
    """The lab on SQLite; no test of this module changes it."""
    return make_lab(tmp_path_factory.mktemp("lab"))


@pytest.fixture(scope="module")
def visitors(lab: APIFlask) -> dict[Role, Visitor]:
    """Somebody of each role, signed in."""
    found = {}
    for role, name in PERSON_OF_ROLE.items():
        found[role] = Visitor(lab)
        found[role].sign_in(name)
    return found


def test_every_page_and_form_is_listed_here(lab: APIFlask) -> None:
    rules = [rule for rule in lab.url_map.iter_rules() if rule.endpoint.startswith("web_")]
    assert {rule.rule for rule in rules if "GET" in (rule.methods or ())} == set(PAGES)
    assert {rule.rule for rule in rules if "POST" in (rule.methods or ())} == set(FORMS)
    assert all((rule.methods or set()) <= {"GET", "HEAD", "OPTIONS", "POST"} for rule in rules)


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("role", RANKS)
def test_a_page_opens_for_its_roles_alone(
    visitors: dict[Role, Visitor], page: str, role: Role
) -> None:
    path, least = PAGES[page]
    answer = visitors[role].get(path)
    if path == "/login":
        # Who is signed in already goes on.
        assert answer.status_code == 303
    elif least is None or RANKS.index(role) >= RANKS.index(least):
        assert answer.status_code == 200, answer.text
    else:
        assert answer.status_code == 403
        assert answer.mimetype == "text/html"


@pytest.mark.parametrize("form", [form for form in FORMS if form not in ("/login", "/logout")])
@pytest.mark.parametrize("role", RANKS)
def test_a_form_is_taken_from_its_roles_alone(
    visitors: dict[Role, Visitor], form: str, role: Role
) -> None:
    path, least = FORMS[form]
    answer = visitors[role].post(path)
    may = least is None or RANKS.index(role) >= RANKS.index(least)
    # What is empty or not there is refused for that, but not for the role.
    assert (answer.status_code == 403) is not may, answer.text
    assert answer.status_code in ((303, 404, 422) if may else (403,))


@pytest.mark.parametrize("page", [page for page, (_, least) in PAGES.items() if least])
def test_who_is_not_signed_in_is_sent_to_do_so_and_comes_back(lab: APIFlask, page: str) -> None:
    path, _least = PAGES[page]
    answer = Visitor(lab).get(path)
    assert answer.status_code == 303
    wanted = "/login" if path == "/" else f"/login?next={path.replace('/', '%2F')}"
    assert answer.location == wanted


@pytest.mark.parametrize("form", [form for form, (_, least) in FORMS.items() if least])
def test_a_form_of_nobody_changes_nothing(lab: APIFlask, form: str) -> None:
    answer = Visitor(lab).post(FORMS[form][0], with_csrf=False)
    assert answer.status_code == 303
    assert answer.location == "/login"


@pytest.mark.parametrize("form", [form for form, (_, least) in FORMS.items() if least])
def test_a_form_without_its_csrf_token_is_refused(
    visitors: dict[Role, Visitor], form: str
) -> None:
    answer = visitors[Role.ADMIN].post(FORMS[form][0], with_csrf=False)
    assert answer.status_code == 403
    assert "csrf" in answer.text.lower()


@pytest.mark.parametrize("page", PAGES)
def test_every_form_of_a_page_carries_the_csrf_token(
    visitors: dict[Role, Visitor], page: str
) -> None:
    visitor = visitors[Role.ADMIN]
    html = visitor.get(PAGES[page][0]).text
    forms = html.split("<form")[1:]
    for form in forms:
        head, body = form.split(">", 1)
        if 'method="post"' in head:
            assert f'name="csrf_token" value="{visitor.csrf_token}"' in body.split("</form>")[0]


def test_only_operators_see_other_peoples_reservations(visitors: dict[Role, Visitor]) -> None:
    for role in RANKS:
        text = visitors[role].get("/reservations?all=1").text
        assert ("ablation study" in text) is (role in (Role.OPERATOR, Role.ADMIN))


def test_the_navigation_names_only_what_the_role_may_open(
    visitors: dict[Role, Visitor],
) -> None:
    for role in RANKS:
        html = visitors[role].get("/").text
        for page, (path, least) in PAGES.items():
            if page in ("/book", "/keys", "/admin/users", "/admin/audit"):
                assert least is not None
                may = RANKS.index(role) >= RANKS.index(least)
                assert (f'href="{path}"' in html) is may, (role, page)
