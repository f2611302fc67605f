"""`/admin/users`: who is listed, with which role."""

from __future__ import annotations

from collections.abc import Mapping

from flask import Blueprint, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from ..auth import current_actor, require_role
from ..errors import BookingError, InvalidInput
from ..models import Role
from ..services.passwords import generate_password
from ..services.users import change_user, count_users, create_user, get_user, list_users
from .forms import by_field, whole_form
from .texts import _

bp = Blueprint("web_users", __name__, url_prefix="/admin/users")

PAGE = 50
_FIELDS = ("name", "display_name", "email", "role", "is_active")
# As the interface for programs takes them.
_MAX_CHARS = {"display_name": 100, "email": 254}


@bp.get("")
@require_role(Role.ADMIN)
def show_users() -> ResponseReturnValue:
    """List the users by name. A."""
    after = request.args.get("after", "")
    users = list_users(after, PAGE + 1)
    return render_template(
        "users.html",
        users=users[:PAGE],
        count=count_users(),
        after=after,
        next_after=users[PAGE - 1].name if len(users) > PAGE else None,
    )


@bp.get("/add")
@require_role(Role.ADMIN)
def show_add_form() -> ResponseReturnValue:
    """Show the form for a new user. A."""
    return _form(None, {"role": Role.USER.value})


@bp.post("/add")
@require_role(Role.ADMIN)
def add() -> ResponseReturnValue:
    """Add a user; their generated password is shown, once. A."""
    try:
        user, generated = create_user(
            current_actor(),
            name=request.form.get("name", "").strip(),
            role=_role(),
            display_name=_text("display_name"),
            email=_text("email") or None,
        )
    except BookingError as error:
        return _refused(None, error)
    # In the answer itself: after a redirect it would have to wait somewhere.
    return render_template("new_password.html", user=user, password=generated, is_new=True), 201


@bp.get("/<name>")
@require_role(Role.ADMIN)
def show_user(name: str) -> ResponseReturnValue:
    """Show one user's settings. A."""
    user = get_user(name)
    values = {
        "display_name": user.display_name,
        "email": user.email or "",
        "role": user.role,
        **({"is_active": "1"} if user.is_active else {}),
    }
    return _form(name, values)


@bp.post("/<name>")
@require_role(Role.ADMIN)
def edit(name: str) -> ResponseReturnValue:
    """Change a user's settings. A."""
    try:
        change_user(
            current_actor(),
            name,
            {
                "display_name": _text("display_name"),
                "email": _text("email") or None,
                "role": _role(),
                # A box that is not ticked is not sent.
                "is_active": "is_active" in request.form,
            },
        )
    except BookingError as error:
        return _refused(name, error)
    flash(_("Saved."))
    return redirect(url_for("web_users.show_users"), 303)


@bp.post("/<name>/password")
@require_role(Role.ADMIN)
def reset_password(name: str) -> ResponseReturnValue:
    """Give a user a generated password and show it, once. A."""
    password = generate_password()
    user = change_user(current_actor(), name, {"password": password})
    return render_template("new_password.html", user=user, password=password, is_new=False), 201


def _role() -> Role:
    given = request.form.get("role", "")
    if given not in set(Role):
        raise InvalidInput.field("role", _("Choose a role."))
    return Role(given)


def _text(name: str) -> str:
    """Return a field's text. Raises InvalidInput when it is longer than can be stored."""
    text = request.form.get(name, "").strip()
    if len(text) > _MAX_CHARS[name]:
        raise InvalidInput.field(
            name, _("At most %(count)s characters.", count=_MAX_CHARS[name])
        )
    if not text.isprintable():
        raise InvalidInput.field(name, _("One line of printable characters only."))
    return text


def _refused(name: str | None, error: BookingError) -> ResponseReturnValue:
    errors = by_field(error, _FIELDS)
    page = _form(name, request.form.to_dict(), errors, whole_form(error, errors))
    return page, error.status


def _form(
    name: str | None,
    values: Mapping[str, str],
    errors: Mapping[str, list[str]] | None = None,
    problem: str = "",
) -> str:
    return render_template(
        "user_form.html",
        name=name,
        values=values,
        errors=errors or {},
        problem=problem,
        roles=list(Role),
    )
