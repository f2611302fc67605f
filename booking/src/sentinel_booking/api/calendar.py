"""`/api/nodes/<name>/calendar`: what is booked on a node, for programs that poll it."""

from __future__ import annotations

from apiflask import APIBlueprint
from flask import Response, request
from pydantic import Field

from ..auth import require_role
from ..domain.conflicts import Interval
from ..models import Kind, Role
from ..services import calendar
from .schemas import AwareTime, Out, OutTime, Query

bp = APIBlueprint("calendar", __name__, url_prefix="/api/nodes")


class CalendarQuery(Query):
    """What overlaps from `from` up to `to`, at most 366 days behind it."""

    starts: AwareTime = Field(alias="from")
    ends: AwareTime = Field(alias="to")


class BookedOut(Out):
    """A reservation; `devices` are UUIDs, and a whole node lists none."""

    reservation: int
    holder: str
    kind: Kind
    starts: OutTime
    ends: OutTime
    whole_node: bool
    devices: list[str]
    purpose: str


class CalendarOut(Out):
    """`version` is also the ETag: it rises with every change of the node's bookings."""

    node: str
    version: int
    starts: OutTime
    ends: OutTime
    bookings: list[BookedOut]


@bp.get("/<name>/calendar")
@require_role(Role.READONLY)
@bp.input(CalendarQuery, location="query")
@bp.output(CalendarOut)
@bp.doc(responses={304: "Nothing was booked or released since", 404: "No such node"})
def get_calendar(
    name: str, query_data: CalendarQuery
) -> Response | tuple[dict[str, object], int, dict[str, str]]:
    """Show what is booked on a node, the earliest first. Readonly and above.

    With If-None-Match: 304 when nothing has changed.
    """
    tags = request.if_none_match.as_set(include_weak=True)
    found = calendar.get_calendar(
        name,
        Interval(query_data.starts, query_data.ends),
        # As many digits as a version may have.
        {int(tag) for tag in tags if tag.isdecimal() and len(tag) <= 10},
    )
    # Browsers may keep it, but ask each time whether it is still so.
    headers = {"ETag": f'"{found.version}"', "Cache-Control": "private, no-cache"}
    if found.bookings is None:
        return Response(status=304, headers=headers)
    return vars(found), 200, headers
