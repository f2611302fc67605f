"""`/book`: the form for a reservation, and what to do when it is refused."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

from flask import Blueprint, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from markupsafe import Markup
from werkzeug.datastructures import MultiDict

from ..auth import current_actor, require_role, require_sign_in
from ..config import current_config
from ..errors import BookingError, InvalidInput, NotFound
from ..models import Kind, Role, utc_now
from ..services.booked import SlotTaken
from ..services.keys import list_keys
from ..services.node_view import DeviceState, NodeView
from ..services.nodes import list_nodes
from ..services.reservation_view import ReservationView
from ..services.reservations import Wanted, create_reservation
from .forms import by_field, whole_form
from .texts import _
from .timeline import read_timeline
from .times import read_form_time, when
from .words import what_is_booked

bp = Blueprint("web_booking", __name__, url_prefix="/book")

_FIELDS = ("node", "devices", "starts", "ends", "purpose", "holder")


@dataclass(frozen=True)
class Draft:
    """What the form holds. `starts` None: from now; `ends` None: not said yet."""

    node: str = ""
    whole_node: bool = False
    devices: tuple[str, ...] = ()
    starts: dt.datetime | None = None
    ends: dt.datetime | None = None
    purpose: str = ""
    holder: str = ""
    is_maintenance: bool = False
    errors: Mapping[str, list[str]] = field(default_factory=dict)

    def wanted(self) -> Wanted:
        """Return what the service is asked for. Raises InvalidInput without an end."""
        if self.ends is None:
            raise InvalidInput.field("ends", _("Say until when."))
        return Wanted(
            node=self.node,
            ends=self.ends,
            device_uuids=() if self.whole_node else self.devices,
            whole_node=self.whole_node,
            starts=self.starts,
            purpose=self.purpose,
            holder=self.holder or None,
            kind=Kind.MAINTENANCE if self.is_maintenance else Kind.USE,
        )


@dataclass(frozen=True)
class Advice:
    """The same wish at another time; posting it books it."""

    starts: dt.datetime | None
    ends: dt.datetime


@bp.get("")
@require_role(Role.USER)
def show_form() -> ResponseReturnValue:
    """Show the form, filled in as the address says. U."""
    return _page(_read_draft(request.args))


@bp.post("")
@require_role(Role.USER)
def book() -> ResponseReturnValue:
    """Book. U."""
    draft = _read_draft(request.form)
    if draft.errors:
        return _page(draft), 422
    try:
        # The form's own number: pressing the button twice books once.
        made = create_reservation(
            current_actor(),
            draft.wanted(),
            request.form.get("form_id") or None,
            _hash(draft),
        )
    except SlotTaken as taken:
        return _page(draft, taken=taken), taken.status
    except BookingError as error:
        errors = by_field(error, _FIELDS)
        return _page(draft, errors, whole_form(error, errors)), error.status
    flash(_success(made))
    return redirect(url_for("web_reservations.show_reservations"), 303)


def _read_draft(source: MultiDict[str, str]) -> Draft:
    errors: dict[str, list[str]] = {}
    times: dict[str, dt.datetime | None] = {"starts": None, "ends": None}
    for name in times:
        if name == "starts" and source.get("begin") == "now":
            continue
        try:
            times[name] = read_form_time(name, source.get(name, ""))
        except InvalidInput as error:
            errors |= by_field(error, (name,))
    return Draft(
        node=source.get("node", ""),
        whole_node=source.get("what") == "whole",
        devices=tuple(source.getlist("device")),
        starts=times["starts"],
        ends=times["ends"],
        purpose=source.get("purpose", "").strip(),
        holder=source.get("holder", "").strip(),
        is_maintenance="maintenance" in source,
        errors=errors,
    )


def _page(
    draft: Draft,
    errors: Mapping[str, list[str]] | None = None,
    problem: str = "",
    taken: SlotTaken | None = None,
) -> str:
    nodes = list_nodes(current_config().offline_after_s)
    node = _choose_node(nodes, draft.node)
    devices = [] if node is None else _present_devices(node)
    return render_template(
        "book.html",
        nodes=nodes,
        node=node,
        devices=devices,
        draft=draft,
        is_whole=draft.whole_node or not devices,
        timeline=None if node is None else read_timeline(node, around=draft.starts),
        errors={**draft.errors, **(errors or {})},
        problem=problem,
        taken=taken,
        advice=() if taken is None else _advice(draft, taken),
        has_key=bool(list_keys(require_sign_in().user_id)),
        form_id=secrets.token_hex(16),
        max_hours=current_config().max_reservation_hours,
    )


def _choose_node(nodes: list[NodeView], name: str) -> NodeView | None:
    """Return the named node; without a name one with something free. Raises NotFound."""
    if name:
        for node in nodes:
            if node.name == name:
                return node
        raise NotFound(f"There is no node {name}.")
    free = [
        node
        for node in nodes
        if node.state == "online"
        and any(device.state == DeviceState.FREE for device in node.devices)
    ]
    return next(iter([*free, *nodes]), None)


def _present_devices(node: NodeView) -> list[object]:
    return [device for device in node.devices if device.state != DeviceState.ABSENT]


def _advice(draft: Draft, taken: SlotTaken) -> list[Advice]:
    """Return what can be booked instead: the same length later, or a shorter one now."""
    advice = []
    if taken.next_free is not None and draft.ends is not None:
        length = draft.ends - (draft.starts or utc_now())
        advice.append(Advice(taken.next_free, taken.next_free + length))
    if taken.max_end is not None:
        advice.append(Advice(draft.starts, taken.max_end))
    return advice


def _success(made: ReservationView) -> Markup:
    what = what_is_booked(made.whole_node, [device.index for device in made.devices])
    return Markup("{} {} – {}").format(
        _("Booked: %(node)s, %(what)s,", node=made.node, what=what),
        when(made.starts),
        when(made.ends),
    )


def _hash(draft: Draft) -> str:
    values = {key: str(value) for key, value in vars(draft).items()}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
