"""What every page has around it: navigation, languages, static files, shared filters."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import cast

from flask import Blueprint, Flask, Response, current_app, request, url_for
from flask.sansio.blueprints import BlueprintSetupState
from werkzeug.exceptions import HTTPException

from .. import __version__
from ..auth import current_actor
from ..models import Role
from .languages import HTML_LANG, LANGUAGES, current_language, init_languages
from .reasons import say, title_of
from .texts import _, _l
from .times import form_time, rfc3339, span, when

bp = Blueprint("web_frame", __name__)

_STATIC = Path(__file__).parent / "static"

_ROLE_NAMES = {
    Role.ADMIN: _l("administrator"),
    Role.OPERATOR: _l("operator"),
    Role.USER: _l("user"),
    Role.READONLY: _l("read only"),
}

# Endpoint, label, and the roles that see it; None: all.
_NAVIGATION = (
    ("web_matrix.show_matrix", _l("Matrix"), None),
    ("web_booking.show_form", _l("Book"), (Role.ADMIN, Role.OPERATOR, Role.USER)),
    ("web_reservations.show_reservations", _l("Reservations"), None),
    ("web_keys.show_keys", _l("SSH keys"), (Role.ADMIN, Role.OPERATOR, Role.USER)),
    ("web_nodes.show_nodes", _l("Nodes"), None),
    ("web_alerts.show_alerts", _l("Alerts"), None),
    ("web_users.show_users", _l("Users"), (Role.ADMIN,)),
    ("web_audit.show_audit", _l("Audit"), (Role.ADMIN,)),
)


@dataclass(frozen=True)
class NavItem:
    """One link of the navigation."""

    href: str
    label: str
    is_current: bool


@bp.record_once
def _set_up(state: BlueprintSetupState) -> None:
    # A blueprint's state knows only the part of Flask that it shares with others.
    app = cast(Flask, state.app)
    init_languages(app)
    app.jinja_env.filters.update(when=when, form_time=form_time, rfc3339=rfc3339, span=span)
    app.jinja_env.globals.update(
        device_name=device_name,
        languages=LANGUAGES,
        local_address=local_address,
        nav_items=nav_items,
        role_name=role_name,
        say=say,
        static_url=static_url,
        title_of=title_of,
        version=__version__,
    )


@bp.app_context_processor
def _language() -> dict[str, str]:
    language = current_language()
    return {"lang": language, "html_lang": HTML_LANG[language]}


@bp.after_app_request
def _cache_named_versions(response: Response) -> Response:
    # The address names the content's hash, so what it answers never changes.
    if request.endpoint == "static" and "v" in request.args and response.status_code == 200:
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
    return response


def nav_items() -> list[NavItem]:
    """Return the links that the signed-in person's role has."""
    role = current_actor().role
    section = (request.endpoint or "").partition(".")[0]
    return [
        NavItem(
            href=url_for(endpoint),
            label=str(label),
            is_current=endpoint.partition(".")[0] == section,
        )
        for endpoint, label, roles in _NAVIGATION
        if roles is None or role in roles
    ]


def role_name(role: str) -> str:
    """Return what the page's language calls a role."""
    return str(_ROLE_NAMES[Role(role)])


def device_name(index: int) -> str:
    """Return what people call the device: its number in the driver's tools."""
    return _("Card %(index)s", index=index)


def static_url(name: str) -> str:
    """Return a static file's address with its content's hash, so that it can be cached."""
    path = _STATIC / name
    try:
        modified = path.stat().st_mtime_ns
    except OSError:
        # script/front-end has not run: the page still works, without what it adds.
        return url_for("static", filename=name)
    return url_for("static", filename=name, v=_content_hash(path, modified))


@lru_cache(maxsize=64)
def _content_hash(path: Path, modified: int) -> str:  # noqa: ARG001  part of the key
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def local_path(address: str) -> str:
    """Return the address when it is a path on this server, else "/".

    Browsers read a backslash as a slash and drop tabs and line ends, so "/\\evil" and
    "/<tab>/evil" would leave the site.
    """
    if (
        not address.startswith("/")
        or address.startswith("//")
        or "\\" in address
        or any(ord(letter) < 0x20 or ord(letter) == 0x7F for letter in address)
    ):
        return "/"
    return address


def local_address() -> str:
    """Return where a form that only changes how pages look should lead back to."""
    if request.method == "GET":
        return request.full_path.rstrip("?")
    try:
        # After a refused form, back to the page that has it; some addresses only take POST.
        adapter = current_app.create_url_adapter(request)
        if adapter is not None:
            adapter.match(request.path, method="GET")
    except HTTPException:
        return "/"
    return request.path
