"""`/api/reservations`: booking, changing, releasing, looking. The rules are services's job."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Annotated

from apiflask import APIBlueprint
from flask import url_for
from pydantic import Field, model_validator

from ..auth import current_actor, require_role
from ..domain.booking_rules import MAX_DEVICES, MAX_PURPOSE_CHARS, State
from ..errors import PreconditionRequired
from ..models import Kind, Role
from ..services import reservation_list, reservations
from ..services.idempotency import MAX_KEY_CHARS
from ..services.reservation_view import ReservationView
from .schemas import AwareTime, Body, Out, OutTime, Page, Query

bp = APIBlueprint("reservations", __name__, url_prefix="/api/reservations")

NodeName = Annotated[str, Field(min_length=1, max_length=63)]
UserName = Annotated[str, Field(min_length=1, max_length=32)]
Uuid = Annotated[str, Field(min_length=1, max_length=96)]
Purpose = Annotated[str, Field(max_length=MAX_PURPOSE_CHARS)]

# No reservation has this version.
_NO_VERSION = 0


class ReservationIn(Body):
    """Either `devices`, by UUID, or `whole_node`. Without `starts` it begins now."""

    node: NodeName
    devices: list[Uuid] = Field(default=[], max_length=MAX_DEVICES)
    whole_node: bool = False
    starts: AwareTime | None = None
    ends: AwareTime
    purpose: Purpose = ""
    holder: UserName | None = None
    kind: Kind = Kind.USE


class ReservationChangeIn(Body):
    """What is absent stays as it is."""

    ends: AwareTime | None = None
    purpose: Purpose | None = None

    @model_validator(mode="after")
    def _refuse_null(self) -> ReservationChangeIn:
        for name in self.model_fields_set:
            if getattr(self, name) is None:
                raise ValueError(f"{name} cannot be null")
        return self


class OnceHeader(Query):
    """Repeated with the same key and body, the request is answered again, not done again."""

    key: str | None = Field(
        default=None, alias="Idempotency-Key", min_length=1, max_length=MAX_KEY_CHARS
    )


class IfMatchHeader(Query):
    """The ETag of the reservation as the caller has seen it; a change needs it."""

    if_match: str | None = Field(default=None, alias="If-Match", max_length=200)


class ReservationQuery(Page):
    """All conditions must match; `from` and `to`: those that overlap the interval."""

    node: str | None = Field(default=None, max_length=63)
    holder: str | None = Field(default=None, max_length=32)
    since: AwareTime | None = Field(default=None, alias="from")
    until: AwareTime | None = Field(default=None, alias="to")
    state: State | None = None


class ReservationOut(Out):
    """`devices` are UUIDs; a whole node lists none."""

    id: int
    node: str
    holder: str
    holder_display_name: str
    holder_has_key: bool
    kind: Kind
    state: State
    whole_node: bool
    devices: list[str]
    starts: OutTime
    ends: OutTime
    purpose: str
    created_at: OutTime
    released_at: OutTime | None
    is_cancelled: bool
    version: int


class ReservationsOut(Out):
    """A page; `next_cursor` is null on the last one."""

    items: list[ReservationOut]
    next_cursor: str | None


# A view's answer: body, status, headers.
Answer = tuple[dict[str, object], int, dict[str, str]]


@bp.get("")
@require_role(Role.READONLY)
@bp.input(ReservationQuery, location="query")
@bp.output(ReservationsOut)
def list_reservations(query_data: ReservationQuery) -> dict[str, object]:
    """List reservations. Readonly and above.

    Running and coming ones are listed with the earliest start first, all else with the
    latest. A cursor is good for the same conditions only.
    """
    page = reservation_list.list_reservations(
        reservation_list.ReservationFilter(
            node=query_data.node,
            holder=query_data.holder,
            since=query_data.since,
            until=query_data.until,
            state=query_data.state,
        ),
        query_data.cursor,
        query_data.limit,
    )
    return {"items": [_out(view) for view in page.items], "next_cursor": page.next_cursor}


@bp.post("")
@require_role(Role.USER)
@bp.input(OnceHeader, location="headers")
@bp.input(ReservationIn)
@bp.output(ReservationOut, status_code=201)
@bp.doc(responses={409: "It is booked: `conflicts`, `next_free`, `max_end`"})
def create_reservation(json_data: ReservationIn, headers_data: OnceHeader) -> Answer:
    """Book. User and above; `holder` and `kind` are for operators."""
    view = reservations.create_reservation(
        current_actor(),
        reservations.Wanted(
            node=json_data.node,
            ends=json_data.ends,
            device_uuids=tuple(json_data.devices),
            whole_node=json_data.whole_node,
            starts=json_data.starts,
            purpose=json_data.purpose,
            holder=json_data.holder,
            kind=json_data.kind,
        ),
        headers_data.key,
        _hash(json_data),
    )
    headers = _etag(view)
    headers["Location"] = url_for(".get_reservation", reservation_id=view.id)
    return _out(view), 201, headers


@bp.get("/<int:reservation_id>")
@require_role(Role.READONLY)
@bp.output(ReservationOut)
@bp.doc(responses={404: "No such reservation"})
def get_reservation(reservation_id: int) -> Answer:
    """Show one reservation, with its ETag. Readonly and above."""
    view = reservation_list.get_reservation(reservation_id)
    return _out(view), 200, _etag(view)


@bp.patch("/<int:reservation_id>")
@require_role(Role.READONLY)
@bp.input(IfMatchHeader, location="headers")
@bp.input(ReservationChangeIn)
@bp.output(ReservationOut)
@bp.doc(
    responses={
        404: "No such reservation",
        409: "It has ended, or somebody comes next: `conflicts`, `max_end`",
        412: "It was changed since",
        428: "If-Match is missing",
    }
)
def change_reservation(
    reservation_id: int, json_data: ReservationChangeIn, headers_data: IfMatchHeader
) -> Answer:
    """Extend, shorten or describe it. Its holder, operators."""
    view = reservations.change_reservation(
        current_actor(),
        reservation_id,
        _version(headers_data.if_match),
        ends=json_data.ends,
        purpose=json_data.purpose,
    )
    return _out(view), 200, _etag(view)


@bp.post("/<int:reservation_id>/release")
@require_role(Role.READONLY)
@bp.output(ReservationOut)
@bp.doc(responses={404: "No such reservation"})
def release_reservation(reservation_id: int) -> Answer:
    """End it now, or cancel one that has not begun. Its holder, operators.

    Repeating it changes nothing.
    """
    view = reservations.release_reservation(current_actor(), reservation_id)
    return _out(view), 200, _etag(view)


def _out(view: ReservationView) -> dict[str, object]:
    return {**vars(view), "devices": list(view.device_uuids)}


def _etag(view: ReservationView) -> dict[str, str]:
    return {"ETag": f'"{view.version}"'}


def _version(if_match: str | None) -> int | None:
    if if_match is None:
        return None
    if if_match.strip() == "*":
        raise PreconditionRequired("If-Match must name the version that you have seen, not *.")
    # A proxy that compresses answers makes our ETags weak ones; the version stays the same.
    found = re.fullmatch(r'\s*(?:W/)?"([0-9]{1,9})"\s*', if_match)
    return int(found[1]) if found else _NO_VERSION


def _hash(body: ReservationIn) -> str:
    """The same for bodies that mean the same, however they were written."""
    text = json.dumps(body.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
