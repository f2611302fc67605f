"""`/api/me`: what a person may see and change of themselves."""

from __future__ import annotations

from collections.abc import Sequence

from apiflask import APIBlueprint
from flask import Response
from pydantic import Field

from ..auth import current_actor, require_role, require_sign_in
from ..models import Role, SshKey
from ..rate_limits import count_attempt
from ..services.keys import add_key, list_keys, remove_key
from ..services.users import change_own_password, change_profile, get_user
from .people import DisplayName, Email, KeyOut, Locale, UserOut
from .schemas import Body, Out

bp = APIBlueprint("me", __name__, url_prefix="/api/me")


class ProfileIn(Body):
    """Absent fields stay as they are; null clears."""

    display_name: DisplayName = ""
    email: Email | None = None
    locale: Locale | None = None


class PasswordIn(Body):
    """The lengths only bound the work; the rules are the service's."""

    old: str = Field(min_length=1, max_length=256)
    new: str = Field(min_length=1, max_length=256)


class KeyIn(Body):
    """One line of a .pub file. Without a label the key's comment becomes it."""

    public_key: str = Field(min_length=1, max_length=8192)
    label: str | None = Field(default=None, max_length=100)


class KeysOut(Out):
    """All of the person's keys."""

    items: list[KeyOut]


@bp.get("")
@require_role(Role.READONLY, before_password_change=True)
@bp.output(UserOut)
def show_me() -> UserOut:
    """Show who is signed in. Readonly and above."""
    return UserOut.model_validate(get_user(require_sign_in().name))


@bp.patch("")
@require_role(Role.READONLY)
@bp.input(ProfileIn)
@bp.output(UserOut)
def change_me(json_data: ProfileIn) -> UserOut:
    """Change one's own display name, e-mail address or language. Readonly and above."""
    me = require_sign_in()
    return UserOut.model_validate(
        change_profile(current_actor(), me.user_id, json_data.given())
    )


@bp.post("/password")
@require_role(Role.READONLY, before_password_change=True)
@bp.input(PasswordIn)
@bp.output({}, status_code=204)
@bp.doc(responses={409: "Changed at the same moment", 429: "Too many attempts"})
def change_my_password(json_data: PasswordIn) -> Response:
    """Change one's own password; the other sign-ins end. Readonly and above."""
    me = require_sign_in()
    count_attempt("password", current_actor().ip, me.name)
    change_own_password(
        current_actor(), me.user_id, me.sid, old=json_data.old, new=json_data.new
    )
    return Response(status=204)


@bp.get("/keys")
@require_role(Role.USER)
@bp.output(KeysOut)
def list_my_keys() -> dict[str, Sequence[SshKey]]:
    """List one's own SSH keys. User and above."""
    return {"items": list_keys(require_sign_in().user_id)}


@bp.post("/keys")
@require_role(Role.USER)
@bp.input(KeyIn)
@bp.output(KeyOut, status_code=201)
@bp.doc(responses={409: "The key is somebody's already"})
def add_my_key(json_data: KeyIn) -> KeyOut:
    """Add an SSH public key. User and above."""
    me = require_sign_in()
    return KeyOut.model_validate(
        add_key(current_actor(), me.user_id, json_data.public_key, json_data.label)
    )


@bp.delete("/keys/<int:key_id>")
@require_role(Role.USER)
@bp.output({}, status_code=204)
def remove_my_key(key_id: int) -> Response:
    """Remove one of one's own SSH keys. User and above."""
    remove_key(current_actor(), require_sign_in().user_id, key_id)
    return Response(status=204)
