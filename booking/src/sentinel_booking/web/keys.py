"""`/keys`: a person's own SSH keys."""

from __future__ import annotations

from collections.abc import Mapping

from flask import Blueprint, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from ..auth import current_actor, require_role, require_sign_in
from ..domain.ssh_keys import PrivateKeyGiven
from ..errors import BookingError
from ..models import Role
from ..services.keys import add_key, list_keys, remove_key
from .forms import by_field, whole_form
from .reasons import say
from .texts import _

bp = Blueprint("web_keys", __name__, url_prefix="/keys")


@bp.get("")
@require_role(Role.USER)
def show_keys() -> ResponseReturnValue:
    """List the person's keys. U."""
    return _page()


@bp.post("")
@require_role(Role.USER)
def add() -> ResponseReturnValue:
    """Add a key. U."""
    label = request.form.get("label", "").strip()
    try:
        key = add_key(
            current_actor(),
            require_sign_in().user_id,
            request.form.get("public_key", ""),
            label or None,
        )
    except PrivateKeyGiven as error:
        # Not sent back either: a page may be saved, or seen by somebody else.
        return _page(errors={"public_key": [say(error.detail)]}), error.status
    except BookingError as error:
        errors = by_field(error, ("public_key", "label"))
        page = _page(request.form.get("public_key", ""), errors, whole_form(error, errors))
        return page, error.status
    flash(_("Key %(fingerprint)s added.", fingerprint=key.fingerprint))
    return redirect(url_for("web_keys.show_keys"), 303)


@bp.post("/<int:key_id>/remove")
@require_role(Role.USER)
def remove(key_id: int) -> ResponseReturnValue:
    """Remove one of the person's keys. U."""
    remove_key(current_actor(), require_sign_in().user_id, key_id)
    flash(_("Key removed."))
    return redirect(url_for("web_keys.show_keys"), 303)


def _page(
    pasted: str = "", errors: Mapping[str, list[str]] | None = None, problem: str = ""
) -> str:
    return render_template(
        "keys.html",
        keys=list_keys(require_sign_in().user_id),
        pasted=pasted,
        errors=errors or {},
        problem=problem,
    )
