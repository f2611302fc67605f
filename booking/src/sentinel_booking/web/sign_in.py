"""`/login`, `/logout`, `/me/password`, `/language`: what concerns the sign-in itself."""

from __future__ import annotations

from flask import (
    Blueprint,
    flash,
    make_response,
    redirect,
    render_template,
    request,
    url_for,
)
from flask.typing import ResponseReturnValue

from ..auth import current_actor, public, require_role, require_sign_in, sign_in
from ..errors import BookingError, NotSignedIn, TooManyAttempts
from ..models import Role
from ..services.passwords import MIN_CHARS
from ..services.sign_ins import end_sign_in
from ..services.users import change_own_password, change_profile
from ..tokens import clear_cookies, read_access_token, set_cookies
from .forms import by_field, whole_form
from .frame import local_path
from .languages import LANGUAGES, remember_language
from .reasons import say
from .texts import _

bp = Blueprint("web_sign_in", __name__)

_PASSWORD_FIELDS = ("old", "new", "again")


@bp.get("/login")
@public
def show_sign_in() -> ResponseReturnValue:
    """Show the form; whoever is signed in already goes on. Anybody."""
    wanted = local_path(request.args.get("next", "/"))
    language = request.args.get("lang", "")
    if language in LANGUAGES:
        # A preference of this browser only, so a GET may set it.
        again = url_for("web_sign_in.show_sign_in", next=None if wanted == "/" else wanted)
        response = make_response(redirect(again, 303))
        remember_language(response, language)
        return response
    try:
        read_access_token()
    except NotSignedIn:
        return _sign_in_page(wanted)
    return redirect(wanted, 303)


@bp.post("/login")
@public
def sign_in_page() -> ResponseReturnValue:
    """Sign in. Anybody; rate-limited."""
    name = request.form.get("name", "").strip()
    wanted = local_path(request.form.get("next", "/"))
    try:
        _signed_in, tokens = sign_in(name, request.form.get("password", ""))
    except (NotSignedIn, TooManyAttempts) as error:
        return _sign_in_page(wanted, name, say(error.detail)), error.status
    response = make_response(redirect(wanted, 303))
    set_cookies(response, tokens)
    return response


@bp.post("/logout")
@require_role(Role.READONLY, before_password_change=True)
def sign_out() -> ResponseReturnValue:
    """End this sign-in. R."""
    end_sign_in(require_sign_in().sid, current_actor())
    response = make_response(redirect("/login", 303))
    clear_cookies(response)
    return response


@bp.get("/me/password")
@require_role(Role.READONLY, before_password_change=True)
def password() -> ResponseReturnValue:
    """Show the form for another password. R."""
    return _password_page()


@bp.post("/me/password")
@require_role(Role.READONLY, before_password_change=True)
def change_password() -> ResponseReturnValue:
    """Change one's password. R."""
    form = request.form
    if form.get("new", "") != form.get("again", ""):
        return _password_page({"again": [_("The two new passwords differ.")]}), 422
    signed_in = require_sign_in()
    try:
        change_own_password(
            current_actor(),
            signed_in.user_id,
            signed_in.sid,
            form.get("old", ""),
            form.get("new", ""),
        )
    except BookingError as error:
        errors = by_field(error, _PASSWORD_FIELDS)
        return _password_page(errors, whole_form(error, errors)), error.status
    flash(_("Your password is changed. Your other sign-ins have ended."))
    return redirect("/", 303)


@bp.post("/language")
@require_role(Role.READONLY, before_password_change=True)
def set_language() -> ResponseReturnValue:
    """Choose the language of the pages, in every browser. R."""
    response = make_response(redirect(local_path(request.form.get("next", "/")), 303))
    language = request.form.get("locale", "")
    if language in LANGUAGES:
        change_profile(current_actor(), require_sign_in().user_id, {"locale": language})
        remember_language(response, language)
    return response


def _sign_in_page(wanted: str, name: str = "", problem: str = "") -> str:
    return render_template("login.html", next=wanted, name=name, problem=problem)


def _password_page(errors: dict[str, list[str]] | None = None, problem: str = "") -> str:
    return render_template(
        "password.html",
        errors=errors or {},
        problem=problem,
        forced=require_sign_in().must_change_password,
        min_chars=MIN_CHARS,
    )
