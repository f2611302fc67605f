"""The history of alerts: what Alertmanager posts, once for each firing. It mails nobody."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import select, tuple_, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from ..domain.alerts import PostedAlert, in_order
from ..models import Alert, Claim, Node, Reservation, User, db, utc_now, write
from .paging import Slice, decode_time_cursor, encode_time_cursor


class AlertState(StrEnum):
    """Whether the alert still fires."""

    FIRING = "firing"
    RESOLVED = "resolved"


@dataclass(frozen=True)
class AlertView:
    """One firing. `holders` had reservations on the node when the alert arrived."""

    id: int
    fingerprint: str
    name: str
    severity: str
    node: str
    state: AlertState
    labels: dict[str, str]
    annotations: dict[str, str]
    holders: tuple[str, ...]
    starts_at: dt.datetime
    ends_at: dt.datetime | None
    received_at: dt.datetime


def keep_alerts(alerts: Sequence[PostedAlert]) -> None:
    """Keep what was posted; posting it again changes nothing. Who: Alertmanager.

    A firing that is over stays over: Alertmanager repeats old posts, and a cluster of
    them posts everything twice. A new firing ends the earlier ones of the same alert: a
    Prometheus or Alertmanager that was restarted never says how those ended.
    """
    now = utc_now()
    with write() as session:
        holders = _read_holders(session, {alert.labels.get("node", "") for alert in alerts})
        for alert in in_order(alerts):
            row = _find(session, alert)
            if row is None:
                names = holders.get(alert.labels.get("node", ""), [])
                row = _add(session, alert, names, now)
                _close_earlier(session, alert, now)
            if row.ends_at is not None:
                continue
            row.ends_at = alert.ends_at
            row.annotations = dict(alert.annotations)
            row.updated_at = now


def list_alerts(
    *,
    node: str | None = None,
    state: AlertState | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> Slice[AlertView]:
    """Return alerts, the newest first. Who: anybody signed in.

    Raises InvalidInput for a cursor that was not given out.
    """
    query = select(Alert).order_by(Alert.starts_at.desc(), Alert.id.desc()).limit(limit + 1)
    if node is not None:
        query = query.where(Alert.node == node)
    if state is AlertState.FIRING:
        query = query.where(Alert.ends_at.is_(None))
    elif state is AlertState.RESOLVED:
        query = query.where(Alert.ends_at.is_not(None))
    if cursor is not None:
        query = query.where(
            tuple_(Alert.starts_at, Alert.id) < tuple_(*decode_time_cursor(cursor))
        )
    rows = db.session.scalars(query).all()
    more = len(rows) > limit
    rows = rows[:limit]
    return Slice(
        items=[_view(row) for row in rows],
        next_cursor=encode_time_cursor(rows[-1].starts_at, rows[-1].id) if more else None,
    )


def _find(session: Session, alert: PostedAlert) -> Alert | None:
    return session.scalar(
        select(Alert).where(
            Alert.fingerprint == alert.fingerprint, Alert.starts_at == alert.starts_at
        )
    )


def _close_earlier(session: Session, alert: PostedAlert, now: dt.datetime) -> None:
    session.execute(
        update(Alert)
        .where(
            Alert.fingerprint == alert.fingerprint,
            Alert.starts_at < alert.starts_at,
            Alert.ends_at.is_(None),
        )
        .values(ends_at=alert.starts_at, updated_at=now)
    )


def _add(
    session: Session, alert: PostedAlert, holders: Sequence[str], now: dt.datetime
) -> Alert:
    row = Alert(
        fingerprint=alert.fingerprint,
        name=alert.labels["alertname"],
        severity=alert.labels.get("severity", ""),
        node=alert.labels.get("node", ""),
        labels=dict(alert.labels),
        annotations=dict(alert.annotations),
        holders=list(holders),
        starts_at=alert.starts_at,
        received_at=now,
    )
    try:
        with session.begin_nested():
            session.add(row)
    except IntegrityError:
        # The other Alertmanager of the cluster has posted it in this very moment.
        found = _find(session, alert)
        if found is None:
            raise
        return found
    return row


def _read_holders(session: Session, nodes: Iterable[str]) -> dict[str, list[str]]:
    """Return who holds each of the nodes, or a part of it, now."""
    now = utc_now()
    rows = session.execute(
        select(Node.name, User.name)
        .join(Claim, Claim.node_id == Node.id)
        .join(Reservation, Reservation.id == Claim.reservation_id)
        .join(User, User.id == Reservation.user_id)
        .where(
            Node.name.in_(sorted(nodes)),
            Claim.is_active.is_(True),
            Claim.starts <= now,
            Claim.ends > now,
        )
        .distinct()
        .order_by(Node.name, User.name)
    )
    found: dict[str, list[str]] = {}
    for node, user in rows:
        found.setdefault(node, []).append(user)
    return found


def _view(row: Alert) -> AlertView:
    return AlertView(
        id=row.id,
        fingerprint=row.fingerprint,
        name=row.name,
        severity=row.severity,
        node=row.node,
        state=AlertState.FIRING if row.ends_at is None else AlertState.RESOLVED,
        labels=row.labels,
        annotations=row.annotations,
        holders=tuple(row.holders),
        starts_at=row.starts_at,
        ends_at=row.ends_at,
        received_at=row.received_at,
    )
