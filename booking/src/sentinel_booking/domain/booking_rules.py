"""What may be asked of a booking: its times, its devices, its purpose. Reads no database.

Every function returns the problems of its fields, so that all are reported at once.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from ..errors import FieldProblem
from .conflicts import Interval

MIN_LENGTH = dt.timedelta(minutes=1)
# A page offers the current minute as start, and it takes a while to fill it in.
START_TOLERANCE = dt.timedelta(minutes=2)
MAX_DEVICES = 128
MAX_PURPOSE_CHARS = 500
# Far from the ends of datetime's range, so that no arithmetic here can overflow.
_YEARS = range(2000, 2200)


class State(StrEnum):
    """Where a reservation stands: coming, running while starts <= now < ends, past."""

    COMING = "coming"
    RUNNING = "running"
    PAST = "past"


@dataclass(frozen=True)
class Limits:
    """How long a reservation may be, and how far ahead it may begin."""

    max_length: dt.timedelta
    max_advance: dt.timedelta


def state_at(now: dt.datetime, interval: Interval, *, is_cancelled: bool) -> State:
    """Return the state at `now`; what was cancelled is past, whatever its times say."""
    if is_cancelled or now >= interval.ends:
        return State.PAST
    return State.RUNNING if interval.starts <= now else State.COMING


def settle_start(starts: dt.datetime | None, now: dt.datetime) -> dt.datetime:
    """Return when it begins: now without a start, and for one that has just gone by.

    One that is longer ago than START_TOLERANCE is returned as it is, to be refused.
    """
    if starts is None or now - START_TOLERANCE <= starts < now:
        return now
    return starts


def interval_problems(
    interval: Interval, now: dt.datetime, limits: Limits | None
) -> list[FieldProblem]:
    """Judge the times of a new reservation; `limits` None: only what always holds."""
    problems = []
    for field, time in (("starts", interval.starts), ("ends", interval.ends)):
        if time.year not in _YEARS:
            problems.append(FieldProblem(field, "the year must lie between 2000 and 2199"))
    if problems:
        return problems
    if interval.starts < now:
        problems.append(FieldProblem("starts", "lies in the past"))
    elif limits is not None and interval.starts > now + limits.max_advance:
        days = limits.max_advance.days
        problems.append(FieldProblem("starts", f"more than {days} days ahead"))
    return problems + length_problems(interval, limits)


def new_end_problems(
    interval: Interval, now: dt.datetime, limits: Limits | None
) -> list[FieldProblem]:
    """Judge a changed end of a reservation that runs or comes."""
    if interval.ends.year not in _YEARS:
        return [FieldProblem("ends", "the year must lie between 2000 and 2199")]
    if interval.ends <= now:
        return [FieldProblem("ends", "has passed already; to end it now, release it")]
    return length_problems(interval, limits)


def length_problems(interval: Interval, limits: Limits | None) -> list[FieldProblem]:
    """Judge how long it is."""
    length = interval.ends - interval.starts
    if length <= dt.timedelta(0):
        return [FieldProblem("ends", "must lie behind the start")]
    if length < MIN_LENGTH:
        return [FieldProblem("ends", "a reservation lasts one minute at least")]
    if limits is not None and length > limits.max_length:
        hours = limits.max_length // dt.timedelta(hours=1)
        return [FieldProblem("ends", f"a reservation lasts {hours} hours at most")]
    return []


def choice_problems(device_uuids: Sequence[str], *, whole_node: bool) -> list[FieldProblem]:
    """Judge what is booked: the whole node, or some devices, each named once."""
    if whole_node and device_uuids:
        return [FieldProblem("devices", "name devices or the whole node, not both")]
    if not whole_node and not device_uuids:
        return [FieldProblem("devices", "name at least one device, or the whole node")]
    if len(device_uuids) > MAX_DEVICES:
        return [FieldProblem("devices", f"at most {MAX_DEVICES}")]
    seen: set[str] = set()
    problems = []
    for number, uuid in enumerate(device_uuids):
        if uuid in seen:
            problems.append(FieldProblem(f"devices.{number}", "named twice"))
        seen.add(uuid)
    return problems


def purpose_problems(purpose: str) -> list[FieldProblem]:
    """Judge the text that says what it is for: one line of printable characters."""
    if len(purpose) > MAX_PURPOSE_CHARS:
        return [FieldProblem("purpose", f"at most {MAX_PURPOSE_CHARS} characters")]
    if not purpose.isprintable():
        return [FieldProblem("purpose", "one line of printable characters only")]
    return []
