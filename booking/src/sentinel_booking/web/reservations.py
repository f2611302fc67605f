"""`/reservations`: one's own, and for operators everybody's; releasing and extending."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

from flask import Blueprint, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from markupsafe import Markup

from ..auth import current_actor, require_role
from ..config import current_config
from ..domain.booking_rules import State
from ..errors import BookingError, InvalidInput
from ..models import Role
from ..services.booked import SlotTaken
from ..services.nodes import list_nodes
from ..services.paging import Slice
from ..services.reservation_list import (
    ReservationFilter,
    get_reservation,
    list_reservations,
)
from ..services.reservation_view import ReservationView
from ..services.reservations import change_reservation, release_reservation
from .forms import by_field, whole_form
from .frame import local_path
from .texts import _
from .times import read_form_time, when
from .words import what_is_booked

bp = Blueprint("web_reservations", __name__, url_prefix="/reservations")

# More than one person has open; a lab's operators page through the rest by node or holder.
MAX_OPEN = 200
PAGE = 25
# What one press of a button adds, in seconds.
STEPS_S = (3600, 4 * 3600, 24 * 3600)


@bp.get("")
@require_role(Role.READONLY)
def show_reservations() -> ResponseReturnValue:
    """List one's own reservations; with `all=1` everybody's. R; everybody's: O."""
    return _page()


@bp.post("/<int:reservation_id>/release")
@require_role(Role.USER)
def release(reservation_id: int) -> ResponseReturnValue:
    """End it now, or cancel it. Its holder, O."""
    released = release_reservation(current_actor(), reservation_id)
    what = what_is_booked(released.whole_node, [item.index for item in released.devices])
    flash(_("Released: %(node)s, %(what)s.", node=released.node, what=what))
    return redirect(_back(), 303)


@bp.post("/<int:reservation_id>/extend")
@require_role(Role.USER)
def extend(reservation_id: int) -> ResponseReturnValue:
    """Set another end: `add_s` seconds more, or the time `ends`. Its holder, O."""
    before = get_reservation(reservation_id)
    try:
        changed = change_reservation(
            current_actor(),
            reservation_id,
            request.form.get("version", type=int),
            ends=_wanted_end(before),
        )
    except SlotTaken as taken:
        return _page(refused=before, taken=taken), taken.status
    except BookingError as error:
        errors = by_field(error, ("ends",))
        problem = " ".join(errors.get("ends", [])) or whole_form(error, {})
        return _page(refused=before, problem=problem), error.status
    flash(
        Markup("{} {}").format(_("%(node)s: now until", node=changed.node), when(changed.ends))
    )
    return redirect(_back(), 303)


def _wanted_end(before: ReservationView) -> dt.datetime:
    add_s = request.form.get("add_s", type=int)
    if add_s in STEPS_S:
        return before.ends + dt.timedelta(seconds=add_s)
    ends = read_form_time("ends", request.form.get("ends", ""))
    if ends is None:
        raise InvalidInput.field("ends", _("Say until when."))
    return ends


def _back() -> str:
    return local_path(request.form.get("next") or url_for("web_reservations.show_reservations"))


def _page(
    refused: ReservationView | None = None, problem: str = "", taken: SlotTaken | None = None
) -> str:
    actor = current_actor()
    is_everybody = actor.is_operator and request.args.get("all") == "1"
    holder = (request.args.get("holder") or None) if is_everybody else actor.name
    node = (request.args.get("node") or None) if is_everybody else None
    cursor = request.args.get("cursor") or None

    def read(state: State, limit: int, cursor: str | None = None) -> Slice[ReservationView]:
        wanted = ReservationFilter(node=node, holder=holder, state=state)
        return list_reservations(wanted, cursor, limit)

    # A later page of the past shows only the past.
    running = [] if cursor else read(State.RUNNING, MAX_OPEN).items
    coming = [] if cursor else read(State.COMING, MAX_OPEN).items
    return render_template(
        "reservations.html",
        is_everybody=is_everybody,
        holder=holder if is_everybody else None,
        node=node,
        cursor=cursor,
        running=running,
        coming=coming,
        past=read(State.PAST, PAGE, cursor),
        hosts=_hosts() if running else {},
        steps=STEPS_S,
        refused=refused,
        problem=problem,
        taken=taken,
        what=_what,
    )


def _what(item: ReservationView) -> str:
    return what_is_booked(item.whole_node, [device.index for device in item.devices])


def _hosts() -> Mapping[str, str]:
    """Return where people log in, by node name."""
    nodes = list_nodes(current_config().offline_after_s)
    return {node.name: node.address or node.name for node in nodes}
