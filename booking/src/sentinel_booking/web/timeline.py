"""A node's bookings as lanes over time: their geometry. Decides nothing and draws nothing."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from flask import request

from ..auth import current_actor
from ..domain.conflicts import Interval
from ..models import Kind, utc_now
from ..services.calendar import BookedView, get_calendar
from ..services.node_view import DeviceState, NodeView
from .texts import _, _l
from .words import what_is_booked

_HOUR = dt.timedelta(hours=1)
# How much a timeline shows, and how far its marks are apart without scripts.
_SPANS = {
    "24h": (_l("24 h"), 24 * _HOUR, 4 * _HOUR),
    "3d": (_l("3 d"), 72 * _HOUR, 12 * _HOUR),
    "7d": (_l("7 d"), 168 * _HOUR, 24 * _HOUR),
}
_DEFAULT_SPAN = "24h"
# Between these, in years, arithmetic with any span stays within datetime's range.
_YEARS = range(2000, 2200)


@dataclass(frozen=True)
class Block:
    """A booking in a lane; `x` and `width` are per cent of the window."""

    booked: BookedView
    x: float
    width: float
    look: str


@dataclass(frozen=True)
class Lane:
    """A device, or the whole machine: then `uuid` is empty."""

    label: str
    uuid: str
    blocks: list[Block]


@dataclass(frozen=True)
class Coming:
    """A booking of the window in words."""

    booked: BookedView
    what: str
    is_running: bool
    is_maintenance: bool


@dataclass(frozen=True)
class Tick:
    """A mark on the axis, `x` per cent from its begin."""

    x: float
    at: dt.datetime


@dataclass(frozen=True)
class Timeline:
    """The window [starts, ends), what is booked in it, and where to look besides."""

    node: str
    span: str
    choices: list[tuple[str, str]]
    starts: dt.datetime
    ends: dt.datetime
    earlier: dt.datetime
    later: dt.datetime
    # Where now lies, in per cent; None outside the window.
    now: float | None
    ticks: list[Tick]
    lanes: list[Lane]
    coming: list[Coming]


def read_timeline(node: NodeView, around: dt.datetime | None = None) -> Timeline:
    """Return the node's timeline for the request's `span` and `from`.

    `around` is a time that must be in sight, such as a start that was wanted.
    """
    now = utc_now()
    span = request.args.get("span", "")
    if span not in _SPANS:
        span = _DEFAULT_SPAN
    _label, length, step = _SPANS[span]
    starts = _asked_start() or _floor(now)
    if around is not None and not starts <= around < starts + length:
        starts = _floor(around) - 2 * _HOUR
    window = Interval(starts, starts + length)
    booked = get_calendar(node.name, window).bookings or ()

    def place(time: dt.datetime) -> float:
        share = (time - window.starts) / length
        return round(100 * min(1.0, max(0.0, share)), 3)

    def block(one: BookedView) -> Block:
        x = place(one.starts)
        return Block(one, x, round(place(one.ends) - x, 3), _look(one))

    devices = [device for device in node.devices if device.state != DeviceState.ABSENT]
    lanes = [
        Lane(
            label=_("Card %(index)s", index=device.index),
            uuid=device.uuid,
            blocks=[
                block(one) for one in booked if one.whole_node or device.uuid in one.devices
            ],
        )
        for device in devices
    ]
    if not lanes:
        lanes = [Lane(_("Machine"), "", [block(one) for one in booked])]
    numbers = {device.uuid: device.index for device in node.devices}
    return Timeline(
        node=node.name,
        span=span,
        choices=[(key, str(label)) for key, (label, _length, _step) in _SPANS.items()],
        starts=window.starts,
        ends=window.ends,
        earlier=window.starts - length,
        later=window.ends,
        now=place(now) if window.starts <= now < window.ends else None,
        ticks=_ticks(window, step),
        lanes=lanes,
        coming=[
            Coming(
                booked=one,
                what=what_is_booked(one.whole_node, [numbers[uuid] for uuid in one.devices]),
                is_running=one.starts <= now < one.ends,
                is_maintenance=one.kind == Kind.MAINTENANCE,
            )
            for one in booked
            if one.ends > now
        ],
    )


def _asked_start() -> dt.datetime | None:
    try:
        asked = dt.datetime.fromisoformat(request.args.get("from", ""))
    except ValueError:
        return None
    if asked.tzinfo is None or asked.year not in _YEARS:
        return None
    return asked.astimezone(dt.UTC)


def _floor(time: dt.datetime) -> dt.datetime:
    return time.replace(minute=0, second=0, microsecond=0)


def _look(one: BookedView) -> str:
    if one.kind == Kind.MAINTENANCE:
        return "maintenance"
    return "mine" if one.holder == current_actor().name else "busy"


def _ticks(window: Interval, step: dt.timedelta) -> list[Tick]:
    length = window.ends - window.starts
    ticks = []
    at = window.starts.replace(hour=0)
    while at < window.ends:
        if at >= window.starts:
            ticks.append(Tick(round(100 * ((at - window.starts) / length), 3), at))
        at += step
    return ticks
